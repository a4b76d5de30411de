"""Zarr arrays, v2 and v3."""
