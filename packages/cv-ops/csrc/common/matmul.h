#pragma once
// torch's own matrix product (MKL, cuBLAS with tensor cores) on pieces of memory that a kernel owns.

#include <array>

#include "torch_stable.h"

namespace cv {

// A strided (rows, cols) view of memory on the device of `like`; `like` is only asked for its device and
// whoever owns `data` must outlive the view. Such a view carries no autograd history.
inline Tensor matrix_view(const Tensor& like, const void* data, ScalarType dtype, int64_t rows, int64_t cols,
                          int64_t row_stride, int64_t col_stride) {
  return torch::stable::from_blob(const_cast<void*>(data), {rows, cols}, {row_stride, col_stride}, like.device(),
                                  dtype);
}

// out = a @ b. The out= form, since autocast leaves that one alone: dtypes are the caller's choice here.
inline void matmul_out(const Tensor& out, const Tensor& a, const Tensor& b) {
  const auto boxed = [](Tensor t) { return torch::stable::detail::from(t.release()); };
  std::array<StableIValue, 3> stack{boxed(a), boxed(b), boxed(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  (void)Tensor(torch::stable::detail::to<AtenTensorHandle>(stack[0]));
}

}  // namespace cv
