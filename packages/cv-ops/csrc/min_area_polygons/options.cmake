# As in nms: without fused multiply-adds every compiler picks the same edge.
set_source_files_properties(csrc/min_area_polygons/min_area_polygons_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/min_area_polygons/min_area_polygons_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
