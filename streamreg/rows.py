"""The rows of a data set, as far as a plan needs to know them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.blocks import ALIGNMENT
from streamreg.kept import slot_nbytes
from streamreg.layout import Blocks
from streamreg.memory import format_nbytes
from streamreg.plans import Term

if TYPE_CHECKING:
    from streamreg.sources.dataset import DataSet


# X, y and weights
_MOST_ARRAYS = 3


class Rows(NamedTuple):
    """How many there are, in how many bytes, and what reading them takes."""

    n_blocks: int
    block_rows: int  # of the largest
    pass_nbytes: int
    reader_nbytes: int
    shared_nbytes: int
    decodes: bool  # chunks, rather than to read any rows into a buffer that is kept
    slot_nbytes: int  # of a block that stays in memory; 0 where all lies there already
    buffer_nbytes: int  # of a block on its way to a device

    @classmethod
    def of(cls, dataset: DataSet, *, on_device: bool = False) -> Rows:
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
            buffer_nbytes=slot_nbytes(dataset, blocks.max_rows),
        )

    def buffer_for(self, n_rows: int) -> int:
        """Bytes of a buffer for so many rows, or for a block if that has fewer."""
        each = -(-self.buffer_nbytes // max(1, self.block_rows))
        return min(self.buffer_nbytes, each * n_rows + _MOST_ARRAYS * ALIGNMENT)

    def terms(self, readers: int) -> list[Term]:
        """Return what reading keeps, with so many readers."""
        each = format_nbytes(self.reader_nbytes)
        blocks = Term("blocks", readers * self.reader_nbytes, f"{readers} at once, {each} each")
        shared = Term("reader", self.shared_nbytes, "tasks and heaps of who reads the data")
        return [blocks, shared] if self.shared_nbytes else [blocks]
