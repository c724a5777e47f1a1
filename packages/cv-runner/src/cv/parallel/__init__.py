"""Data containers, collation and parallel model wrappers."""
