"""Gives a number to a recommender or to a log. Floor 1."""
