# As in nms: without fused multiply-adds every instruction set and the GPU round alike.
set_source_files_properties(csrc/nms_quadri/nms_quadri_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/nms_quadri/nms_quadri_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
