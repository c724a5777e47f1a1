"""Draw images, boxes, labels and optical flow."""
