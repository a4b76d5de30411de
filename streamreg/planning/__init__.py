"""Plans: the bytes, passes and time of each solver, from metadata alone."""
