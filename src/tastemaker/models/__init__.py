"""Tensors in, tensors out; learned parameters; no files, no loops. Floor 0."""
