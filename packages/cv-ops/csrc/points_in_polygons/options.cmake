# As in nms: without fused multiply-adds the sign of a cross product is the same everywhere.
set_source_files_properties(csrc/points_in_polygons/points_in_polygons_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/points_in_polygons/points_in_polygons_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
