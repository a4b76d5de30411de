"""The one inner loop: fold the blocks of a segment into a state."""

from __future__ import annotations

from itertools import tee, zip_longest
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamreg.accumulators.base import Accumulator
    from streamreg.kernels import Kernels
    from streamreg.sources.block_reader import BlockReader

State = TypeVar("State")
Result = TypeVar("Result")


def fold_segment(
    reader: BlockReader,
    accumulator: Accumulator[State, Result],
    blocks: Iterable[tuple[int, int]],
    kernels: Kernels,
    on_block: Callable[[int], None],
) -> State:
    """Return the state of the rows of some blocks, folded in order.

    Parameters
    ----------
    reader
        Where rows come from; used by this thread alone meanwhile.
    accumulator
        What is gathered.
    blocks
        First row, and the row after the last, of each block.
    kernels
        The loops, and who runs the parts of an update, if the accumulator splits it.
    on_block
        Told the rows of each block when it is done; may raise to end the pass.

    Raises
    ------
    InputError
        NaN or inf in the data.
    DataCorruptionError
        A chunk is absent or damaged.
    """
    state = accumulator.zero()
    # sums may overflow before it is known whether the data or their size are to blame
    with np.errstate(all="ignore"):
        ahead, behind = tee(blocks)
        next(ahead, None)
        for (start, stop), following in zip_longest(behind, ahead):
            block = reader.read(start, stop)
            if following is not None:
                reader.expect(*following)
            if len(block.X):
                state = accumulator.update(state, block, kernels)
                if not accumulator.is_finite(state):
                    error = reader.not_finite(start, stop)
                    if error is not None:
                        raise error
            # gone before the next is read: readers that make new arrays would hold two
            del block
            on_block(stop - start)
    return state
