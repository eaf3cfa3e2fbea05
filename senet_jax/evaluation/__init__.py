"""Evaluation: metrics and the loop over a split."""
