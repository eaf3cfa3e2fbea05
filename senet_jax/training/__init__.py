"""Training: optimizer, step, loop, checkpoints, progress."""
