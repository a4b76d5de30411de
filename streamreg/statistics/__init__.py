"""Statistics of rows, from which weights are solved without reading the rows again."""
