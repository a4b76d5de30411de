"""X, y, weights and groups that describe the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from streamreg.errors import InputError, Part
from streamreg.formatting import count
from streamreg.sources.checks import is_wide, require_rows
from streamreg.sources.column_range import column_range
from streamreg.sources.row_numbers import RowNumbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamreg.blocks import View
    from streamreg.schema import Schema
    from streamreg.sources.base import RowSource
    from streamreg.sources.file_stamps import FileStamps

NanPolicy = Literal["raise", "omit"]


@dataclass(frozen=True)
class Dataset:
    """The rows of a regression: X (N, D), y (N,) or (N, K) and weights (N,), each from a source.

    ``y`` is ``None`` for prediction, ``weight`` if every row has weight 1, and ``groups``
    (N,) if errors are independent. Rows with NaN or inf are an error, or are left out if
    ``nan_policy`` is ``"omit"``.
    """

    X: RowSource
    y: RowSource | None = None
    weight: RowSource | None = None
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    nan_policy: NanPolicy = "raise"
    schema: Schema | None = None  # how X was made of the columns of a table
    groups: RowSource | None = None
    # ``partition_row_nbytes`` of all targets, if only some are read
    whole_row_nbytes: int = 0

    def __post_init__(self) -> None:
        require_rows(self.X, 2, "(N, D)")
        if len(self.X.shape) == 1:
            raise InputError(
                f"{self.X.name} has shape {self.X.shape}; X must be (N, D). Reshape your data: "
                "X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one row"
            )
        others = (
            (self.y, 2, "(N,) or (N, K)"),
            (self.weight, 1, "(N,)"),
            (self.groups, 1, "(N,)"),
        )
        for source, dimensions, allowed in others:
            if source is None:
                continue
            require_rows(source, dimensions, allowed)
            if source.is_sparse:
                raise InputError(
                    f"{source.name} is sparse, and only X and y may be; pass a dense array"
                )
            if source.shape[0] != self.n_rows:
                raise InputError(
                    f"{source.name} has {count(source.shape[0], 'row')} but {self.X.name} has "
                    f"{self.n_rows:,}; they must describe the same rows "
                    f"(shapes {source.shape} and {self.X.shape})"
                )
        _require_names(self.feature_names, self.n_features, "feature_names")
        _require_names(self.target_names, self.n_targets, "target_names")
        if self.schema is not None and self.schema.n_columns != self.n_features:
            raise InputError(
                f"the group's attribute schema describes {count(self.schema.n_columns, 'column')}, "
                f"but {self.X.name} has {self.n_features:,}; correct or remove it"
            )

    @property
    def n_rows(self) -> int:
        """N."""
        return self.X.shape[0]

    @property
    def n_features(self) -> int:
        """D."""
        return self.X.shape[1]

    @property
    def n_targets(self) -> int:
        """K; 0 without y."""
        if self.y is None:
            return 0
        return 1 if len(self.y.shape) == 1 else self.y.shape[1]

    @property
    def has_one_target(self) -> bool:
        """Whether y is (N,); of y (N, 1), coefficients are (1, D), as scikit-learn's."""
        return self.y is not None and len(self.y.shape) == 1

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row of all arrays as stored."""
        return sum(source.row_nbytes for source in self.sources())

    @property
    def partition_row_nbytes(self) -> int:
        """Bytes of a row, by which rows are divided into blocks.

        A wide y counts no more than X, so that blocks keep the rows that fast products need; but a
        block has at most eight times as many bytes.
        """
        if self.whole_row_nbytes:
            return self.whole_row_nbytes
        y_nbytes = 0 if self.y is None else self.y.row_nbytes
        narrow = self.row_nbytes - max(0, y_nbytes - self.X.row_nbytes)
        return max(narrow, -(-self.row_nbytes // 8))

    def with_targets(self, start: int, stop: int) -> Dataset:
        """Return the data set with some of the targets, in the same blocks."""
        y = None if self.y is None else column_range(self.y, start, stop)
        return replace(self, y=y, target_names=None, whole_row_nbytes=self.partition_row_nbytes)

    @property
    def pass_nbytes(self) -> int:
        """Bytes that one pass over all rows decodes."""
        return sum(source.pass_nbytes for source in self.sources())

    @property
    def column_step(self) -> int:
        """Columns of X that are read together, without the others; 0 if rows are read.

        Rows with NaN are found only where whole rows are read.
        """
        return 0 if self.nan_policy == "omit" else self.X.column_step

    def seen_as(self, view: View) -> Dataset:
        """Return what a pass reads with this view of the rows."""
        if view.width:
            return Dataset(self.X.in_strips(view.width))
        if view.without_x and self.y is not None:
            return replace(
                self, X=RowNumbers(self.y.grid), groups=None, schema=None, feature_names=None
            )
        return self

    def local_paths(self) -> list[Path]:
        """Return the local files and folders of the rows: no output may be written to them."""
        return [path for source in self.sources() for path in source.local_paths()]

    @property
    def may_stay_in_files(self) -> bool:
        """Whether kernels may read X from its files; only if no row may be left out."""
        return self.X.is_in_files and self.weight is None and self.nan_policy == "raise"

    def reader_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader holds while it reads blocks of at most ``block_rows`` rows."""
        buffers = 0
        for source in self.sources():
            buffers += source.reader_nbytes(block_rows)
            if source.grid != self.X.grid:
                # its chunks end at other rows than those of X, so a block spans several of them
                buffers += source.block_nbytes(block_rows)
        # weights as float64, and a mask of those above 0
        weights = block_rows * 9 if self.weight is not None else 0
        # if rows are left out: their mask, and a copy of the others
        masked = self.weight is not None or self.nan_policy == "omit"
        copies = 0
        if masked:
            copies = sum(source.block_nbytes(block_rows) for source in self.sources())
            copies += (
                self.X.block_nbytes(block_rows)
                if self.X.is_sparse
                else block_rows * self.n_features
            )
        # groups as integers of 64 bits, and while they are made
        copies += block_rows * 24 if self.groups is not None else 0
        wide = (source for source in (self.X, self.y) if source and is_wide(source.dtype))
        narrowed = sum(8 * block_rows * math.prod(source.shape[1:]) for source in wide)
        return buffers + weights + copies + narrowed

    def stamps(self) -> dict[str, FileStamps]:
        """Return the versions of the files that were read, for each array with watched files."""
        return {
            f"{name} {part}": stamps
            for name, source in self.named().items()
            for part, stamps in source.watched().items()
        }

    def require_unchanged(self) -> None:
        """Raise :class:`DataCorruptionError` if a file has changed since it was stamped."""
        for source in self.sources():
            source.require_unchanged()

    def replaced(self, change: Callable[[str, RowSource], RowSource]) -> Dataset:
        """Return the data set with other sources; ``change`` gets their names."""
        changed = {name: change(name, source) for name, source in self.named().items()}
        return replace(
            self,
            X=changed["X"],
            y=changed.get("y"),
            weight=changed.get("sample_weight"),
            groups=changed.get("groups"),
        )

    def require_on_host(self, remedy: Part) -> None:
        """Raise :class:`InputError`, with a remedy, if rows are in the memory of a GPU."""
        for name, source in self.named().items():
            if source.is_cupy:
                what = f"{source.name} is CuPy's, in the memory of a GPU: "
                copy = f"cupy.asnumpy({name}), or {name}.map_blocks(cupy.asnumpy) of a Dask array"
                raise InputError(what, remedy, copy)

    def named(self) -> dict[str, RowSource]:
        """Return X, y, sample_weight and groups by name, without those that are ``None``."""
        named = {"X": self.X, "y": self.y, "sample_weight": self.weight, "groups": self.groups}
        return {name: source for name, source in named.items() if source is not None}

    def sources(self) -> list[RowSource]:
        """Return X, y, weights and groups, without those that are ``None``."""
        return list(self.named().values())


def _require_names(names: tuple[str, ...] | None, length: int, what: str) -> None:
    if names is not None and len(names) != length:
        raise InputError(
            f"the group's attribute {what} lists {count(len(names), 'name')} for "
            f"{count(length, 'column')}; correct or remove it"
        )
