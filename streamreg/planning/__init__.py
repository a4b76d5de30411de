"""Bytes, passes and time of each solver, from metadata alone."""
