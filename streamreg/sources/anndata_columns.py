"""AnnData's columns of ``obs`` that consist of two arrays: categories, and nullable numbers.

Categories are stored as codes, of which -1 is a missing one; nullable numbers as values and a mask
of the missing ones. Specifications: ``categorical`` 0.2.0, ``nullable-integer`` and
``nullable-boolean`` 0.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import DataCorruptionError, InputError, Parameter
from streamreg.sources.base import Reader, RowSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from streamreg.blocks import Array, Float64
    from streamreg.sources.file_stamps import FileStamps

    # of an array, its name, and perhaps what absent chunks mean: "error" or "fill"
    OpenArray = Callable[..., RowSource]

CATEGORICAL = "categorical"
NULLABLE = ("nullable-integer", "nullable-boolean")
# name of the parameter whose categories are only compared
GROUPS = "groups"
_RESTORE = "; restore it from a copy"


def open_column(
    group: Any,  # noqa: ANN401  (a group of Zarr or HDF5)
    encoding: str,
    name: str,
    role: str,
    open_array: OpenArray,
) -> RowSource:
    """Return a column as numbers (N,); missing ones are NaN, or an error in groups.

    Raises
    ------
    InputError
        Categories that are texts, as ``role`` other than groups.
    DataCorruptionError
        An array is absent.
    """
    members = ("codes", "categories") if encoding == CATEGORICAL else ("values", "mask")
    absent = [member for member in members if member not in group]
    if absent:
        raise DataCorruptionError(
            f"{name} is a column of encoding {encoding} without {' and '.join(absent)}{_RESTORE}"
        )
    first = open_array(group[members[0]], f"{name}/{members[0]}")
    if encoding != CATEGORICAL:
        # Zarr leaves out chunks of fill values: here those of rows without missing values
        mask = open_array(group["mask"], f"{name}/mask", "fill")
        return Column(first, mask, None, name, role)
    categories = group["categories"]
    # nullable categories are a group
    categories = categories["values"] if hasattr(categories, "keys") else categories
    levels = np.arange(float(categories.shape[0]))
    if role != GROUPS:
        if getattr(categories.dtype, "kind", "O") not in "biuf":
            raise InputError(
                f"{name} is a column of categories that are texts, and {role} are numbers: pass "
                "its array codes, if their order has a meaning, or the categories as ",
                Parameter(GROUPS),
            )
        levels = np.asarray(categories[:]).astype(np.float64)
    return Column(first, None, levels, name, role)


class Column(RowSource):
    """Numbers (N,) as float64, made of stored codes and categories, or of values and a mask."""

    def __init__(
        self,
        stored: RowSource,
        mask: RowSource | None,
        levels: Float64 | None,
        name: str,
        role: str,
    ) -> None:
        self.stored = stored
        self.mask = mask
        self.levels = levels
        self.name = name
        self.role = role
        self.shape = stored.shape
        if mask is not None and mask.shape != stored.shape:
            raise DataCorruptionError(
                f"{stored.name} has shape {stored.shape} but {mask.name} has {mask.shape}{_RESTORE}"
            )
        if levels is not None and stored.dtype.kind not in "iu":
            raise DataCorruptionError(
                f"{stored.name} has dtype {stored.dtype}; codes are integers{_RESTORE}"
            )
        self.dtype = np.dtype(np.float64)
        self.grid = stored.grid
        self.storage = " ".join(each.storage for each in self._arrays())
        self.fingerprint_reads_all_rows = any(
            each.fingerprint_reads_all_rows for each in self._arrays()
        )
        unreachable = (each.why_unreachable_from_workers for each in self._arrays())
        self.why_unreachable_from_workers = next(filter(None, unreachable), "")

    def _arrays(self) -> list[RowSource]:
        return [self.stored] if self.mask is None else [self.stored, self.mask]

    def open(self) -> Reader:
        return _ColumnReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        # the numbers, and masks of the missing ones
        nbytes = block_rows * (8 + 3)
        for each in self._arrays():
            nbytes += each.reader_nbytes(block_rows) + each.block_nbytes(block_rows)
        return nbytes

    @property
    def shared_nbytes(self) -> int:
        return sum(each.shared_nbytes for each in self._arrays())

    @property
    def held_nbytes(self) -> int:
        return 0 if self.levels is None else self.levels.nbytes

    def local_paths(self) -> list[Path]:
        return list(dict.fromkeys(path for each in self._arrays() for path in each.local_paths()))

    def watched(self) -> dict[str, FileStamps]:
        return {
            f"{number} {name}": stamps
            for number, each in enumerate(self._arrays())
            for name, stamps in each.watched().items()
        }

    def require_exists(self) -> None:
        for each in self._arrays():
            each.require_exists()

    def require_unchanged(self) -> None:
        for each in self._arrays():
            each.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.stored.place(row, column)

    def describe(self) -> dict[str, Any]:
        return {**self.stored.describe(), "dtype": f"{self.dtype} from {self.stored.dtype}"}


class _ColumnReader(Reader):
    def __init__(self, column: Column) -> None:
        self._column = column
        self._stored = column.stored.open()
        self._mask = None if column.mask is None else column.mask.open()

    def read(self, start: int, stop: int) -> Array:
        column = self._column
        stored = np.asarray(self._stored.read(start, stop))
        if column.levels is not None:
            numbers, missing = self._of_categories(stored, column.levels, start)
        else:
            numbers = stored.astype(np.float64)
            self.rounds |= bool(np.abs(numbers).max(initial=0) > EXACT_INTEGERS)
            missing = np.zeros(len(stored), bool)
        if self._mask is not None:
            missing = np.asarray(self._mask.read(start, stop)).astype(bool)
        if column.role == GROUPS and missing.any():
            row = start + int(np.argmax(missing))
            raise InputError(
                f"{column.name} has no value in row {row:,} ({column.place(row)}); every row "
                "belongs to a group"
            )
        numbers[missing] = np.nan
        return numbers

    def _of_categories(
        self, codes: Array, levels: Float64, start: int
    ) -> tuple[Float64, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Return the categories as numbers, and which codes are -1."""
        missing = codes == -1
        bad = (codes < -1) | (codes >= len(levels))
        if bad.any():
            at = int(np.argmax(bad))
            raise DataCorruptionError(
                f"{self._column.name} has code {int(codes[at]):,} in row {start + at:,} "
                f"({self._column.place(start + at)}), but has {len(levels):,} categories{_RESTORE}"
            )
        # the last number stands for the missing ones
        return np.append(levels, np.nan)[codes.astype(np.int64)], missing

    def prefetch(self, start: int, stop: int) -> None:
        self._stored.prefetch(start, stop)
        if self._mask is not None:
            self._mask.prefetch(start, stop)

    def close(self) -> None:
        self._stored.close()
        if self._mask is not None:
            self._mask.close()
