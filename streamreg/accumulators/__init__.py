"""Statistics of a pass: states that can be merged, with sizes known before reading."""
