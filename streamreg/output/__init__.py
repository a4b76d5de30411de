"""Files and Zarr arrays that appear on disk whole or not at all."""
