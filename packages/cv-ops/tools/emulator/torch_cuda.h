#pragma once

namespace simt {

void* current_stream();  // torch's, which every launch has to name

}  // namespace simt
