"""Read, write and transform images held in NumPy arrays."""
