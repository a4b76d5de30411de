"""A fit: data set and config → plan → backend → solver → model."""
