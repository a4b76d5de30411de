"""Sparse rows, and stores of them as AnnData writes them."""

from __future__ import annotations

import h5py
import numcodecs
import numpy as np
import scipy.sparse
import zarr

N, D = 400, 30
# codecs with a checksum, by Zarr's format
CHECKED = {2: [numcodecs.GZip()], 3: [zarr.codecs.Crc32cCodec()]}


def matrix(seed=0, *, n=N, d=D):
    rng = np.random.default_rng(seed)
    return scipy.sparse.random_array((n, d), density=0.2, rng=rng, format="csr", dtype=np.float32)


def targets(X):
    rng = np.random.default_rng(1)
    return X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(X.shape[0]) + 3


def write(root, X, *, encoding="csr_matrix", create):
    """Write a group as AnnData does: data, indices, indptr, var and obs."""
    group = root.create_group("X")
    group.attrs.update({"encoding-type": encoding, "encoding-version": "0.1.0"})
    group.attrs["shape"] = list(X.shape)
    for name in ("data", "indices", "indptr"):
        create(group, name, getattr(X, name))
    return group


def in_zarr(path, X, zarr_format=3, chunk=97, *, checksum=False, **how):
    def create(group, name, values):
        chunks = (min(chunk, len(values)),)
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            compressors=CHECKED[zarr_format] if checksum else "auto",
        )
        array[:] = values

    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    write(root, X, create=create, **how)
    # absent chunks would mean zeros
    root.create_array("y", data=targets(X))
    return f"{path}/X"


def in_hdf5(path, X, **how):
    with h5py.File(path, "w") as file:
        write(
            file,
            X,
            create=lambda group, name, values: group.create_dataset(
                name, data=values, chunks=(97,), compression="gzip"
            ),
            **how,
        )
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        var.create_dataset("_index", data=[f"g{j}" for j in range(X.shape[1])])
        file.create_dataset("obs/age", data=targets(X))
    return f"{path}/X"
