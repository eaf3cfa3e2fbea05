"""Measurements of programs, on the devices at hand and compiled ahead of time."""
