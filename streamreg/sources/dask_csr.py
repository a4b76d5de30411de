"""Dask arrays whose chunks are SciPy's sparse rows: each chunk row is a block.

Plans need to know how many values each chunk row has. So all chunks are computed once when the data
are opened, by Dask's current scheduler, and their values are counted.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import EXACT_INTEGERS, SparseRows
from streamreg.errors import InputError
from streamreg.sources import dask as dask_source
from streamreg.sources.base import Kind, Reader, RowGrid
from streamreg.sources.dask import DaskSource
from streamreg.sources.scipy_csr import as_sparse_rows, is_scipy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource

# of an index and a bound, as SciPy stores them where a chunk has 2^31 values
_INDEX_NBYTES = 8


def claims(data: object) -> bool:
    """Whether ``data`` is an array of Dask, or a labelled one, that declares sparse chunks."""
    inner = getattr(data, "data", data) if dask_source.claims(data) else data
    return dask_source.claims(data) and is_scipy(getattr(inner, "_meta", None))


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a Dask array of chunks in CSR format; other formats are refused."""
    dense = dask_source.open_rows(data, name, missing_chunks)
    inner = getattr(data, "data", data)
    found = getattr(inner._meta, "format", "another")  # noqa: SLF001  (Dask's way to declare chunks)
    if name != "X":
        raise InputError(
            f"{name} is a Dask array of sparse chunks, and only X may be; pass "
            f"{name}.map_blocks(lambda rows: rows.toarray())"
        )
    if found != "csr":
        raise InputError(
            f"chunks of {name} are sparse in {found} format, whose rows are not stored one after "
            f"the other; pass {name}.map_blocks(scipy.sparse.csr_array)"
        )
    return DaskCsrSource(inner, name, missing_chunks, dense.labels)


KIND = Kind(claims, open_rows)


class DaskCsrSource(DaskSource):
    """Sparse rows of a Dask array; all chunks of a chunk row are joined."""

    is_sparse = True

    def __init__(
        self,
        array: Any,  # noqa: ANN401  (dask publishes no types)
        name: str,
        missing_chunks: str,
        labels: Mapping[str, Any],
    ) -> None:
        super().__init__(array, name, missing_chunks, labels)
        grid = self.grid
        bounds = (*(grid.rows(chunk)[0] for chunk in range(len(grid))), grid.n_rows)
        self.grid = RowGrid(grid.n_rows, grid.chunk_rows, bounds=bounds, has_blocks=True)
        # values of each chunk row
        self.counts: list[int] = self.of_chunks(_n_values)
        self._value_nbytes = max(4, min(8, self.dtype.itemsize)) + _INDEX_NBYTES

    def open(self) -> Reader:
        _ = self.optimized  # warns, or refuses the array, before the first row is computed
        return _DaskCsrReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        # as for dense chunks: what tasks take is not known in advance
        return 4 * self.block_nbytes(block_rows)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row, on average."""
        return max(1, -(-self.pass_nbytes // max(1, self.shape[0])))

    @property
    def pass_nbytes(self) -> int:
        return sum(self.counts) * self._value_nbytes + 8 * (self.shape[0] + len(self.counts))

    def block_nbytes(self, block_rows: int) -> int:
        return max(self.counts, default=0) * self._value_nbytes + 8 * (block_rows + 1)

    @property
    def density(self) -> float:
        return sum(self.counts) / max(1, self.shape[0] * self.shape[1])

    def describe(self) -> dict[str, Any]:
        return {"values": f"{sum(self.counts):,} stored ({100 * self.density:.3g} %)"}


def _n_values(rows: Any) -> int:  # noqa: ANN401
    """Return the number of stored values; 0 for what is no sparse array, which a read refuses."""
    with suppress(AttributeError):
        return int(rows.nnz)
    return 0


class _DaskCsrReader(Reader):
    def __init__(self, source: DaskCsrSource) -> None:
        self._source = source

    def read(self, start: int, stop: int) -> Array:
        source = self._source
        chunk = source.grid.chunk_at(start)
        first, last = source.grid.rows(chunk)
        place = source.place(start)
        rows = as_sparse_rows(source.compute(chunk), source, first, last, place)
        if len(rows.values) > source.counts[chunk]:
            raise InputError(
                f"{place} has {len(rows.values):,} values, and had {source.counts[chunk]:,} when "
                "it was first computed; pass rows that do not change, such as X.persist()"
            )
        if source.dtype.kind in "iu" and source.dtype.itemsize == 8:  # noqa: PLR2004
            self.rounds |= bool(np.abs(rows.values).max(initial=0) > EXACT_INTEGERS)
        found: Any = rows if (start, stop) == (first, last) else _part(rows, start, stop)
        return found  # type: ignore[no-any-return]


def _part(rows: SparseRows, start: int, stop: int) -> SparseRows:
    return rows.part(start - rows.start, stop - rows.start)
