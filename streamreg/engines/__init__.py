"""Who runs a pass."""
