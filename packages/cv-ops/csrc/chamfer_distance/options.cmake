# As in nms: without fused multiply-adds the nearest of points at equal distances is the same everywhere.
set_source_files_properties(csrc/chamfer_distance/chamfer_distance_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/chamfer_distance/chamfer_distance_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
