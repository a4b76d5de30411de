"""Data frames and series of pandas, polars and pyarrow: converted a block at a time."""
