"""Dask arrays, lazy expressions too: a thread computes one chunk row at a time, and folds it.

What most row blocks need, such as the means in ``x - x.mean(axis=0)``, is computed once, at the
first read, and kept: recomputed for each block, it would read all chunks for every one.
"""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import is_on_device
from streamreg.errors import DataCorruptionError, InputError, StreamregError
from streamreg.formatting import KIB, MIB, rows_text
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.checks import as_rows, joined_on_device
from streamreg.sources.chunk_reader import ChunkReader, heaps_nbytes, joined_nbytes
from streamreg.sources.hdf5 import Sliceable, SliceableSource
from streamreg.sources.zarr.metadata import input_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streamreg.blocks import Array

    Key = Any  # texts, or tuples of a text and numbers
    Graph = Mapping[Key, Any]

# a task that more row blocks need than this is shared by all, not by neighbours that overlap
_MOST_NEIGHBOURS = 8
_MIN_KEPT_NBYTES = 2 * MIB
# measured, while the graph is being optimised: 1.5 to 1.9 KiB
_TASK_NBYTES = 2 * KIB
# measured, for X and y each: what Dask and zarr-python load when a graph first runs
_LIBRARY_NBYTES = 4 * MIB


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
    """The rows of a Dask array, whatever its chunks.

    Attributes
    ----------
    array
        With whole rows in every chunk.
    """

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
        self.array = array.rechunk({1: -1}) if array.ndim == 2 else array  # noqa: PLR2004
        self._tasks: _Tasks | None = None
        self._lock = Lock()

    def open(self) -> Reader:
        with self._lock:
            if self._tasks is None:
                self._tasks = _Tasks(self.array, self.name, self._kept_nbytes)
        return _DaskReader(self, self._tasks)

    def reader_nbytes(self, block_rows: int) -> int:
        # what tasks make on their way to a chunk row is not known. Measured, with the chunk row
        # before that is still in use: random numbers 2 times its bytes, read from Zarr as it is
        # or standardised 4 to 5 times, one column of 128 as much as all of them
        chunk_row = self.grid.chunk_rows * self.row_nbytes
        stored = _stored_nbytes(self.array, self.grid.chunk_rows)
        # what heaps do not keep leaves room for the next
        copies = 4 if heaps_nbytes(self) else 2
        if self.on_device:
            return chunk_row + copies * stored
        return 3 * chunk_row + copies * stored + joined_nbytes(self, block_rows)

    def device_nbytes(self, block_rows: int) -> int:
        if not self.on_device:
            return 0
        return 3 * self.grid.chunk_rows * self.row_nbytes + joined_nbytes(self, block_rows)

    @property
    def shared_nbytes(self) -> int:
        n_tasks = sum(len(layer) for layer in self.array.dask.layers.values())
        return _TASK_NBYTES * n_tasks + _LIBRARY_NBYTES + heaps_nbytes(self)

    def inputs(self) -> list[Path]:
        # the Zarr arrays among its tasks, as dask.array.from_zarr leaves them there
        arrays = [
            task
            for layer in self.array.dask.layers.values()
            for task in layer.values()
            if type(task).__module__.partition(".")[0] == "zarr"
        ]
        return [folder for folder in map(input_path, arrays) if folder is not None]

    @property
    def on_device(self) -> bool:
        return is_on_device(self.array)

    @property
    def is_computed(self) -> bool:
        return True

    @property
    def storage(self) -> str:
        # of the tasks that make it, from what and how
        return str(self.array.name)

    def place(self, row: int, column: int = 0) -> str:
        del column
        return chunk_row(self, row)

    @property
    def _kept_nbytes(self) -> int:
        return max(_MIN_KEPT_NBYTES, self.grid.chunk_rows * self.row_nbytes)


def chunk_row(source: RowSource, row: int) -> str:
    """Say which chunk row of a Dask array holds a row."""
    chunk = source.grid.chunk_at(row)
    rows = rows_text(*source.grid.rows(chunk))
    return f"chunk row {chunk} of the Dask array {source.name} ({rows})"


class _Tasks:
    """The graph of an array, and the small results that most of its row blocks need."""

    def __init__(self, array: Any, name: str, cache_nbytes: int) -> None:  # noqa: ANN401
        import dask  # noqa: PLC0415  (imported only by who has Dask arrays)
        from dask._task_spec import convert_legacy_graph  # noqa: PLC0415

        (optimized,) = dask.optimize(array)  # type: ignore[attr-defined,no-untyped-call]
        self._name = name
        self._graph: Graph = convert_legacy_graph(dict(optimized.__dask_graph__()))
        keys = optimized.__dask_keys__()
        heights = optimized.chunks[0]
        rows = [key[0] for key in keys] if array.ndim == 2 else keys  # noqa: PLR2004
        self.keys = [key for key, height in zip(rows, heights, strict=True) if height > 0]
        self._shared = _shared(self._graph, self.keys)
        self._kept: dict[Key, Any] = {}
        self._room = cache_nbytes
        self._lock = Lock()

    def compute(self, key: Key) -> Any:  # noqa: ANN401  (an array, of NumPy or another library)
        """Return the value of a key; what it shares with other keys is computed once."""
        if any(at in self._shared for at in self._needed(key)):
            with self._lock:
                shared = [at for at in self._needed(key) if at in self._shared]
                # one after the other: computed together, the chunks of one would wait in memory
                # for another's value
                for at in sorted(shared, key=self._shared.__getitem__):
                    self._keep(at, self._get(at))
        return self._get(key)

    def _keep(self, key: Key, value: Any) -> None:  # noqa: ANN401
        from dask._task_spec import DataNode  # noqa: PLC0415  (a value is data, never a task)
        from dask.sizeof import sizeof  # noqa: PLC0415

        nbytes = sizeof(value)
        if nbytes <= self._room:
            self._room -= nbytes
            self._kept[key] = DataNode(key, value)
        del self._shared[key]

    def _get(self, key: Key) -> Any:  # noqa: ANN401
        import dask  # noqa: PLC0415

        return dask.get(self._needed(key), key)  # type: ignore[attr-defined]

    def _needed(self, key: Key) -> dict[Key, Any]:
        """Return the part of the graph that a key is computed from, as far as it is not known."""
        needed: dict[Key, Any] = {}
        pending = [key]
        while pending:
            at = pending.pop()
            if at not in needed:
                needed[at] = self._kept[at] if at in self._kept else self._task(at)
                pending.extend(needed[at].dependencies)
        return needed

    def _task(self, key: Key) -> Any:  # noqa: ANN401
        if key not in self._graph:
            # persisted by a client
            raise InputError(
                f"chunks of {self._name} are on a Dask cluster; pass its client as client, or "
                "compute them here"
            )
        return self._graph[key]


class _DaskReader(ChunkReader):
    def __init__(self, source: DaskSource, tasks: _Tasks) -> None:
        super().__init__(source)
        self._source = source
        self._tasks = tasks

    def load(self, chunk: int) -> Array:
        source = self._source
        start, stop = source.grid.rows(chunk)
        try:
            value = self._tasks.compute(self._tasks.keys[chunk])
        except (StreamregError, MemoryError):
            raise
        # whatever the tasks raise: those that read files mostly OSError
        except Exception as error:
            kind = DataCorruptionError if isinstance(error, OSError) else InputError
            raise kind(
                f"{source.place(start)} cannot be computed: {type(error).__name__}: {error}"
            ) from error
        return as_rows(
            value, (stop - start, *source.shape[1:]), source.dtype, source.place(start),
            on_device=source.on_device,
        )  # fmt: skip

    def read(self, start: int, stop: int) -> Array:
        if not self._source.on_device:
            return super().read(start, stop)
        # never into a buffer: the GPU may still be at work on what was read before
        return joined_on_device([self._part(*span) for span in self._spans(start, stop)])


def _stored_nbytes(array: Any, chunk_rows: int) -> int:  # noqa: ANN401
    """Bytes of as many rows of the widest array on disk that a graph reads, in whole chunks."""
    from dask._task_spec import DataNode  # noqa: PLC0415  (imported only by who has Dask arrays)

    widest = 0
    for layer in array.dask.layers.values():
        task = next(iter(layer.values())) if len(layer) == 1 else None
        data = task.value if isinstance(task, DataNode) else task
        if isinstance(data, Sliceable) and data.shape and not isinstance(data, np.ndarray):
            source = SliceableSource(data, "")
            rows = min(source.shape[0], max(chunk_rows, (source.chunks or (0,))[0]))
            widest = max(widest, rows * source.row_nbytes)
    return widest


def _shared(graph: Graph, row_blocks: list[Key]) -> dict[Key, int]:
    """Find tasks whose value is worth keeping, since most row blocks need them.

    Walking from the row blocks to what they need, each task learns which row blocks need it. Not
    by way of a shared task, which is computed only once: else every chunk that a mean was taken of
    would be shared too. What only shared tasks need is shared if many tasks need it.

    Returns
    -------
    Their places in an order in which each comes after all that it needs.
    """
    from dask._task_spec import DataNode  # noqa: PLC0415  (imported only by who has Dask arrays)
    from dask.core import toposort  # noqa: PLC0415

    most = min(_MOST_NEIGHBOURS, max(1, len(row_blocks) - 1))
    users: dict[Key, set[int]] = {key: {number} for number, key in enumerate(row_blocks)}
    needs = {key: task.dependencies for key, task in graph.items()}
    counts = Counter(needed for some in needs.values() for needed in some)
    shared = {}
    ordered: list[Key] = toposort(graph, dependencies=needs)  # type: ignore[no-untyped-call]
    for rank, key in reversed(list(enumerate(ordered))):
        blocks = users.pop(key, set())
        if isinstance(graph[key], DataNode):
            continue
        if len(blocks) > most or (not blocks and counts[key] > _MOST_NEIGHBOURS):
            shared[key] = rank
            continue
        for needed in needs[key]:
            known = users.setdefault(needed, set())
            if len(known) <= most:
                known |= blocks
    return shared
