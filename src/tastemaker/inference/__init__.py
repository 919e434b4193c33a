"""Runs a bundle's models without torch. Floor 2, answering wing."""
