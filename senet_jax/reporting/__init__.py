"""Curves of runs, and the figures and tables that share their look."""
