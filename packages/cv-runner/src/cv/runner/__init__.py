"""Hook-driven training loops."""
