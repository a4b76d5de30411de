"""Where rows come from: paths, Zarr, Dask, NumPy, memory maps, HDF5 → rows in memory."""
