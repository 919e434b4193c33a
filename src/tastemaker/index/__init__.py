"""Nearest neighbours and channels behind one protocol. Floor 2, hall."""
