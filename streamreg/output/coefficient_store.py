"""Weights of many targets, written to a Zarr array some targets at a time."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

import google_crc32c
import numpy as np

from streamreg.errors import InputError
from streamreg.formatting import count
from streamreg.output.staging import require_writable
from streamreg.output.stored_coefficients import IDENTITY, StoredCoefficients
from streamreg.output.zarr_writer import new_array
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    import zarr

    from streamreg.blocks import Array


class CoefficientStore:
    """A Zarr v3 array (K, D) of float64 that appears at its path whole or not at all.

    A chunk has the targets whose weights fit in 8 MiB, and a checksum. Until :meth:`finish` the
    array is ``<path>.partial``, which :meth:`abandon` removes, as does an exception in a ``with``
    block. Memory: 4·K bytes, and while a block is written about four chunks.

    >>> with CoefficientStore.create(path, 3, 2) as store:  # doctest: +SKIP
    ...     store.write(0, first)  # (2, 2)
    ...     store.write(2, rest)  # (1, 2)
    ...     coefficients = store.finish()
    """

    def __init__(self, array: zarr.Array[Any], path: Path, staged: ExitStack) -> None:
        self._array = array
        self._path = path
        self._staged = staged
        n_targets = int(array.shape[0])
        # the checksum of each target's weights
        self._checksums = np.zeros(n_targets, np.uint32)
        self._is_written = np.zeros(n_targets, bool)
        self._is_open = True

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        n_targets: int,
        n_features: int,
        *,
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> CoefficientStore:
        """Begin an array of weights; raise ``InputError`` as ``require_writable`` does."""
        target = require_writable(path, overwrite=overwrite, inputs=inputs)
        with ExitStack() as staged:
            shape = n_targets, n_features
            array = staged.enter_context(new_array(target, shape, overwrite=overwrite))
            return cls(array, target, staged.pop_all())

    @property
    def chunk_targets(self) -> int:
        """The number of targets in a chunk: a block of a multiple of it is written fastest."""
        return int(self._array.chunks[0])

    def write(self, first_target: int, block: Array) -> None:
        """Write the weights (k, D) of targets ``first_target`` to ``first_target`` + k.

        Blocks come in any order. Chunks that a block fills in part are read and written again.
        ``InputError`` if a weight is NaN or inf.
        """
        n_targets, n_features = self._array.shape
        stop = first_target + len(block)
        if not 0 <= first_target <= stop <= n_targets or block.shape[1:] != (n_features,):
            raise InputError(
                f"weights {block.shape} from target {first_target:,} on are not in {n_targets:,} "
                f"targets × {n_features:,} features"  # noqa: RUF001
            )
        start = first_target
        while start < stop:
            chunk_stop = min(stop, (start // self.chunk_targets + 1) * self.chunk_targets)
            rows = block[start - first_target : chunk_stop - first_target]
            self._write_chunk(start, np.ascontiguousarray(rows, np.float64))
            start = chunk_stop

    def _write_chunk(self, start: int, rows: Array) -> None:
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            target = start + int(np.argmin(finite))
            raise InputError(f"target {target:,} has weights that are NaN or inf; fit it again")
        stop = start + len(rows)
        uninterrupted(self._array.__setitem__, slice(start, stop), rows)
        self._checksums[start:stop] = [_crc32c(row) for row in rows]
        self._is_written[start:stop] = True

    def finish(self) -> StoredCoefficients:
        """Rename the array to its path, and return it; ``InputError`` if targets are missing."""
        n_missing = int(np.count_nonzero(~self._is_written))
        if n_missing:
            first = int(np.argmin(self._is_written))
            self.abandon()
            raise InputError(
                f"the weights of {count(n_missing, 'target')} were not written, first {first:,}"
            )
        known = repr(self._array.shape).encode() + self._checksums.astype("<u4").tobytes()
        identity = hashlib.sha256(known).hexdigest()
        with self._staged:
            self._is_open = False
            uninterrupted(self._array.attrs.update, {IDENTITY: identity})
        return StoredCoefficients(self._path, identity)

    def abandon(self) -> None:
        """Remove what was written; does nothing after :meth:`finish`."""
        if self._is_open:
            self._is_open = False
            # an error within the ``with`` block of a staged folder removes the folder
            with suppress(_AbandonedError), self._staged:
                raise _AbandonedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()


class _AbandonedError(Exception):
    """The array is not to be finished."""


def _crc32c(row: Array) -> int:
    values = row.view(np.uint8)
    # the library takes read-only arrays, without a copy
    values.flags.writeable = False
    return int(google_crc32c.value(values))
