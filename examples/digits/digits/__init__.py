"""The parts of the digits project: what a user of ``cv`` writes, and nothing that ``cv`` offers."""
