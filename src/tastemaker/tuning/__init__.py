"""Choosing the numbers of the next run: a search over settings, judged by later and later parts of the log."""
