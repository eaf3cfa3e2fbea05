"""What readers see of results: curves, and the figures and tables that share their look."""
