"""Bytes of a GPU, and of the host beside it, computed before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.blocks import ALIGNMENT
from streamreg.engines.block_cache import slot_nbytes
from streamreg.engines.partition import Segments
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.launch import partial_sums_nbytes
from streamreg.gpu.transfers import N_BUFFERS
from streamreg.planning.terms import DeviceNeeds, Term, peak

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.planning.memory_model import Request
    from streamreg.planning.row_costs import RowCosts
    from streamreg.sources.dataset import Dataset

# X, y and weights
_MOST_ARRAYS = 3
# blocks in transfer, beside one for each thread: read, waiting, and being copied
_SLOTS_AHEAD = 3
# the workspace of cuBLAS on present GPUs
_WORKSPACE_NBYTES = 64 * MIB
# one spare byte for this number of bytes, because of fragmentation
_SPARE = 15
# States on the host: the merged one, and two from the device, for which CuPy takes up to twice as
# much memory. If large: the merged one, the one saved before, and a resumed one.
_HOST_STATES, _LARGE_HOST_STATES = 5, 3


class DeviceRowCosts(NamedTuple):
    """What blocks take of a device's memory, and of the pinned memory that it copies from."""

    block_rows: int
    sent_nbytes: int  # of the arrays of a block that come from the host
    made_nbytes: int  # of those that are computed on the device when they are read
    reader_nbytes: int  # of the device, for each reader whose rows are computed there
    cached_nbytes: int  # of a block that stays on the device; 0 if all rows are on it already

    @classmethod
    def of(cls, dataset: Dataset, block_rows: int) -> DeviceRowCosts:
        """Return the costs of blocks of at most ``block_rows`` rows."""
        arrays = zip(("X", "y"), whole_arrays(dataset), strict=True)
        whole = {name for name, rows in arrays if rows is not None}
        # weights are always checked on the host
        named = dataset.named()
        on_device = {name for name in ("X", "y") if name in named and named[name].is_cupy}
        return cls(
            block_rows=block_rows,
            sent_nbytes=slot_nbytes(dataset, block_rows, of=named.keys() - on_device),
            made_nbytes=slot_nbytes(dataset, block_rows, of=on_device - whole),
            reader_nbytes=sum(source.device_nbytes(block_rows) for source in dataset.sources()),
            cached_nbytes=slot_nbytes(dataset, block_rows, of=named.keys() - whole),
        )

    def buffer_for(self, n_rows: int) -> int:
        """Bytes of a device buffer for this number of rows, or for a block if that has fewer."""
        row = -(-self.sent_nbytes // max(1, self.block_rows))
        return min(self.sent_nbytes, row * n_rows + _MOST_ARRAYS * ALIGNMENT)


def device_needs(
    request: Request, policy: PartitionPolicy, n_threads: int, limit_nbytes: int, n_scans: int
) -> DeviceNeeds:
    """Return what a fit that scans its blocks ``n_scans`` times needs, if possible in the limit."""
    dataset, costs, problem, solver = request
    d, k = problem.n_features, problem.n_targets
    n_slots, device = _slots(costs, n_threads), DeviceRowCosts.of(dataset, costs.block_rows)
    scratch = gpu_kernels.scratch_nbytes(d, 2 * k, costs.block_rows)
    state = max(each.state_nbytes for each in solver.footprint(problem).passes)
    n_segments = len(Segments.of(costs.n_blocks, costs.pass_nbytes, state, policy))
    # one state is reduced while the one before is fetched, or waits to be merged
    n_states = min(2, n_segments)
    others = [
        Term("sums", n_states * state, f"{count(n_states, 'state')} of D = {d:,}"),
        Term("tiles", scratch, "float64 rows in use"),
        Term("partial sums", partial_sums_nbytes(d, k), "of each part of the GPU"),
        Term("weights", 8 * 2 * (d + 1) * k, "of the solver, sent for each pass"),
        Term("cuBLAS", _WORKSPACE_NBYTES, "its workspace"),
    ]
    if device.made_nbytes:
        nbytes = n_slots * device.made_nbytes + n_threads * device.reader_nbytes
        others.append(Term("chunks", nbytes, "computed on the GPU when they are read"))
    left = limit_nbytes * _SPARE // (_SPARE + 1) - peak(others)
    least = device.buffer_for(gpu_kernels.tile_rows(d))
    buffer = device.sent_nbytes
    if N_BUFFERS * buffer > left:
        buffer = min(buffer, max(least, left // N_BUFFERS))
    terms = [*others, Term("buffers", N_BUFFERS * buffer, f"{N_BUFFERS} blocks in transfer")]
    left -= N_BUFFERS * buffer
    n_cached = 0
    if n_scans > 1 and left >= device.cached_nbytes:
        n_cached = min(costs.n_blocks, left // max(1, device.cached_nbytes))
        why = f"{n_cached:,} of {costs.n_blocks:,} blocks"
        terms.append(Term("cache", n_cached * device.cached_nbytes, why))
    spare = -(-peak(terms) // _SPARE)
    terms.append(Term("spare", spare, "fragmentation of CuPy's pool"))
    return DeviceNeeds(
        limit_nbytes=limit_nbytes,
        terms=tuple(terms),
        buffer_nbytes=buffer,
        n_slots=n_slots,
        pinned_nbytes=device.sent_nbytes,
        n_cached=n_cached,
        fits=left >= 0,
    )


def host_terms(request: Request, policy: PartitionPolicy, n_threads: int) -> list[Term]:
    """Return the host's memory, beside its process, while a device reduces blocks."""
    costs, passes = request.costs, request.solver.footprint(request.problem).passes
    state = max(each.state_nbytes for each in passes)
    earlier = max(each.earlier_nbytes for each in passes)
    slots = _slots(costs, n_threads)
    n_states = _LARGE_HOST_STATES if policy.is_large(state) else _HOST_STATES
    pinned = slots * DeviceRowCosts.of(request.dataset, costs.block_rows).sent_nbytes
    return [
        *costs.terms(n_threads),
        Term("pinned", pinned, f"{count(slots, 'block')} in transfer, pinned memory"),
        Term("sums", n_states * state + earlier, f"{format_nbytes(state)} each"),
    ]


def _slots(costs: RowCosts, n_threads: int) -> int:
    """Return how many blocks are in transfer at once."""
    return min(costs.n_blocks, n_threads + _SLOTS_AHEAD)


def whole_arrays(dataset: Dataset) -> tuple[Array | None, Array | None]:
    """Return X (N, D) and y (N, K), each if it is on the GPU and ready to be reduced.

    ``None`` if rows may be left out.
    """
    if dataset.weight is not None or dataset.nan_policy == "omit":
        return None, None
    return dataset.X.device_rows, None if dataset.y is None else dataset.y.device_rows
