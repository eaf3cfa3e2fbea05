"""Drawings of the blocks of networks, from the operations that their modules trace to."""
