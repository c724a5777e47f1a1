"""Initialisation, model complexity, and changes to finished models."""
