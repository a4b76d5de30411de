"""Rows whose stored values are packed: decoded a block at a time, by their CF attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import warn
from streamreg.sources.base import Reader, RowSource
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.packing import Packing

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array

# masks of the pieces in which a block is decoded, and the like
_SCRATCH_NBYTES = 1 << 18


def decoded(source: RowSource) -> RowSource:
    """Return the numbers that stored values mean; the source itself if they are the numbers.

    Raises :class:`InputError` for dates, and for an attribute that is no number.
    """
    for message in source.undecoded():
        warn(message)
    packing = Packing.of(source.attributes, source.dtype, source.name)
    if packing is None:
        return source
    computed = source.mapped(packing.decoded, packing.dtype)
    if computed is None:
        return DecodedSource(source, packing)
    computed.missing_text = packing.missing_text
    return computed


class DecodedSource(RowSource):
    """The decoded rows of a source whose values are packed."""

    def __init__(self, source: RowSource, packing: Packing) -> None:
        self.source = source
        self.packing = packing
        self.name = source.name
        self.shape = source.shape
        self.dtype = packing.dtype
        self.grid = source.grid
        self.attributes = source.attributes
        self.missing_text = packing.missing_text
        self.storage = f"{source.storage} {packing}"
        self.fingerprint_reads_all_rows = source.fingerprint_reads_all_rows
        self.stamps = source.stamps
        self.why_unreachable_from_workers = source.why_unreachable_from_workers

    def open(self) -> Reader:
        return _DecodedReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        stored = self.source.reader_nbytes(block_rows)
        return stored + block_rows * self.row_nbytes + _SCRATCH_NBYTES

    @property
    def shared_nbytes(self) -> int:
        return self.source.shared_nbytes

    def local_paths(self) -> list[Path]:
        return self.source.local_paths()

    def require_exists(self) -> None:
        self.source.require_exists()

    def require_unchanged(self) -> None:
        self.source.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.source.place(row, column)

    def describe(self) -> dict[str, Any]:
        dtypes = {"dtype": f"{self.dtype} from {self.source.dtype}"}
        return {**self.source.describe(), **dtypes}

    def layout_advice(self, block_nbytes: int) -> list[str]:
        return self.source.layout_advice(block_nbytes)

    def rechunk_advice(self, rows: int) -> str:
        return self.source.rechunk_advice(rows)


class _DecodedReader(Reader):
    """Reads stored rows, and decodes them into a buffer of its own."""

    def __init__(self, source: DecodedSource) -> None:
        self._packing = source.packing
        self._stored = source.source.open()
        self._rows = RowBuffer(source.shape[1:], source.dtype)
        stored = source.packing.stored
        is_scaled = source.packing.scale is not None or source.packing.offset is not None
        # integers of 64 bits of which some are missing become float64
        self._may_round = stored.kind in "iu" and stored.itemsize == 8 and not is_scaled  # noqa: PLR2004

    def read(self, start: int, stop: int) -> Array:
        out = self._rows.rows(stop - start)
        self._packing.decode(self._stored.read(start, stop), out)
        if self._may_round:
            # these ignore NaN
            low, high = np.fmin.reduce(out, axis=None), np.fmax.reduce(out, axis=None)
            self.rounds |= bool(high >= EXACT_INTEGERS or low <= -EXACT_INTEGERS)
        return out

    def prefetch(self, start: int, stop: int) -> None:
        self._stored.prefetch(start, stop)

    def close(self) -> None:
        self._stored.close()
