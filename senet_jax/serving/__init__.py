"""A page to try a trained network on, and its API: a demonstration, for one machine."""
