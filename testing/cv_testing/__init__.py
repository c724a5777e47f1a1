"""Test helpers shared by all packages; on the path of every test run, never shipped."""
