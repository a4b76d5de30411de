"""CSV and Parquet tables to data sets."""
