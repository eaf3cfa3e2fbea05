"""What the gates of SE blocks do: their statistics, their figures, and pruning by them."""
