"""The rows of a data set, as a plan counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.blocks import ALIGNMENT
from streamreg.engines.block_cache import slot_nbytes
from streamreg.engines.partition import Blocks
from streamreg.formatting import format_nbytes
from streamreg.planning.terms import Term

if TYPE_CHECKING:
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.sources.dataset import Dataset

# X, y and weights
_MOST_ARRAYS = 3


class DeviceRowCosts(NamedTuple):
    """What blocks take of a device's memory, and of the pinned memory that it copies from."""

    sent_nbytes: int  # of the arrays of a block that come from the host
    made_nbytes: int  # of those that are computed on the device when they are read
    reader_nbytes: int  # of the device, for each reader whose rows are computed there
    kept_nbytes: int  # of a block that stays on the device; 0 if all rows are on it already

    @classmethod
    def of(cls, dataset: Dataset, block_rows: int) -> DeviceRowCosts:
        """Return the costs of blocks of at most ``block_rows`` rows."""
        arrays = zip(("X", "y"), dataset.whole_on_device(), strict=True)
        whole = {name for name, rows in arrays if rows is not None}
        # weights are always checked on the host
        sources = {"X": dataset.X, "y": dataset.y}.items()
        on_device = {name for name, source in sources if source is not None and source.on_device}
        named = dataset.named().keys()
        return cls(
            sent_nbytes=slot_nbytes(dataset, block_rows, of=named - on_device),
            made_nbytes=slot_nbytes(dataset, block_rows, of=on_device - whole),
            reader_nbytes=sum(source.device_nbytes(block_rows) for source in dataset.sources()),
            kept_nbytes=slot_nbytes(dataset, block_rows, of=named - whole),
        )


class RowCosts(NamedTuple):
    """How many rows, in how many bytes, and what it takes to read them."""

    n_rows: int
    n_blocks: int
    block_rows: int  # of the largest block
    pass_nbytes: int
    reader_nbytes: int
    shared_nbytes: int
    decodes: bool  # whole chunks, rather than any rows straight into a buffer
    slot_nbytes: int  # of a cached block; 0 if all rows are in memory already
    device: DeviceRowCosts

    @classmethod
    def of(cls, dataset: Dataset, policy: PartitionPolicy) -> RowCosts:
        """Ask the sources; nothing is read."""
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, policy)
        return cls(
            n_rows=dataset.n_rows,
            n_blocks=len(blocks),
            block_rows=blocks.max_rows,
            pass_nbytes=dataset.pass_nbytes,
            reader_nbytes=dataset.reader_nbytes(blocks.max_rows),
            shared_nbytes=dataset.shared_nbytes,
            decodes=not dataset.X.grid.divisible,
            slot_nbytes=0 if dataset.X.in_memory else slot_nbytes(dataset, blocks.max_rows),
            device=DeviceRowCosts.of(dataset, blocks.max_rows),
        )

    def buffer_for(self, n_rows: int) -> int:
        """Bytes of a device buffer for this number of rows, or for a block if that has fewer."""
        block = self.device.sent_nbytes
        row = -(-block // max(1, self.block_rows))
        return min(block, row * n_rows + _MOST_ARRAYS * ALIGNMENT)

    def terms(self, readers: int) -> list[Term]:
        """Return what this number of readers keep."""
        each = format_nbytes(self.reader_nbytes)
        blocks = Term("blocks", readers * self.reader_nbytes, f"{readers} at once, {each} each")
        shared = Term("reader", self.shared_nbytes, "tasks and heaps of the library that reads")
        return [blocks, shared] if self.shared_nbytes else [blocks]
