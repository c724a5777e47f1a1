"""Test loops and collection of results."""
