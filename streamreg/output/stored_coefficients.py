"""Weights of many targets that stay in a Zarr array."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.zarr.metadata import opened
from streamreg.sources.zarr.source import ZarrSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr

    from streamreg.blocks import Array, Float64
    from streamreg.sources.base import Reader

# the attribute of the array that holds its identity
IDENTITY = "streamreg_identity"


class StoredCoefficients:
    """Weights (K, D) in a Zarr array that ``CoefficientStore`` wrote; some rows are read at a time.

    NumPy takes them as an array: ``np.asarray(coefficients)`` loads all 8·K·D bytes, and
    ``coefficients[5]`` or ``coefficients[:100]`` the weights of these targets. A copy by ``pickle``
    holds the path, and opens the array again.

    Parameters
    ----------
    path
        The local folder of the array.
    identity
        The identity that the array must have, because a model refers to it.

    Raises
    ------
    InputError
        There is no such array, or it was written by another fit.
    DataCorruptionError
        Its metadata, or a chunk that is read, are missing or damaged.
    """

    dtype = np.dtype(np.float64)
    ndim = 2

    def __init__(self, path: str | os.PathLike[str], identity: str | None = None) -> None:
        text = os.fspath(path)
        if "://" in text or not Path(text).is_dir():
            raise InputError(f"there are no weights at {text!r}: no local folder has this name")
        self.path = Path(os.path.realpath(text))
        array = _opened(text)
        self.identity = str(array.attrs[IDENTITY])
        if identity is not None and self.identity != identity:
            raise InputError(
                f"the weights in {text!r} are those of another fit: they were replaced since the "
                "model was fitted. Restore them, or fit again"
            )
        self._source = ZarrSource(array, text, "refuse")
        self.shape = int(array.shape[0]), int(array.shape[1])

    def rows(self, start: int, stop: int) -> Float64:
        """Return the weights of targets ``start`` to ``stop``, (k, D), newly allocated.

        The read takes :meth:`reader_nbytes` besides. Threads may read at the same time.
        """
        if not 0 <= start <= stop <= len(self):
            raise InputError(
                f"targets {start:,} to {stop:,} are not among the {len(self):,} of {self.path}"
            )
        self.require_present()
        rows = np.empty((stop - start, self.shape[1]))
        with closing(self._source.open()) as reader:
            self._fill(rows, start, reader)
        return rows

    @contextmanager
    def reading(self, most: int) -> Iterator[Callable[[int, int], Float64]]:
        """Yield a function as :meth:`rows`, for at most this many targets, for one thread.

        Its result is valid until the next call, because memory for weights and chunks is reused.
        """
        self.require_present()
        rows = np.empty((most, self.shape[1]))
        with closing(self._source.open()) as reader:

            def read(start: int, stop: int) -> Float64:
                self._fill(rows[: stop - start], start, reader)
                return rows[: stop - start]

            yield read

    def _fill(self, rows: Float64, start: int, reader: Reader) -> None:
        stop = start + len(rows)
        for _, low, high in self._source.grid.spans(start, stop) if stop > start else ():
            rows[low - start : high - start] = reader.read(low, high)

    @property
    def chunk_targets(self) -> int:
        """The number of targets in a chunk, which is decoded whole."""
        return self._source.grid.chunk_rows

    @property
    def reader_nbytes(self) -> int:
        """Bytes that a read takes beside the rows that it returns: a chunk, encoded and decoded."""
        return self._source.reader_nbytes(min(self.chunk_targets, len(self)))

    def require_present(self) -> None:
        """Raise ``InputError`` if the array was removed or replaced since it was opened."""
        StoredCoefficients(self.path, self.identity)

    def require_unchanged(self) -> None:
        """Raise as ``require_present``, or if a chunk was rewritten since it was read."""
        self.require_present()
        self._source.require_unchanged()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, targets: int | slice) -> Float64:
        if isinstance(targets, slice):
            start, stop, step = targets.indices(len(self))
            if step == 1:
                return self.rows(start, max(start, stop))
        elif isinstance(targets, int | np.integer):
            target = int(targets) + len(self) * (targets < 0)
            if not 0 <= target < len(self):
                raise IndexError(f"target {targets} of {len(self):,}")
            return self.rows(target, target + 1).reshape(-1)
        raise TypeError(
            "stored weights take a target or a slice of targets; np.asarray loads all of them"
        )

    def __array__(
        self,
        dtype: Any = None,  # noqa: ANN401  (as NumPy has it)
        copy: bool | None = None,  # noqa: FBT001
    ) -> Array:
        if copy is False:
            raise ValueError("weights that are stored on disk cannot be an array without a copy")
        rows: Array = self.rows(0, len(self))
        return rows.astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[type[StoredCoefficients], tuple[str, str]]:
        return StoredCoefficients, (str(self.path), self.identity)

    def __repr__(self) -> str:
        return f"StoredCoefficients({str(self.path)!r}, shape={self.shape})"


def _opened(text: str) -> zarr.Array[Any]:
    import zarr  # noqa: PLC0415  (imported only if weights are stored)

    array, label = opened(text, "coefficients")
    if not isinstance(array, zarr.Array) or not isinstance(array.attrs.get(IDENTITY), str):
        raise InputError(f"{label} does not hold weights of a fit with coef_out")
    if array.ndim != StoredCoefficients.ndim or array.dtype != StoredCoefficients.dtype:
        raise InputError(
            f"{label} holds {array.dtype} of shape {array.shape}; weights are float64, (K, D)"
        )
    return array
