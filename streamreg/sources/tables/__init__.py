"""Tables: CSV, Parquet and Arrow files, folders of them, and data frames, as X, y and weights."""
