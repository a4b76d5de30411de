"""Bytes and passes, worked out before the first byte is read: what fits and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.engines.partition import LARGE_STATE_NBYTES, Segments
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.gpu.memory_model import device_needs, host_terms
from streamreg.kernels import numba as numba_kernels
from streamreg.machine import available_nbytes, usable_cpus
from streamreg.planning.plan import Plan
from streamreg.planning.rechunking import rechunking_advice
from streamreg.planning.row_costs import Rows
from streamreg.planning.terms import NUMBA, Candidate, Term
from streamreg.solvers.base import Problem
from streamreg.solvers.registry import NAMES
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.solvers.base import Footprint, PassFootprint, Solver
    from streamreg.solvers.registry import SolverSettings
    from streamreg.sources.dataset import Dataset

# Of a fit of ten rows: what Python, NumPy and zarr load when they are first used. Measured on
# Linux, glibc 2.36, Python 3.11: 1.5 to 3 MiB.
_PROCESS_NBYTES = 4 * MIB
# Of each thread: its stack, and what its heap keeps of small arrays that it freed. Measured: 0.3
# to 1 MiB.
_THREAD_NBYTES = MIB
# Of each thread that decodes chunks: what zstd, blosc, HDF5 and zarr-python use for themselves.
# Measured: 0.5 to 3 MiB, blosc most.
_DECODER_NBYTES = 3 * MIB
# Of each thread that decodes chunks: room in its heap that was freed and does not fit again.
_HOLES_NBYTES = 4 * MIB
# Of each thread in OpenBLAS: the panels that it packs. Measured: 0.3 MiB at D = 100, 1.9 MiB at
# D = 1,000 and above.
_PACKED_ROWS, _PACKED_MOST_NBYTES = 512, 2 * MIB
# Of a checkpoint: states of the passes before a solver's loop, of the last one, and of that which
# is under way, the copy before and the next; and what writing needs, measured: 2 MiB
_COPIED_STATES, _SAVING_NBYTES = 6, 4 * MIB
_GOOD_FOR = {"closed_form": "one pass, exact", "gd": "O(D) state", "cg": "O(D) state, few passes"}


def make_plan(
    dataset: Dataset,
    settings: SolverSettings,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    device_limit: int | None = None,
    saves: bool = False,
    keeps: bool = True,
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
    device_limit
        Bytes of a GPU that folds the rows; ``None`` where processors do.
    saves
        Whether checkpoints are saved.
    keeps
        Whether blocks stay in memory from one pass to the next.
    """
    limit = limit_nbytes(memory_limit)
    threads = usable_cpus() if n_threads is None else n_threads
    problem = Problem(dataset.n_features, max(1, dataset.n_targets))
    rows = Rows.of(dataset, on_device=device_limit is not None)

    def candidate(name: str) -> Candidate:
        solver = settings.build(name)
        return _candidate(
            rows, problem, solver, limit, threads, device_limit, saves=saves, keeps=keeps
        )

    candidates = {name: candidate(name) for name in NAMES}
    chosen = settings.solver
    if chosen == "auto":
        chosen = "closed_form" if candidates["closed_form"].fits else "cg"
    fits_here = False
    is_here = keeps and not dataset.on_device
    if device_limit is not None and not candidates[chosen].fits and is_here:
        here = Rows.of(dataset)
        solver = settings.build(chosen)
        fits_here = _candidate(
            here, problem, solver, limit, threads, None, saves=saves, keeps=keeps
        ).fits
    return Plan(
        chosen, limit, candidates, dataset.n_rows, problem.n_features, problem.n_targets,
        advice=rechunking_advice(dataset, limit, list(candidates.values())), fits_here=fits_here,
    )  # fmt: skip


def limit_nbytes(memory_limit: int | str | None) -> int:
    """Return the limit in bytes: what was asked for, or half of what the process may use."""
    return available_nbytes() // 2 if memory_limit is None else parse_nbytes(memory_limit)


def loops_of(solver: str, pass_nbytes: int) -> str:
    """Say whose loops fold the blocks of a pass: a function of the data, never of memory."""
    return "numba" if solver != "closed_form" and numba_kernels.is_worth(pass_nbytes) else "numpy"


def process_term(threads: int) -> Term:
    """Return what the process itself adds, beside its data."""
    return Term("process", _PROCESS_NBYTES + threads * _THREAD_NBYTES, "modules, stacks, heaps")


def peak(terms: list[Term]) -> int:
    """Return the bytes of all terms together."""
    return sum(term.nbytes for term in terms)


def _candidate(
    rows: Rows, problem: Problem, solver: Solver, limit: int, threads: int,
    device_limit: int | None, *, saves: bool, keeps: bool,
) -> Candidate:  # fmt: skip
    """Return what a solver needs with as many threads as fit, or with one if none do."""
    footprint = solver.footprint(problem)
    d, k = problem.n_features, problem.n_targets
    scans = solver.passes() if keeps else 1  # of the same blocks
    others = [Term("vectors", footprint.solver_nbytes, f"of the solver, {d:,} × {k:,} each")]  # noqa: RUF001
    if saves:
        others.append(_saving(footprint))
    for workers in range(threads, 0, -1):
        needs = None
        if device_limit is None:
            passes = [
                _terms(rows, problem, solver.name, each, workers) for each in footprint.passes
            ]
            terms = [*max(passes, key=peak), *_libraries(solver.name, rows), *others]
        else:
            terms = [*_terms_beside(rows, footprint, workers), *others]
            needs = device_needs(rows, problem, footprint, workers, device_limit, scans)
        fits = peak(terms) <= limit and (needs is None or needs.fits)
        if fits:
            break
    reason = _GOOD_FOR[solver.name] if fits else _largest(terms, needs)
    kept = None
    if needs is None and scans > 1:
        kept = _cache_term(rows, limit - peak(terms))
    if kept is not None:
        terms.append(kept)
    return Candidate(
        solver=solver.name,
        state_nbytes=max(each.state_nbytes for each in footprint.passes),
        peak_nbytes=peak(terms),
        bytes_per_pass=rows.pass_nbytes,
        passes=solver.passes(),
        fits=fits,
        reason=reason,
        terms=tuple(terms),
        n_threads=workers,
        cache_nbytes=0 if kept is None else kept.nbytes,
        device=needs,
    )


def _largest(terms: list[Term], needs: DeviceNeeds | None) -> str:
    """Say what of a fit that has no room takes most, on the host or on the GPU."""
    is_there = needs is not None and not needs.fits
    short = needs.terms if needs is not None and is_there else terms
    largest = max(short, key=lambda term: term.nbytes)
    return f"{largest.what}{' on the GPU' if is_there else ''} {format_nbytes(largest.nbytes)}"


def _terms_beside(rows: Rows, footprint: Footprint, workers: int) -> list[Term]:
    """Return what the host needs while a GPU folds."""
    terms = [*host_terms(rows, footprint, workers), process_term(workers)]
    if rows.decodes:
        heaps = workers * (_HOLES_NBYTES + _DECODER_NBYTES)
        terms.append(Term("heaps", heaps, "decoders, and room that they left"))
    return terms


def _terms(
    rows: Rows, problem: Problem, name: str, each: PassFootprint, workers: int
) -> list[Term]:
    """Return what one pass needs."""
    d, k = problem.n_features, problem.n_targets
    n_segments = len(Segments.of(rows.n_blocks, rows.pass_nbytes, each.state_nbytes))
    # a single segment is read by one thread; threads share panels of XᵀX
    readers = min(workers, n_segments)
    threads = readers if n_segments > 1 else min(workers, each.n_parts)
    # a tile is at most a block and one row, of float64, with as many columns of sums beside it
    block_nbytes = 8 * ((rows.block_rows + 1) * (d + 6 * k + 2) + d * (2 * k + 6))
    tiles = Term("tiles", readers * min(each.scratch_nbytes, block_nbytes), "float64 rows in work")
    n_states = _states_in_flight(readers, n_segments)
    states = count(1 if each.cache_nbytes else n_states, "state")
    state_nbytes = n_states * each.state_nbytes + each.cache_nbytes
    terms = [*rows.terms(readers), tiles, process_term(threads)]
    if rows.decodes:
        # between one block's tiles and the next's a chunk is decoded: what it needs takes the room
        # that the former left, so that the latter need new. Measured: two tiles of 2 MiB a thread,
        # one where tiles are large, sometimes a little more
        holes = 0 if rows.shared_nbytes else readers * _HOLES_NBYTES  # counted there
        left = min(3 * tiles.nbytes, tiles.nbytes + holes) + readers * _DECODER_NBYTES
        terms.append(Term("heaps", left, "decoders, and tiles that were"))
    if name != "closed_form":
        why = f"{format_nbytes(each.state_nbytes)} each, {states}"
        return [Term("sums", state_nbytes, why), *terms]
    packed = min(8 * d * _PACKED_ROWS, _PACKED_MOST_NBYTES)
    return [
        Term("XᵀX", state_nbytes, f"{d:,}² × 8 bytes, {states}"),  # noqa: RUF001
        *terms,
        Term("BLAS", threads * packed, "panels packed for multiplication"),
    ]


def _saving(footprint: Footprint) -> Term:
    """Return what a checkpoint keeps: copies of the small states of some passes, and a piece."""
    small = [
        each.state_nbytes for each in footprint.passes if each.state_nbytes <= LARGE_STATE_NBYTES
    ]
    copies = _COPIED_STATES * max(small, default=0)
    return Term("checkpoint", copies + _SAVING_NBYTES, "states of passes to be gone on with")


def _cache_term(rows: Rows, left_nbytes: int) -> Term | None:
    """Return the blocks that stay in memory, in what the limit leaves over."""
    slots = min(rows.n_blocks, left_nbytes // rows.slot_nbytes) if rows.slot_nbytes else 0
    if slots <= 0:
        return None
    return Term("kept", slots * rows.slot_nbytes, f"{slots:,} of {rows.n_blocks:,} blocks, decoded")


def _libraries(solver: str, rows: Rows) -> list[Term]:
    """Return what is imported for the fit, and was not yet."""
    if loops_of(solver, rows.pass_nbytes) == "numpy" or not numba_kernels.library_nbytes():
        return []
    return [Term(NUMBA, numba_kernels.library_nbytes(), "LLVM and compiled loops, loaded once")]


def _states_in_flight(workers: int, n_segments: int) -> int:
    """Return how many states are alive at once: merged, to be merged, and being folded."""
    if n_segments == 1:
        return 1
    # one more than there are threads is under way, so that none waits for the merging
    return 2 if workers == 1 else min(workers + 1, n_segments) + 1
