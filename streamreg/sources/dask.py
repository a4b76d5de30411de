"""Dask arrays, lazy expressions too: one chunk row is computed at a time, by the thread that folds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.base import ChunkReader, Reader, RowGrid, RowSource, joined_nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamreg.blocks import Array


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a Dask array; ``None`` for anything else."""
    del missing_chunks  # what its graph reads is the graph's affair
    if type(data).__module__.partition(".")[0] != "dask":
        return None
    import dask.array  # noqa: PLC0415  (imported only by who has Dask arrays)

    if not isinstance(data, dask.array.Array):
        raise InputError(
            f"{name} is a {type(data).__module__}.{type(data).__name__}; pass a dask.array, "
            "such as frame.to_dask_array(lengths=True)"
        )
    return DaskSource(data, name)


class DaskSource(RowSource):
    """The rows of a Dask array, whatever its chunks."""

    def __init__(self, array: Any, name: str) -> None:  # noqa: ANN401  (dask publishes no types)
        self.name = name
        if any(np.isnan(length) for length in array.shape):
            raise InputError(
                f"{name} is a Dask array of unknown shape {array.shape}; "
                f"call {name}.compute_chunk_sizes() first"
            )
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.grid = RowGrid.irregular(array.chunks[0] if self.shape else ())
        # whole rows: a row block needs all of its column chunks
        self.array = array.rechunk({1: -1}) if array.ndim == 2 else array  # noqa: PLR2004
        self._graph: Mapping[Any, Any] | None = None
        self._keys: list[Any] = []

    def open(self) -> Reader:
        if self._graph is None:
            import dask  # noqa: PLC0415  (imported only by who has Dask arrays)

            (optimized,) = dask.optimize(self.array)
            self._graph = dict(optimized.__dask_graph__())
            blocks = [
                key
                for key, height in zip(
                    _row_keys(optimized), optimized.chunks[0], strict=True
                )
                if height > 0
            ]
            self._keys = blocks
        return _DaskReader(self, self._graph, self._keys)

    def reader_nbytes(self, block_rows: int) -> int:
        # what the graph makes on its way to a chunk row is not known; twice the result is usual
        return 3 * self.grid.chunk_rows * self.row_nbytes + joined_nbytes(self, block_rows)

    def place(self, row: int, column: int = 0) -> str:
        del column
        chunk = self.grid.chunk_at(row)
        start, stop = self.grid.rows(chunk)
        return f"chunk row {chunk} of the Dask array {self.name} (rows {start:,}–{stop - 1:,})"  # noqa: RUF001


class _DaskReader(ChunkReader):
    def __init__(self, source: DaskSource, graph: Mapping[Any, Any], keys: list[Any]) -> None:
        super().__init__(source)
        self._source = source
        self._graph = graph
        self._keys = keys

    def load(self, chunk: int) -> Array:
        import dask  # noqa: PLC0415  (imported only by who has Dask arrays)
        from dask.optimization import cull  # noqa: PLC0415

        key = self._keys[chunk]
        needed, _ = cull(self._graph, key)
        return np.asarray(dask.get(needed, key))


def _row_keys(array: Any) -> list[Any]:  # noqa: ANN401  (dask publishes no types)
    keys = array.__dask_keys__()
    return [key[0] for key in keys] if array.ndim == 2 else list(keys)  # noqa: PLR2004
