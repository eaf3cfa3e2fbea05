"""Data sets for tfds: one file a family."""
