"""Arrays on disk inside a Dask graph, which raise for absent values where Dask would read zeros."""

from __future__ import annotations

from itertools import product
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.formatting import rows_text
from streamreg.sources.hdf5_storage import absent_rows, not_stored
from streamreg.sources.zarr.fallback import require_checkable
from streamreg.sources.zarr.presence import Presence
from streamreg.sources.zarr.source import ZarrSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class CheckedZarr:
    """A Zarr array: what is read must be in its store. All else is the array's own."""

    def __init__(self, array: Any, name: str) -> None:  # noqa: ANN401  (a zarr.Array)
        self._inner = array
        self._name = name
        self._stored = ZarrSource(array, name, "error")
        require_checkable(self._stored)
        self._presence = Presence(self._stored)
        self._lock = RLock()

    def __reduce__(self) -> tuple[type[CheckedZarr], tuple[Any, str]]:
        return CheckedZarr, (self._inner, self._name)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        return self._read(self._inner, key)

    @property
    def oindex(self) -> _Indexer:
        """Orthogonal indexing."""
        return _Indexer(lambda key: self._read(self._inner.oindex, key))

    @property
    def vindex(self) -> _Indexer:
        """Pointwise indexing."""
        return _Indexer(lambda key: self._read(self._inner.vindex, key))

    def _read(self, indexed: Any, key: Any) -> Any:  # noqa: ANN401
        stored, values = self._stored, indexed[key]
        # the store is asked only if there are values that zarr-python may have made up
        if not self._has_fill(values):
            return values
        parts = _parts(key, stored.shape)
        numbers = map(_chunk_numbers, parts, stored.shape, stored.chunks)
        for at in product(*numbers):
            with self._lock:
                if at not in stored.found:
                    self._presence.require(at)
                    stored.found.add(at)
        return values

    def _has_fill(self, values: Any) -> bool:  # noqa: ANN401
        fill = self._inner.fill_value or 0
        is_fill = np.isnan(values) if fill != fill else np.asarray(values) == fill  # noqa: PLR0124
        return bool(np.any(is_fill))


class CheckedHdf5:
    """An HDF5 dataset: what is read must be stored. All else is the dataset's own."""

    def __init__(self, dataset: Any, name: str) -> None:  # noqa: ANN401  (an h5py.Dataset)
        self._inner = dataset
        self._name = name
        self._absent = absent_rows(dataset)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        shape = self._inner.shape
        rows = list(_chunk_numbers(_parts(key, shape)[0], shape[0], 1))
        for absent in self._absent:
            if rows and rows[0] < absent.stop and absent.start <= rows[-1]:
                what = f"{rows_text(absent.start, absent.stop)} of {self._name}"
                raise not_stored(self._inner, what, absent.why)
        return self._inner[key]


class _Indexer:
    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        return self._read(key)


def _parts(key: Any, shape: tuple[int, ...]) -> list[Any]:  # noqa: ANN401
    """Return the part of a key for each axis; a key that is not understood selects all."""
    parts = [part for part in (key if isinstance(key, tuple) else (key,)) if part is not None]
    everything = [slice(None)] * len(shape)
    if any(isinstance(part, str) or np.ndim(_array_of(part)) > 1 for part in parts):
        return everything
    at = [i for i, part in enumerate(parts) if part is Ellipsis]
    if at:
        n_left = len(shape) - len(parts) + 1
        parts[at[0] : at[0] + 1] = [slice(None)] * n_left
    return parts + everything[len(parts) :] if len(parts) <= len(shape) else everything


def _array_of(part: Any) -> Any:  # noqa: ANN401
    return 0 if isinstance(part, slice) or part is Ellipsis else part


def _chunk_numbers(part: Any, length: int, chunk: int) -> Iterable[int]:  # noqa: ANN401
    """Return the chunks along an axis that a part of a key reads, in order."""
    if isinstance(part, slice):
        rows = range(*part.indices(length))
        if not rows:
            return ()
        low, high = sorted((rows[0], rows[-1]))
        return range(low // chunk, high // chunk + 1)
    values = np.atleast_1d(np.asarray(part))
    if values.dtype == bool:
        values = np.flatnonzero(values)
    whole: list[int] = np.unique(np.where(values < 0, values + length, values) // chunk).tolist()
    return whole
