"""What a plan needs to know about the rows of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streamreg.blocks import piece_nbytes
from streamreg.engines.block_cache import slot_nbytes
from streamreg.engines.partition import Blocks
from streamreg.formatting import format_nbytes
from streamreg.planning.terms import Term

if TYPE_CHECKING:
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.sources.dataset import Dataset


class RowCosts(NamedTuple):
    """The blocks of a data set, and what it takes to read them."""

    n_blocks: int
    block_rows: int  # rows of the largest block
    pass_nbytes: int
    reader_nbytes: int
    file_row_nbytes: int  # of X, if kernels may read it from its files; else 0
    beside_nbytes: int  # of one reader, without the rows of X
    shared_nbytes: int
    held_nbytes: int  # of labels that were numbered
    decodes: bool  # whether chunks are decoded whole; else any rows are read into a buffer
    slot_nbytes: int  # memory of a cached block; 0 if all rows are in memory already
    policy: PartitionPolicy
    is_sparse: bool = False
    density: float = 1.0  # the share of the values of X that are stored

    @classmethod
    def of(
        cls, dataset: Dataset, policy: PartitionPolicy, row_nbytes: int | None = None
    ) -> RowCosts:
        """Ask the sources; nothing is read. ``row_nbytes`` are those of the rows by default."""
        policy = policy.of_rows(is_sparse=dataset.X.is_sparse)
        row_nbytes = row_nbytes or dataset.partition_row_nbytes
        blocks = Blocks.of(dataset.X.grid, row_nbytes, policy)
        in_files, X = dataset.may_stay_in_files, dataset.X
        reader_nbytes = dataset.reader_nbytes(blocks.max_rows)
        return cls(
            n_blocks=len(blocks),
            block_rows=blocks.max_rows,
            pass_nbytes=dataset.pass_nbytes,
            reader_nbytes=reader_nbytes,
            file_row_nbytes=X.row_nbytes if in_files else 0,
            beside_nbytes=reader_nbytes
            - X.reader_nbytes(blocks.max_rows)
            + X.columns_nbytes(blocks.max_rows),
            shared_nbytes=sum(source.shared_nbytes for source in dataset.sources()),
            held_nbytes=sum(source.held_nbytes for source in dataset.sources()),
            decodes=not dataset.X.grid.divisible,
            slot_nbytes=0 if dataset.X.in_memory else slot_nbytes(dataset, blocks.max_rows),
            policy=policy,
            is_sparse=dataset.X.is_sparse,
            density=dataset.X.density,
        )

    def terms(self, readers: int, tile_rows: int | None = None) -> list[Term]:
        """Return the memory terms of this number of readers.

        Rows that kernels may read from files are read ``tile_rows`` at a time, or, if it is 0, in
        pieces by the compiled loops. If it is ``None``, they are read by blocks, as other rows.
        """
        nbytes, what = self.reader_nbytes, "at once"
        if self.file_row_nbytes and tile_rows is not None:
            piece = tile_rows * self.file_row_nbytes or piece_nbytes(self.file_row_nbytes)
            nbytes, what = min(nbytes, self.beside_nbytes + piece), "read in pieces"
        each = format_nbytes(nbytes)
        blocks = Term("blocks", readers * nbytes, f"{readers} {what}, {each} each")
        shared = Term("reader", self.shared_nbytes, "tasks and heaps of the library that reads")
        held = Term("groups", self.held_nbytes, "numbers of their labels")
        return [blocks, *(each for each in (shared, held) if each.nbytes)]
