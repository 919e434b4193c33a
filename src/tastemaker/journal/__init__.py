"""Shelf 1: append and read what happened, durably. Floor 1."""
