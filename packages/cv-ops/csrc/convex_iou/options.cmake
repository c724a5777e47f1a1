# As in nms: without fused multiply-adds edges that coincide are seen to coincide, and what is computed twice is equal.
set_source_files_properties(csrc/convex_iou/convex_iou_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/convex_iou/convex_iou_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
