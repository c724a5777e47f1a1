"""Building blocks for convolutional networks and transformers."""
