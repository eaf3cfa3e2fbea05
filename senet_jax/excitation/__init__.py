"""The gates of SE blocks: their statistics, their figures, and pruning by them."""
