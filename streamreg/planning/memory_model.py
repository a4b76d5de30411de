"""Bytes, passes and time of each solver, from metadata: what fits and what is refused."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from streamreg.blocks import ROWS
from streamreg.engines.partition import HOST
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.kernels.library import NUMPY
from streamreg.kernels.registry import best_kernels
from streamreg.planning.backend import Rates, Request
from streamreg.planning.plan import Plan
from streamreg.planning.rechunking import rechunking_advice
from streamreg.planning.row_costs import RowCosts
from streamreg.planning.terms import Candidate, Needs, Term, largest, peak
from streamreg.solvers.base import Problem
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.dual import Dual
from streamreg.solvers.registry import AUTO, SOLVERS
from streamreg.sources.checks import block_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from streamreg.planning.backend import Backend
    from streamreg.solvers.base import Footprint, PassFootprint, Solver
    from streamreg.sources.dataset import Dataset

# What Python, NumPy and zarr load when they are first used. Measured in a fit of ten rows, on
# Linux, glibc 2.36, Python 3.11: 1.5 to 3 MiB.
_PROCESS_NBYTES = 4 * MIB
# Stack of a thread, and what its heap keeps of small freed arrays. Measured: 0.3 to 1 MiB.
_THREAD_NBYTES = MIB
# What zstd, blosc, HDF5 and zarr-python use themselves, in each thread that decodes chunks.
# Measured: 0.5 to 3 MiB, blosc most.
_DECODER_NBYTES = 3 * MIB
# Fragmentation of the heap of each thread that decodes chunks.
_FRAGMENTATION_NBYTES = 4 * MIB
# The panels that OpenBLAS packs in each thread. Measured: 0.3 MiB at D = 100, 1.9 MiB at
# D = 1,000 and above.
_PACKED_ROWS, _PACKED_MOST_NBYTES = 512, 2 * MIB
# States that a checkpoint keeps: of the passes before a solver's loop, of the last pass, of the
# present one, its last copy and its next one. Writing needs memory too; measured: 2 MiB.
_COPIED_STATES, _SAVING_NBYTES = 6, 4 * MIB
# A chunk of weights that are written, and how many exist at once: encoded, and copies.
_CHUNK_NBYTES, _CHUNKS_WRITTEN = 8 * MIB, 5
# Over 768 MiB of files in the page cache, a block cache made fits of two passes 1.2 to 1.7 times
# as long.
_TWO_PASSES = 2
# Rates of one thread of a common server: an NVMe disk or a light codec, memory, and BLAS.
HOST_RATES = Rates(read_nbytes=1.5e9, memory_nbytes=8e9, flops=2e10)
# of loops over sparse rows, of one thread: 0.3 billion values a second, with 8 operations each
_SPARSE_FLOPS = 2.4e9
# cg is chosen instead of the closed form, which has more digits, only if it is estimated to be
# faster by this factor, because the data may need more passes than the typical number
_CLEARLY_FASTER = 3.0
# threads for which "auto" compares solvers: its choice must not depend on those of a machine
_COMPARED_THREADS = 4


def make_plan(
    dataset: Dataset,
    backend: Backend,
    solver: str,
    build_solver: Callable[[str], Solver],
    *,
    saves: bool,
    infers: bool = False,
    writes: bool = False,
    names: Collection[str] = SOLVERS,
) -> Plan:
    """Plan a fit, which perhaps saves checkpoints, gives standard errors and writes its weights.

    Only metadata are read.

    ``solver`` may be ``"auto"``: the best of ``names``. On a cluster the plan is of each worker.
    """
    problem = Problem(
        dataset.n_features,
        max(1, dataset.n_targets),
        n_rows=dataset.n_rows,
        dtype=block_dtype(dataset.X.dtype),
        is_sparse=dataset.X.is_sparse,
        column_step=dataset.column_step,
        row_pairs=dataset.X.row_pairs,
    )

    def candidate(name: str, backend: Backend, dataset: Dataset = dataset) -> Candidate:
        costs = RowCosts.of(dataset, backend.policy)
        request = Request(dataset, costs, problem, build_solver(name))
        return candidate_for(request, backend, saves=saves, writes=writes)

    built = {name: build_solver(name) for name in names}
    candidates = {
        name: candidate(name, backend)
        for name, each in built.items()
        if backend.runs(each)
        and (each.infers or not infers)
        and (each.reads_sparse or not dataset.X.is_sparse)
    }
    chosen = _choose(candidates) if solver == AUTO else solver
    advised = [ClosedForm.name, ConjugateGradient.name] if solver == AUTO else [solver]
    advised = [name for name in advised if name in candidates]
    processor = None if candidates[chosen].fits else backend.without_device(dataset)
    return Plan(
        chosen=chosen,
        memory_limit=backend.memory_limit,
        candidates=candidates,
        n_rows=dataset.n_rows,
        n_features=problem.n_features,
        n_targets=problem.n_targets,
        advice=rechunking_advice(
            dataset,
            backend.memory_limit,
            lambda rows: [candidate(name, backend, rows) for name in advised],
        ),
        fits_on_processor=processor is not None and candidate(chosen, processor).fits,
        worker_nbytes=backend.worker_nbytes,
    )


def _choose(candidates: dict[str, Candidate]) -> str:
    """Return the solver for ``"auto"``: closed_form or dual, unless cg is clearly faster.

    Of the two the one that fits is chosen, or the faster one if both do. If none of the three
    fits, the one that needs least is chosen, because the refusal itemises it.
    """
    exact, iterative = candidates[ClosedForm.name], candidates.get(ConjugateGradient.name)
    dual = candidates.get(Dual.name)
    if dual is not None and dual.fits and (not exact.fits or dual.cost < exact.cost):
        exact = dual
    if iterative is None:
        return exact.solver
    if not (exact.fits or iterative.fits):
        refused = [each for each in (iterative, exact, dual) if each is not None]
        return min(refused, key=lambda each: each.needed_nbytes).solver
    # ``max_epochs`` may allow fewer passes than a fit usually takes
    may_converge = iterative.passes > ConjugateGradient.typical_epochs
    is_slow = exact.cost > _CLEARLY_FASTER * iterative.cost
    is_better = iterative.fits and may_converge and is_slow
    return iterative.solver if is_better or not exact.fits else exact.solver


def process_term(threads: int, *, in_memory: bool = False) -> Term:
    """Return what the process itself adds, beside its data; less if those are in memory."""
    modules = _PROCESS_NBYTES // 2 if in_memory else _PROCESS_NBYTES
    return Term("process", modules + threads * _THREAD_NBYTES, "modules, stacks, heaps")


def decoder_term(costs: RowCosts, readers: int) -> list[Term]:
    """Return what decoders and fragmentation take, if chunks are decoded."""
    if not costs.decodes:
        return []
    nbytes = readers * (_FRAGMENTATION_NBYTES + _DECODER_NBYTES)
    return [Term("heaps", nbytes, "decoders and fragmentation")]


def writer_term(problem: Problem) -> Term:
    """Return what writing the weights to a file takes: some chunks, and a checksum a target."""
    d, k = problem.n_features, problem.n_targets
    chunk_nbytes = min(max(8 * d, _CHUNK_NBYTES), 8 * d * k)
    nbytes = _CHUNKS_WRITTEN * chunk_nbytes + 48 * k
    return Term("writer", nbytes, "chunks of weights on their way to the file")


def threads_needs(request: Request, n_threads: int) -> Needs:
    """Return what passes on threads of the host keep in memory."""
    passes = request.solver.footprint(request.problem).passes
    terms = max((_terms_of(request, each, n_threads) for each in passes), key=peak)
    kernels = best_kernels()
    uses_blas = kernels == NUMPY or passes[0].multiplies_matrices
    return Needs(tuple(terms), kernels, uses_blas)


def candidate_for(
    request: Request, backend: Backend, *, saves: bool = False, writes: bool = False
) -> Candidate:
    """Return what a solver needs with as many threads as fit, or with the fewest if none do."""
    costs, problem, solver = request.costs, request.problem, request.solver
    dataset = request.dataset

    @lru_cache
    def of_width(width: int) -> RowCosts:
        return RowCosts.of(dataset.with_targets(0, width), backend.policy)

    least_threads = backend.n_threads if backend.uses_all_threads else 1
    threads = range(backend.n_threads, least_threads - 1, -1)
    for n_threads, n_panels in product(threads, solver.panel_counts(problem)):
        request = request._replace(solver=solver.with_panels(n_panels))
        width = request.solver.targets_of_pass(problem)
        if width < dataset.n_targets:
            request = request._replace(costs=of_width(width))
            costs = request.costs
        needs, terms = _needs_and_terms(request, backend, n_threads, saves=saves, writes=writes)
        needed_nbytes = peak(terms)
        device = needs.device
        fits = needed_nbytes <= backend.memory_limit and (device is None or device.fits)
        if fits:
            break
    footprint = request.solver.footprint(problem)
    # passes of batches read other targets
    is_same = width >= dataset.n_targets
    caches = device is None and backend.caches_blocks and is_same
    caches = caches and _cache_pays(footprint, costs, backend)

    def cache_beside(nbytes: int) -> list[Term]:
        return _cache_terms(costs, backend.memory_limit - nbytes) if caches else []

    cache, n_directions = cache_beside(needed_nbytes), 0
    seconds = _seconds(request, backend, n_threads, peak(cache), needs)
    many = footprint.many_passes
    least = _seconds(request, backend, n_threads, peak(cache), needs, n_passes=many)
    for n_more in request.solver.direction_counts(problem) if fits else ():
        more = request._replace(solver=request.solver.with_directions(n_more))
        _, more_terms = _needs_and_terms(more, backend, n_threads, saves=saves, writes=writes)
        if peak(more_terms) > backend.memory_limit:
            continue
        more_cache = cache_beside(peak(more_terms))
        many = more.solver.footprint(problem).many_passes
        found = _seconds(more, backend, n_threads, peak(more_cache), needs, n_passes=many)
        if found < least:
            least, n_directions, terms, cache = found, n_more, more_terms, more_cache
    bought = footprint
    if n_directions:
        bought = request.solver.with_directions(n_directions).footprint(problem)
    none = request._replace(solver=request.solver.with_directions(0))
    without_nbytes = peak(_needs_and_terms(none, backend, n_threads, saves=saves, writes=writes)[1])
    return Candidate(
        solver=solver.name,
        objective=solver.objective,
        state_nbytes=max(max(each.state_nbytes, each.earlier_nbytes) for each in footprint.passes),
        needed_nbytes=needed_nbytes,
        cache_nbytes=peak(cache),
        bytes_per_pass=costs.pass_nbytes,
        passes=footprint.n_passes,
        is_exact=footprint.is_exact,
        seconds=seconds,
        cost=_seconds(
            request,
            backend,
            _COMPARED_THREADS,
            backend.memory_limit if caches else 0,
            needs,
            n_processes=1,
        ),
        fits=fits,
        reason=solver.summary if fits else _largest(terms, needs),
        terms=(*terms, *cache),
        n_threads=n_threads,
        n_panels=n_panels,
        kernels=needs.kernels,
        uses_blas=needs.uses_blas,
        device=needs.device,
        n_directions=n_directions,
        directions_nbytes=peak(terms) - needed_nbytes,
        preconditioner=bought.preconditioner,
        preconditioner_nbytes=peak(terms) - without_nbytes if bought.preconditioner else 0,
    )


def _needs_and_terms(
    request: Request, backend: Backend, n_threads: int, *, saves: bool, writes: bool
) -> tuple[Needs, list[Term]]:
    """Return what passes need with this many threads, and all terms of memory."""
    _, _, problem, solver = request
    d, k, footprint = problem.n_features, problem.n_targets, solver.footprint(problem)
    size = f", {d:,} × {k:,} each" if footprint.solver_nbytes >= 8 * d * k else ""  # noqa: RUF001
    others = [Term("vectors", footprint.solver_nbytes, f"of the solver{size}")]
    others += [Term(*each) for each in footprint.others]
    if saves:
        others.append(_checkpoint_term(footprint))
    if writes:
        others.append(writer_term(problem))
    needs = backend.needs(request, n_threads)
    terms = [*needs.terms, *others]
    what, before_nbytes, why = footprint.before
    if before_nbytes > peak(terms):
        terms.append(Term(what, before_nbytes - peak(terms), why))
    return needs, terms


def _cache_pays(footprint: Footprint, costs: RowCosts, backend: Backend) -> bool:
    """Whether blocks that stay in memory save more than they cost.

    For one more pass over rows that are stored as they are read, and that the system's page cache
    can hold beside the fit, new memory takes longer than a second read of the files.
    """
    if any(each.view.width for each in footprint.passes):
        return False  # rows are read once, and then columns
    is_cheap = not costs.decodes and costs.pass_nbytes <= backend.memory_limit
    return footprint.n_passes > _TWO_PASSES or (footprint.n_passes == _TWO_PASSES and not is_cheap)


def _seconds(
    request: Request,
    backend: Backend,
    n_threads: int,
    cache_nbytes: int,
    needs: Needs,
    n_passes: float | None = None,
    n_processes: int | None = None,
) -> float:
    """Return a rough estimate of a fit's time: bytes that are read, bytes in memory, and flop.

    ``n_passes`` is their number if it is not that of the footprint, and ``n_processes`` if it is
    not that of the backend.
    """
    n_processes = n_processes or backend.n_processes
    dataset, costs, problem, solver = request
    rates, footprint = backend.rates, solver.footprint(problem)
    n_passes = footprint.n_passes if n_passes is None else n_passes
    cached, reducers = costs.pass_nbytes, n_threads
    if needs.device is not None:
        # threads read, and one device reduces
        cached, reducers = cached * needs.device.n_cached // costs.n_blocks, 1
    elif costs.slot_nbytes:
        cached = min(cached, cache_nbytes)
    read_nbytes, memory_nbytes = n_threads * rates.read_nbytes, reducers * rates.memory_nbytes
    first_pass = costs.pass_nbytes / (read_nbytes if costs.slot_nbytes else memory_nbytes)
    later_pass = (costs.pass_nbytes - cached) / read_nbytes + cached / memory_nbytes
    flops_rate = rates.flops
    row_flops = footprint.row_flops
    if costs.is_sparse and not footprint.passes[0].multiplies_matrices:
        flops_rate = _SPARSE_FLOPS
        row_flops = footprint.row_flops if footprint.counts_pairs else row_flops * costs.density
    flops = dataset.n_rows * row_flops / (reducers * flops_rate)
    passes = max(first_pass, flops) + (n_passes - 1) * max(later_pass, flops)
    # solvers compute on the host
    return passes / n_processes + footprint.solve_flops / HOST_RATES.flops


def _largest(terms: list[Term], needs: Needs) -> str:
    """Name what takes most where memory is too small, on the host or on the device."""
    short, where = terms, ""
    if needs.device is not None and not needs.device.fits:
        short, where = list(needs.device.terms), " on the GPU"
    most = largest(short)
    return f"{most.what}{where} {format_nbytes(most.nbytes)}"


def _terms_of(request: Request, each: PassFootprint, n_threads: int) -> list[Term]:
    """Return what one pass on threads needs, with its view of the rows."""
    dataset, costs, problem, _ = request
    if each.view != ROWS:
        dataset = dataset.seen_as(each.view)
        costs = RowCosts.of(dataset, costs.policy)
        problem = Problem(dataset.n_features, dataset.n_targets)
    return _pass_terms(costs, problem, each, n_threads)


def _pass_terms(
    costs: RowCosts, problem: Problem, each: PassFootprint, n_threads: int
) -> list[Term]:
    """Return what one pass on threads needs."""
    d, k = problem.n_features, problem.n_targets
    n_segments = costs.policy.n_segments(
        costs.n_blocks, costs.pass_nbytes, each.state_nbytes, each.n_parts
    )
    if each.in_order:
        n_segments = 1
    # one thread reads a single segment; threads share the parts of its state
    readers = min(n_threads, n_segments)
    threads = readers if n_segments > 1 else min(n_threads, each.n_parts)
    # a tile is at most a block and one row, of float64; columns of sums are added to it
    block_nbytes = 8 * ((costs.block_rows + 1) * (d + 6 * k + 2) + d * (2 * k + 6))
    # beside a tile that threads multiply together, the next one is prepared
    is_shared = each.multiplies_matrices and n_segments == 1 and n_threads > 1
    n_tiles = 2 if is_shared else readers
    tile_nbytes = min(each.scratch_nbytes, block_nbytes) + each.fixed_nbytes
    tile_nbytes += each.row_nbytes * min(each.tile_rows, costs.block_rows)
    tiles_nbytes = n_tiles * tile_nbytes + threads * each.part_nbytes
    tiles_nbytes += threads * each.part_row_nbytes * min(each.tile_rows, costs.block_rows + 1)
    if costs.is_sparse:
        # y, predictions and weights of a block; and slices of it that are dense
        tiles_nbytes += readers * 8 * costs.block_rows * (4 * k + 3)
        tiles_nbytes += n_tiles * 8 * d * min(each.tile_rows, costs.block_rows)
    tiles = Term("tiles", tiles_nbytes, "float64 rows in use")
    n_states = _states_in_flight(readers, n_segments)
    states = count(1 if each.earlier_nbytes else n_states, "state")
    state_nbytes = n_states * each.state_nbytes + each.earlier_nbytes
    why = each.why or f"{format_nbytes(each.state_nbytes)} each"
    terms = [
        Term(each.what, state_nbytes, f"{why}, {states}"),
        *costs.terms(readers, each.tile_rows),
        tiles,
        process_term(threads, in_memory=not costs.slot_nbytes),
    ]
    if costs.decodes:
        # between the tiles of two blocks a chunk is decoded: its buffers take the memory that the
        # first tiles left, so the next tiles need more. Measured: two tiles of 2 MiB a thread, one
        # where tiles are large, sometimes a little more. Shared heaps count fragmentation already.
        holes = 0 if costs.shared_nbytes else readers * _FRAGMENTATION_NBYTES
        heaps = min(3 * tiles.nbytes, tiles.nbytes + holes) + readers * _DECODER_NBYTES
        terms.append(Term("heaps", heaps, "decoders and fragmentation"))
    if each.multiplies_matrices:
        packed = min(8 * d * _PACKED_ROWS, _PACKED_MOST_NBYTES)
        terms.append(Term("BLAS", threads * packed, "panels packed for multiplication"))
    return terms


def _checkpoint_term(footprint: Footprint) -> Term:
    """Return what a checkpoint keeps: copies of the small states of some passes."""
    small = [each.state_nbytes for each in footprint.passes if not HOST.is_large(each.state_nbytes)]
    copies = _COPIED_STATES * max(small, default=0)
    return Term("checkpoint", copies + _SAVING_NBYTES, "states of passes that can be resumed")


def _cache_terms(costs: RowCosts, unused_nbytes: int) -> list[Term]:
    """Return the blocks that can be cached in what the limit leaves unused."""
    if not costs.slot_nbytes or unused_nbytes < costs.slot_nbytes:
        return []
    slots = min(costs.n_blocks, unused_nbytes // costs.slot_nbytes)
    why = f"{slots:,} of {costs.n_blocks:,} blocks, decoded"
    return [Term("cache", slots * costs.slot_nbytes, why)]


def _states_in_flight(readers: int, n_segments: int) -> int:
    """Return how many states exist at once: merged, to be merged, and being reduced."""
    if n_segments == 1:
        return 1
    # one segment more than there are threads is in progress, so that none waits for the merging
    return 2 if readers == 1 else min(readers + 1, n_segments) + 1
