# The IoU test must round alike in every variant: a fused multiply-add in one of them would decide some
# borderline pairs differently on different machines. See iou_exceeds in nms.h.
set_source_files_properties(csrc/nms/nms_cpu.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(csrc/nms/nms_cuda.cu PROPERTIES COMPILE_OPTIONS "--fmad=false")
