"""Statistics of a pass: states that merge, whose bytes are known before reading."""
