"""Wires a bundle to the pipeline and speaks HTTP. Floor 3, answering wing."""
