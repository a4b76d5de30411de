"""Bytes and passes, worked out before the first byte is read: what fits and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.layout import Blocks, Segments
from streamreg.memory import MIB, available_nbytes, format_nbytes, parse_nbytes, usable_cpus
from streamreg.plans import Candidate, Plan, Term
from streamreg.solvers.base import Problem
from streamreg.solvers.registry import NAMES
from streamreg.sources.zarr import ZarrSource

if TYPE_CHECKING:
    from streamreg.solvers.base import Footprint, PassFootprint
    from streamreg.solvers.registry import SolverSettings
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import DataSet

# Of a fit of ten rows: what Python, NumPy and zarr load when they are first used. Measured on
# Linux, glibc 2.36, Python 3.11: 1.5-3 MiB.
PROCESS_NBYTES = 4 * MIB
# Of each thread: its stack, and what its heap keeps of the small arrays that it frees. Measured:
# 0.3-1 MiB.
THREAD_NBYTES = MIB
# Of each thread in OpenBLAS: the panels that it packs. Measured: 0.3 MiB at D = 100, 1.9 at 1,000
# and above.
_PACKED_ROWS, _PACKED_MOST_NBYTES = 512, 2 * MIB
# columns of XᵀX that one thread updates at a time
_PANEL_COLUMNS = 512


def make_plan(
    dataset: DataSet,
    settings: SolverSettings,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
) -> Plan:
    """Plan a fit from the metadata of its data.

    Parameters
    ----------
    dataset
        What is to be fitted; nothing of it is read.
    settings
        The solver asked for, and its parameters.
    memory_limit
        Bytes, or a text such as ``"512 MiB"``; ``None`` for half of what the process may use.
    n_threads
        Threads at most; ``None`` for all processors that the process may use.
    """
    limit = limit_nbytes(memory_limit)
    threads = usable_cpus() if n_threads is None else n_threads
    rows = _Rows.of(dataset)
    candidates = {name: _candidate(rows, settings, name, limit, threads) for name in NAMES}
    chosen = settings.solver
    if chosen == "auto":
        chosen = "closed_form" if candidates["closed_form"].fits else "cg"
    return Plan(
        chosen, limit, candidates, dataset.n_rows, dataset.n_features, rows.problem.n_targets,
        advice=_advice(dataset, limit, list(candidates.values())),
    )  # fmt: skip


def limit_nbytes(memory_limit: int | str | None) -> int:
    """Return the limit in bytes: what was asked for, or half of what the process may use."""
    return available_nbytes() // 2 if memory_limit is None else parse_nbytes(memory_limit)


class _Rows(NamedTuple):
    """What the plan needs to know of a data set."""

    problem: Problem
    n_blocks: int
    block_rows: int
    pass_nbytes: int
    reader_nbytes: int
    shared_nbytes: int

    @classmethod
    def of(cls, dataset: DataSet) -> _Rows:
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
        return cls(
            Problem(dataset.n_features, max(1, dataset.n_targets)),
            len(blocks),
            blocks.max_rows,
            dataset.n_rows * dataset.row_nbytes,
            dataset.reader_nbytes(blocks.max_rows),
            dataset.shared_nbytes,
        )


def _candidate(
    rows: _Rows, settings: SolverSettings, name: str, limit: int, threads: int
) -> Candidate:
    solver = settings.build(name)
    footprint = solver.footprint(rows.problem)
    for workers in range(threads, 0, -1):
        terms = _largest_pass(rows, name, footprint, workers)
        if peak(terms) <= limit:
            break
    fits = peak(terms) <= limit
    largest = max(terms, key=lambda term: term.nbytes)
    return Candidate(
        solver=name,
        state_nbytes=max(each.state_nbytes for each in footprint.passes),
        peak_nbytes=peak(terms),
        bytes_per_pass=rows.pass_nbytes,
        passes=solver.passes(),
        fits=fits,
        reason=_GOOD_FOR[name] if fits else f"{largest.what} {format_nbytes(largest.nbytes)}",
        terms=tuple(terms),
        n_threads=workers,
    )


_GOOD_FOR = {"closed_form": "one pass, exact", "gd": "O(D) state", "cg": "O(D) state, few passes"}


def peak(terms: list[Term]) -> int:
    """Return the bytes of all terms together."""
    return sum(term.nbytes for term in terms)


def _largest_pass(rows: _Rows, name: str, footprint: Footprint, workers: int) -> list[Term]:
    """Return the terms of that pass, of all that the solver may run, that needs most."""
    passes = [_terms(rows, name, each, workers) for each in footprint.passes]
    vectors = Term(
        "vectors", footprint.solver_nbytes,
        f"of the solver, {rows.problem.n_features:,} × {rows.problem.n_targets:,} each",  # noqa: RUF001
    )  # fmt: skip
    return [*max(passes, key=peak), vectors]


def _terms(rows: _Rows, name: str, each: PassFootprint, workers: int) -> list[Term]:
    d, k = rows.problem.n_features, rows.problem.n_targets
    n_segments = len(Segments.of(rows.n_blocks, rows.pass_nbytes, each.state_nbytes))
    # a single segment is read by one thread; threads share panels of XᵀX
    readers = min(workers, n_segments)
    threads = readers if n_segments > 1 else min(workers, -(-d // _PANEL_COLUMNS))
    n_states = _states_in_flight(readers, n_segments)
    states = f"{n_states} state" + "s" * (n_states > 1)
    # a tile is at most a block and one row, of float64, with as many columns of sums beside it
    block_nbytes = 8 * ((rows.block_rows + 1) * (d + 6 * k + 2) + d * (2 * k + 6))
    tile_nbytes = min(each.scratch_nbytes, block_nbytes)
    terms = [
        Term(
            "blocks", readers * rows.reader_nbytes,
            f"{readers} read at once, {format_nbytes(rows.reader_nbytes)} each",
        ),
        Term("tiles", readers * tile_nbytes, "float64 rows being folded"),
        Term("process", PROCESS_NBYTES + threads * THREAD_NBYTES, "modules, stacks, heaps"),
    ]  # fmt: skip
    if rows.shared_nbytes:
        terms.append(Term("graph", rows.shared_nbytes, "tasks of Dask"))
    if name == "closed_form":
        packed = min(8 * d * _PACKED_ROWS, _PACKED_MOST_NBYTES)
        # kept while a later pass, with small states, runs
        count = "1 state" if each.kept_nbytes else states
        why = f"{d:,}² × 8 bytes, {count}"  # noqa: RUF001
        return [
            Term("XᵀX", n_states * each.state_nbytes + each.kept_nbytes, why),
            *terms,
            Term("BLAS", threads * packed, "panels packed for multiplication"),
        ]
    why = f"{format_nbytes(each.state_nbytes)} each, {states}"
    return [Term("sums", n_states * each.state_nbytes, why), *terms]


def _states_in_flight(workers: int, n_segments: int) -> int:
    """Return how many states are alive at once: merged, to be merged, and being folded."""
    if n_segments == 1:
        return 1
    # one more than there are threads is under way, so that none waits for the merging
    return 2 if workers == 1 else min(workers + 1, n_segments) + 1


def _advice(dataset: DataSet, limit: int, candidates: list[Candidate]) -> str:
    """Return how to write X anew, where its chunks are what makes every fit too large."""
    least = min(candidates, key=lambda candidate: candidate.peak_nbytes)
    blocks = sum(term.nbytes for term in least.terms if term.what == "blocks")
    room = limit - (least.peak_nbytes - blocks)
    # chunks as they are stored, decoded, moved beside each other, and joined to blocks
    rows = min(room, 8 * MIB) // (4 * dataset.X.row_nbytes)
    if least.fits or not 1 <= rows < dataset.X.grid.chunk_rows:
        return ""
    return _rechunking(dataset.X, rows)


def _rechunking(X: RowSource, rows: int) -> str:
    """Return how to cut X into chunks of so many rows, a chunk of the old at a time."""
    pieces = -(-X.grid.chunk_rows // rows)
    rows = -(-X.grid.chunk_rows // pieces)
    if not isinstance(X, ZarrSource):
        return f"write {X.name} anew in chunks of at most {rows:,} rows"
    n_rows, n_columns = X.shape
    height, width = X.array.chunks
    path = str(X.files.root) if X.files else X.name
    return f"""write {X.name} anew in chunks of {rows:,} rows:
    import zarr
    old = zarr.open_array({path!r}, mode="r")
    new = zarr.create_array(
        {f"{path}-rows"!r}, shape=old.shape, dtype=old.dtype, chunks=({rows}, {width})
    )
    for i in range(0, {n_rows}, {height}):
        for j in range(0, {n_columns}, {width}):
            here = slice(i, i + {height}), slice(j, j + {width})
            new[here] = old[here]"""
