"""Loops, seeds, optimisers, checkpoints, export. Floor 3, learning wing."""
