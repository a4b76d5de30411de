"""What a plan needs to know of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.kept import slot_nbytes
from streamreg.layout import Blocks
from streamreg.memory import format_nbytes
from streamreg.plans import Term

if TYPE_CHECKING:
    from streamreg.sources.dataset import DataSet


class Rows(NamedTuple):
    """What a plan needs to know of a data set."""

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

    def terms(self, readers: int) -> list[Term]:
        """Return what reading keeps, with so many readers."""
        each = format_nbytes(self.reader_nbytes)
        blocks = Term("blocks", readers * self.reader_nbytes, f"{readers} at once, {each} each")
        shared = Term("reader", self.shared_nbytes, "tasks and heaps of who reads the data")
        return [blocks, shared] if self.shared_nbytes else [blocks]
