"""Shelf 2: an immutable folder with manifest and hashes is one released brain. Floor 1."""
