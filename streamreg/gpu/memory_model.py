"""Bytes that a fit needs on a GPU, and on its host, computed before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import ALIGNMENT
from streamreg.engines.block_cache import slot_nbytes
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.gpu.kernels import scratch_nbytes, tile_rows
from streamreg.gpu.launch import partial_sums_nbytes
from streamreg.gpu.transfers import N_BUFFERS
from streamreg.planning.memory_model import decoder_term, process_term
from streamreg.planning.terms import DeviceNeeds, Needs, Term, peak

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.planning.backend import Request
    from streamreg.sources.dataset import Dataset

# X, y and weights
_MOST_ARRAYS = 3
# blocks in transfer, in addition to one for each thread: read, waiting, and being copied
_SLOTS_AHEAD = 3
# the workspace of cuBLAS on present GPUs
_WORKSPACE_NBYTES = 64 * MIB
# one spare byte for this number of bytes, because of fragmentation
_SPARE = 15
# States on the host: the merged one, and two from the device, for which CuPy takes up to twice as
# much memory. If large: the merged one, the one saved before, and a resumed one.
_HOST_STATES, _LARGE_HOST_STATES = 5, 3


def gpu_needs(
    request: Request, policy: PartitionPolicy, n_threads: int, limit_nbytes: int, *, caches: bool
) -> Needs:
    """Return the bytes that a fit needs on host and device, with a block cache if it ``caches``."""
    dataset, costs, problem, solver = request
    d, k, footprint = problem.n_features, problem.n_targets, solver.footprint(problem)
    state = max(each.state_nbytes for each in footprint.passes)
    earlier = max(each.earlier_nbytes for each in footprint.passes)
    n_slots = min(costs.n_blocks, n_threads + _SLOTS_AHEAD)
    named = dataset.named()
    # weights are always checked on the host
    on_device = {name for name in named.keys() & {"X", "y"} if named[name].is_cupy}
    arrays = zip(("X", "y"), whole_arrays(dataset), strict=True)
    whole = {name for name, rows in arrays if rows is not None}
    # bytes of a block: its arrays that come from the host, those that are computed on the device
    # when they are read, and those that stay on the device between passes
    sent, made, cached = (
        slot_nbytes(dataset, costs.block_rows, of=names)
        for names in (named.keys() - on_device, on_device - whole, named.keys() - whole)
    )
    n_host_states = _LARGE_HOST_STATES if policy.is_large(state) else _HOST_STATES
    host_terms = (
        *costs.terms(n_threads),
        Term("pinned", n_slots * sent, f"{count(n_slots, 'block')} in transfer, pinned memory"),
        Term("sums", n_host_states * state + earlier, f"{format_nbytes(state)} each"),
        process_term(n_threads),
        *decoder_term(costs, n_threads),
    )
    # one state is reduced while the one before is fetched, or waits to be merged
    n_states = min(2, policy.n_segments(costs.n_blocks, costs.pass_nbytes, state))
    terms = [
        Term("sums", n_states * state, f"{count(n_states, 'state')} of D = {d:,}"),
        Term("tiles", scratch_nbytes(d, 2 * k, costs.block_rows), "float64 rows in use"),
        Term("partial sums", partial_sums_nbytes(d, k), "of each part of the GPU"),
        Term("weights", 8 * 2 * (d + 1) * k, "of the solver, sent for each pass"),
        Term("cuBLAS", _WORKSPACE_NBYTES, "its workspace"),
    ]
    if made:
        readers = n_threads * sum(each.device_nbytes(costs.block_rows) for each in named.values())
        terms.append(
            Term("chunks", n_slots * made + readers, "computed on the GPU when they are read")
        )
    left = limit_nbytes * _SPARE // (_SPARE + 1) - peak(terms)
    # a part of a block has at least the rows of a tile
    least = -(-sent // costs.block_rows) * tile_rows(d) + _MOST_ARRAYS * ALIGNMENT
    buffer = min(sent, max(least, left // N_BUFFERS))
    terms.append(Term("buffers", N_BUFFERS * buffer, f"{N_BUFFERS} blocks in transfer"))
    left -= N_BUFFERS * buffer
    n_cached = 0
    if caches and footprint.n_passes > 1:
        n_cached = min(costs.n_blocks, max(0, left) // max(1, cached))
    if n_cached:
        why = f"{n_cached:,} of {costs.n_blocks:,} blocks"
        terms.append(Term("cache", n_cached * cached, why))
    terms.append(Term("spare", -(-peak(terms) // _SPARE), "fragmentation of CuPy's pool"))
    device = DeviceNeeds(
        limit_nbytes=limit_nbytes,
        terms=tuple(terms),
        buffer_nbytes=buffer,
        n_slots=n_slots,
        pinned_nbytes=sent,
        n_cached=n_cached,
        fits=left >= 0,
    )
    return Needs(host_terms, "cuda", device=device)


def whole_arrays(dataset: Dataset) -> tuple[Array | None, Array | None]:
    """Return X (N, D) and y (N, K); ``None`` for one that is not on the GPU, ready to be reduced.

    Both are ``None`` if rows may be left out.
    """
    if dataset.weight is not None or dataset.nan_policy == "omit":
        return None, None
    return dataset.X.device_rows, None if dataset.y is None else dataset.y.device_rows
