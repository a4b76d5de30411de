"""The rows of a data set, as far as a plan needs to know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.blocks import ALIGNMENT
from streamreg.engines.block_cache import slot_nbytes
from streamreg.engines.partition import Blocks
from streamreg.formatting import format_nbytes
from streamreg.planning.terms import Term

if TYPE_CHECKING:
    from streamreg.sources.dataset import Dataset


# X, y and weights
_MOST_ARRAYS = 3


class DeviceRowCosts(NamedTuple):
    """What blocks take of a device's memory, and of that which it copies from."""

    sent_nbytes: int  # of the arrays of a block that come from the host
    made_nbytes: int  # of those that are made on the device when they are read
    reader_nbytes: int  # of the device, for a reader that has them made
    cache_nbytes: int  # of a block that stays on the device; 0 where all lies there already

    @classmethod
    def of(cls, dataset: Dataset, block_rows: int) -> DeviceRowCosts:
        """Ask the data set, for blocks of at most so many rows."""
        arrays = zip(("X", "y"), dataset.whole_on_device(), strict=True)
        whole = {name for name, rows in arrays if rows is not None}
        # weights are looked at on the host
        sources = {"X": dataset.X, "y": dataset.y}.items()
        there = {name for name, source in sources if source is not None and source.on_device}
        named, made = dataset.named().keys(), there - whole
        return cls(
            sent_nbytes=slot_nbytes(dataset, block_rows, of=named - there),
            made_nbytes=slot_nbytes(dataset, block_rows, of=made),
            reader_nbytes=sum(source.device_nbytes(block_rows) for source in dataset.sources()),
            cache_nbytes=slot_nbytes(dataset, block_rows, of=named - whole),
        )


class Rows(NamedTuple):
    """How many there are, in how many bytes, and what reading them takes."""

    n_blocks: int
    block_rows: int  # of the largest
    pass_nbytes: int
    reader_nbytes: int
    shared_nbytes: int
    decodes: bool  # chunks, rather than to read any rows into a buffer that is kept
    slot_nbytes: int  # of a block that stays in memory; 0 where all lies there already
    there: DeviceRowCosts

    @classmethod
    def of(cls, dataset: Dataset, *, on_device: bool = False) -> Rows:
        """Ask the data set."""
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, on_device=on_device)
        return cls(
            n_blocks=len(blocks),
            block_rows=blocks.max_rows,
            pass_nbytes=dataset.n_rows * dataset.row_nbytes,
            reader_nbytes=dataset.reader_nbytes(blocks.max_rows),
            shared_nbytes=dataset.shared_nbytes,
            decodes=not dataset.X.grid.divisible,
            slot_nbytes=0 if dataset.X.in_memory else slot_nbytes(dataset, blocks.max_rows),
            there=DeviceRowCosts.of(dataset, blocks.max_rows),
        )

    def buffer_for(self, n_rows: int) -> int:
        """Bytes of a buffer for so many rows on their way, or for a block if that has fewer."""
        whole = self.there.sent_nbytes
        return min(whole, -(-whole // max(1, self.block_rows)) * n_rows + _MOST_ARRAYS * ALIGNMENT)

    def terms(self, readers: int) -> list[Term]:
        """Return what reading keeps, with so many readers."""
        each = format_nbytes(self.reader_nbytes)
        blocks = Term("blocks", readers * self.reader_nbytes, f"{readers} at once, {each} each")
        shared = Term("reader", self.shared_nbytes, "tasks and heaps of who reads the data")
        return [blocks, shared] if self.shared_nbytes else [blocks]
