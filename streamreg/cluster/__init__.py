"""Passes on the workers of a Dask cluster. Imported only if a fit is given a client."""
