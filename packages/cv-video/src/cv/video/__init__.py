"""Read, write and edit videos; optical flow."""
