"""Dask arrays, lazy expressions too: a thread computes one chunk row at a time, and reduces it.

Nothing is cached between chunk rows. If every chunk row needs all chunks, as in
``x - x.mean(axis=0)``, the rows are computed correctly but slowly; a warning says what to do.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from streamreg.blocks import is_cupy
from streamreg.errors import DataCorruptionError, InputError, StreamregError, warn
from streamreg.formatting import KIB, MIB
from streamreg.sources.base import Kind, Reader, RowGrid, RowSource
from streamreg.sources.checks import as_rows, concatenated
from streamreg.sources.chunk_reader import RowBuffer, heaps_nbytes, joined_nbytes
from streamreg.sources.dask_inputs import (
    cf_attributes_of,
    checked,
    hides_its_store,
    holds_arrays_inline,
    packed_arrays,
    read_as_stored,
    unwrapped,
)
from streamreg.sources.hdf5 import Sliceable, SliceableSource
from streamreg.sources.zarr.metadata import input_path, is_zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from streamreg.blocks import Array

Result = TypeVar("Result")

# If a chunk row needs more than this multiple of its share of all tasks, it repeats tasks of most
# other chunk rows. If it only overlaps with its neighbours, it needs up to 3 times its share.
_MOST_SHARES = 8
# of a task, measured during the optimisation of a graph: 1.5 to 1.9 KiB
_TASK_NBYTES = 2 * KIB
# measured, for X and y each: what Dask and zarr-python load when a graph first runs
_LIBRARY_NBYTES = 4 * MIB


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a Dask array; other collections of Dask are refused."""
    import dask.array  # noqa: PLC0415  (imported only if there are Dask arrays)

    labels: dict[str, Any] = {}
    if _is_labelled(data):
        labels, data = dict(data.attrs), data.data
    if not isinstance(data, dask.array.Array):
        raise InputError(
            f"{name} is a {type(data).__module__}.{type(data).__name__}; pass a dask.array, "
            "such as frame.to_dask_array(lengths=True)"
        )
    return DaskSource(data, name, missing_chunks, labels)


def claims(data: object) -> bool:
    """Whether ``data`` is Dask's, or a labelled array of xarray that is; imports neither."""
    return type(data).__module__.partition(".")[0] == "dask" or _is_labelled(data)


def _is_labelled(data: Any) -> bool:  # noqa: ANN401  (whatever a user passes)
    is_xarray = type(data).__module__.partition(".")[0] == "xarray"
    return is_xarray and isinstance(getattr(data, "chunks", None), tuple)


KIND = Kind(claims, open_rows)


class DaskSource(RowSource):
    """The rows of a Dask array with any chunks; ``array`` has whole rows in every chunk."""

    is_computed = True
    why_unreachable_from_workers = ""

    def __init__(
        self,
        array: Any,  # noqa: ANN401  (dask publishes no types)
        name: str,
        missing_chunks: str = "error",
        labels: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.missing_chunks = missing_chunks
        self.labels = labels
        if any(np.isnan(length) for length in array.shape):
            raise InputError(
                f"{name} is a Dask array of unknown shape {array.shape}; "
                f"call {name}.compute_chunk_sizes() first"
            )
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.grid = RowGrid.irregular(array.chunks[0] if self.shape else ())
        self.array = array.rechunk({1: -1}) if array.ndim == 2 else array  # noqa: PLR2004
        self.is_cupy = is_cupy(self.array)
        # Dask derives the name from the tasks and their data
        self.storage = f"{missing_chunks} {self.array.name}"
        stored = read_as_stored(_tasks(array))
        if stored is not None and not self.is_cupy:
            self.attributes = cf_attributes_of(stored)

    def open(self) -> Reader:
        _ = self.optimized  # warns, or refuses the array, before the first row is computed
        return _DaskReader(self)

    @cached_property
    def optimized(self) -> tuple[dict[Any, Any], list[Any]]:
        """The optimised tasks, and the key of each chunk row, which is computed by itself."""
        import dask  # noqa: PLC0415  (imported only if there are Dask arrays)
        from dask.optimization import cull  # noqa: PLC0415

        array = self.array
        if any(type(task).__module__.startswith("distributed.") for task in _tasks(array)):
            # a client persisted them
            raise InputError(
                f"chunks of {self.name} are on a Dask cluster; pass its client as client, or "
                "compute them in this process"
            )
        filled = (chunk for chunk, height in enumerate(array.chunks[0]) if height > 0)
        keys = [(array.name, chunk, 0)[: 1 + array.ndim] for chunk in filled]
        # the tasks of a chunk row in the middle
        middle, of_all = keys[len(keys) // 2], len(array.dask)
        needed = len(array.dask.cull([middle]))
        if needed * len(keys) > _MOST_SHARES * of_all:
            # that was an upper bound: whole layers count, such as all arrays of a concatenation
            needed = len(cull(dict(array.dask), [middle])[0])  # type: ignore[no-untyped-call]
        if needed * len(keys) > _MOST_SHARES * of_all:
            warn(
                f"a chunk row of the Dask array {self.name} needs {needed:,} of {of_all:,} tasks, "
                f"and each of {len(keys):,} chunk rows computes them again. Compute what they "
                "share first, such as mean = x.mean(axis=0).compute() for x - mean, or pass "
                "x.persist() if x fits in memory"
            )
        array = self._checked()
        (optimized,) = dask.optimize(array)  # type: ignore[attr-defined,no-untyped-call]
        return dict(optimized.__dask_graph__()), keys

    def compute(self, chunk: int) -> Any:  # noqa: ANN401  (whatever the graph computes)
        """Return a chunk row, as Dask computes it on the calling thread."""
        import dask  # noqa: PLC0415  (imported only if there are Dask arrays)
        from dask.optimization import cull  # noqa: PLC0415

        graph, keys = self.optimized
        with _named(self.place(self.grid.rows(chunk)[0])):
            needed, _ = cull(graph, [keys[chunk]])  # type: ignore[no-untyped-call]
            return dask.get(needed, keys[chunk])  # type: ignore[attr-defined]

    def of_chunks(self, function: Callable[[Any], Result]) -> list[Result]:
        """Return ``function`` of each chunk row, computed by Dask's current scheduler."""
        import dask  # noqa: PLC0415  (imported only if there are Dask arrays)

        of_chunk = dask.delayed(function)  # type: ignore[attr-defined]
        filled = [self.grid.rows(chunk) for chunk in range(len(self.grid))]
        calls = [of_chunk(chunk) for (chunk,) in self.delayed_chunks(filled)]
        with _named(f"the Dask array {self.name}"):
            return list(dask.compute(*calls))  # type: ignore[attr-defined,no-untyped-call]

    def _checked(self) -> Any:  # noqa: ANN401
        """Return the array with its inputs on disk checked for absent chunks, where it shows them.

        Keys stay as they are, and so does the array that the user passed.
        """
        if self.missing_chunks == "fill":
            return self.array
        import dask.array  # noqa: PLC0415  (imported only if there are Dask arrays)
        from dask.highlevelgraph import HighLevelGraph  # noqa: PLC0415

        graph = self.array.dask
        layers, hidden = dict(graph.layers), []
        for name, layer in graph.layers.items():
            if len(layer) != 1:
                continue
            ((key, task),) = layer.items()
            data = unwrapped(task)
            hidden += [name] if hides_its_store(data) else []
            new = checked(data)
            if new is not data:
                layers[name] = {key: new}
        if hidden or holds_arrays_inline(layers.values()):
            warn(
                f"{self.name} is computed from files that its Dask graph hides: what was never "
                "written, or is lost, is read as the fill value without an error. Pass the path of "
                "the array, or open it with da.from_zarr or xarray.open_zarr, to have it checked; "
                'or pass missing_chunks="fill"'
            )
        made = HighLevelGraph(layers, graph.dependencies)
        array = self.array
        return dask.array.Array(  # type: ignore[no-untyped-call]
            made, array.name, array.chunks, dtype=array.dtype, meta=array
        )

    def mapped(self, function: Callable[[Array], Array], dtype: np.dtype[Any]) -> DaskSource | None:
        rows = self.array.map_blocks(function, dtype=dtype)
        return DaskSource(rows, self.name, self.missing_chunks)

    def undecoded(self) -> list[str]:
        tasks = _tasks(self.array)
        names = packed_arrays(tasks) if read_as_stored(tasks) is None else []
        return super().undecoded() + [
            f"{self.name} is computed from the packed array {name}, and Dask reads its stored "
            "numbers as they are: scale, offset and missing values are right only if the graph "
            "decodes them. Open it with xarray, which does, or pass decode_cf=False if it is right"
            for name in names
        ]

    def reader_nbytes(self, block_rows: int) -> int:
        # The memory of tasks is not known in advance. Measured, with the previous chunk row, which
        # is still in use: random numbers take 2 times the bytes of a chunk row; rows from Zarr, as
        # they are or standardised, 4 to 5 times; one column of 128 takes as much as all 128.
        chunk_row = self.grid.chunk_rows * self.row_nbytes
        # memory that the heaps do not retain is free for the next chunk row
        stored = (4 if heaps_nbytes(self) else 2) * self._stored_nbytes()
        if self.is_cupy:
            return chunk_row + stored
        return 3 * chunk_row + stored + joined_nbytes(self, block_rows)

    def device_nbytes(self, block_rows: int) -> int:
        if not self.is_cupy:
            return 0
        return 3 * self.grid.chunk_rows * self.row_nbytes + joined_nbytes(self, block_rows)

    @property
    def shared_nbytes(self) -> int:
        return _TASK_NBYTES * len(self.array.dask) + _LIBRARY_NBYTES + heaps_nbytes(self)

    def local_paths(self) -> list[Path]:
        # all tasks are searched, because an optimised array has only one layer
        paths = [input_path(task) for task in _tasks(self.array) if is_zarr(task)]
        return [path for path in paths if path is not None]

    def place(self, row: int, column: int = 0) -> str:  # noqa: ARG002
        return chunk_row(self, row)

    def delayed_chunks(self, bounds: list[tuple[int, int]]) -> list[list[Any]]:
        import dask  # noqa: PLC0415  (imported only if there are Dask arrays)

        array, ends = self._checked(), {stop for _, stop in bounds}
        if not ends <= {self.grid.rows(chunk)[1] for chunk in range(len(self.grid))}:
            array = array.rechunk({0: tuple(stop - start for start, stop in bounds)})
        (array,) = dask.optimize(array)  # type: ignore[attr-defined,no-untyped-call]
        grid = RowGrid.irregular(array.chunks[0])
        filled = array.to_delayed().ravel()[np.greater(array.chunks[0], 0)]
        return [[filled[chunk] for chunk, _, _ in grid.spans(*rows)] for rows in bounds]

    def _stored_nbytes(self) -> int:
        """Bytes of a chunk row, or of a whole chunk, of the widest stored array that is read."""
        widest = 0
        # dask.array.from_array and from_zarr make a layer of each array
        layers = self.array.dask.layers.values()
        for data in (unwrapped(*layer.values()) for layer in layers if len(layer) == 1):
            if isinstance(data, Sliceable) and data.shape and not isinstance(data, np.ndarray):
                stored = SliceableSource(data, "")
                n_rows = max(self.grid.chunk_rows, (stored.chunks or (0,))[0])
                widest = max(widest, min(stored.shape[0], n_rows) * stored.row_nbytes)
        return widest


def chunk_row(source: RowSource, row: int) -> str:
    """Say which chunk row of a Dask array holds a row."""
    chunk = source.grid.chunk_at(row)
    rows = source.span_text(*source.grid.rows(chunk))
    return f"chunk row {chunk} of the Dask array {source.name} ({rows})"


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Name what cannot be computed, because tasks raise any error."""
    try:
        yield
    except (StreamregError, MemoryError):
        raise
    # tasks that read files mostly raise OSError
    except Exception as error:
        kind = DataCorruptionError if isinstance(error, OSError) else InputError
        raise kind(f"{what} cannot be computed: {type(error).__name__}: {error}") from error


def _tasks(array: Any) -> list[Any]:  # noqa: ANN401
    return [unwrapped(task) for task in array.dask.values()]


class _DaskReader(Reader):
    """Computes whole chunks, keeps the last one, and joins them if a block spans several."""

    def __init__(self, source: DaskSource) -> None:
        self._source = source
        self._joined = RowBuffer(source.shape[1:], source.dtype)
        # the chunk that was computed last, and its rows
        self._computed: tuple[int, Array] | None = None

    def read(self, start: int, stop: int) -> Array:
        spans = self._source.grid.spans(start, stop)
        if self._source.is_cupy:
            # without a buffer, because the device may still use the rows that were read before
            return concatenated([self._part(*span) for span in spans])
        if len(spans) == 1:
            return self._part(*spans[0])
        joined = self._joined.rows(stop - start)
        for chunk, low, high in spans:
            joined[low - start : high - start] = self._part(chunk, low, high)
        return joined

    def _part(self, chunk: int, start: int, stop: int) -> Array:
        first, after = self._source.grid.rows(chunk)
        if self._computed is None or self._computed[0] != chunk:
            # freed first
            self._computed = None
            value = self._source.compute(chunk)
            place = self._source.place(first)
            self._computed = chunk, as_rows(value, after - first, self._source, place)
        return self._computed[1][start - first : stop - first]
