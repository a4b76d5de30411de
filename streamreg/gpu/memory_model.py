"""Bytes of a GPU, and of the host beside it, worked out before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.engines.partition import LARGE_STATE_NBYTES, Segments
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.launch import partial_sums_nbytes
from streamreg.gpu.transfers import N_BUFFERS
from streamreg.planning.terms import DeviceNeeds, Term

if TYPE_CHECKING:
    from streamreg.planning.row_costs import DeviceRowCosts, Rows
    from streamreg.solvers.base import Footprint, Problem

# blocks that have been read, wait to be copied, and are being copied, beside one for each thread
_SLOTS_AHEAD = 3
# of cuBLAS, for itself, on the GPUs of today
_WORKSPACE_NBYTES = 64 * MIB
# 1 in so many bytes that are asked for
_SPARE = 15
# of the host: what was merged, and two that come from the device, to memory of which CuPy takes up
# to twice as much; of large ones, what was merged there, what was saved before, and where an
# earlier run stood
_STATES_HERE, _LARGE_HERE = 5, 3


def device_needs(
    rows: Rows,
    problem: Problem,
    footprint: Footprint,
    n_threads: int,
    limit_nbytes: int,
    passes: int,
) -> DeviceNeeds:
    """Return what a fit needs of a device, within a limit if it can be."""
    d, k = problem.n_features, problem.n_targets
    n_slots, there = _slots(rows, n_threads), rows.there
    # of each kind of pass: its state, and what an update makes beside it
    scratch = gpu_kernels.scratch_nbytes(d, 2 * k, rows.block_rows)
    state = max(each.state_nbytes for each in footprint.passes)
    n_segments = len(Segments.of(rows.n_blocks, rows.pass_nbytes, state, on_device=True))
    # one is folded while the one before is fetched, or waits to be merged
    n_states = min(2, n_segments)
    weights = 8 * 2 * (d + 1) * k
    others = [
        Term("sums", n_states * state, f"{count(n_states, 'state')} of D = {d:,}"),
        Term("tiles", scratch, "float64 rows in work"),
        Term("apart", partial_sums_nbytes(d, k), "sums of each part of the GPU"),
        Term("weights", weights, "of the solver, sent for each pass"),
        Term("cuBLAS", _WORKSPACE_NBYTES, "its workspace"),
        *_made_there(there, n_threads, n_slots),
    ]
    left = limit_nbytes * _SPARE // (_SPARE + 1) - sum(term.nbytes for term in others)
    least = rows.buffer_for(gpu_kernels.tile_rows(d))
    buffer = there.sent_nbytes
    if N_BUFFERS * buffer > left:
        buffer = min(buffer, max(least, left // N_BUFFERS))
    terms = [*others, Term("buffers", N_BUFFERS * buffer, f"{N_BUFFERS} blocks that arrive")]
    left -= N_BUFFERS * buffer
    n_kept = 0
    if passes > 1 and left >= there.cache_nbytes:
        n_kept = min(rows.n_blocks, left // max(1, there.cache_nbytes))
        terms.append(
            Term("kept", n_kept * there.cache_nbytes, f"{n_kept:,} of {rows.n_blocks:,} blocks")
        )
    asked = sum(term.nbytes for term in terms)
    terms.append(Term("spare", -(-asked // _SPARE), "pieces that CuPy's pool cannot use"))
    return DeviceNeeds(
        limit_nbytes, tuple(terms), buffer, least, n_slots, there.sent_nbytes, n_kept,
        fits=left >= 0,
    )  # fmt: skip


def _slots(rows: Rows, n_threads: int) -> int:
    """Return how many blocks are on their way at once."""
    return min(rows.n_blocks, n_threads + _SLOTS_AHEAD)


def _made_there(there: DeviceRowCosts, n_threads: int, n_slots: int) -> list[Term]:
    """Return what rows take that Dask makes on the device: by CuPy's own pool."""
    if not there.made_nbytes:
        return []
    nbytes = n_slots * there.made_nbytes + n_threads * there.reader_nbytes
    return [Term("chunks", nbytes, "made on the GPU when they are read")]


def host_terms(rows: Rows, footprint: Footprint, n_threads: int) -> list[Term]:
    """Return what the host keeps, beside its process, while a device folds."""
    state = max(each.state_nbytes for each in footprint.passes)
    earlier = max(each.cache_nbytes for each in footprint.passes)
    slots = _slots(rows, n_threads)
    n_states = _STATES_HERE if state <= LARGE_STATE_NBYTES else _LARGE_HERE
    return [
        *rows.terms(n_threads),
        Term("pinned", slots * rows.there.sent_nbytes, f"{count(slots, 'block')} on the way"),
        Term("sums", n_states * state + earlier, f"{format_nbytes(state)} each"),
    ]
