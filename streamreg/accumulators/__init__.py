"""Statistics of a pass: states that can be merged and whose bytes are known before reading."""
