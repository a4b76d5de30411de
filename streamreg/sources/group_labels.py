"""Groups of rows that are given as texts or categories in memory: they are numbered."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import ViewReader
from streamreg.sources.packages import package_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.blocks import Array

# labels that are numbered at once: other libraries make an object of each
_ROWS = 1 << 16
_MOST_INT32 = 1 << 31


class GroupLabels(RowSource):
    """Labels in memory, which are numbered when rows are first read: 4 bytes a row."""

    in_memory = fingerprint_reads_all_rows = True

    def __init__(self, labels: Any, shape: tuple[int, ...], name: str) -> None:  # noqa: ANN401
        self._labels = labels
        self.name = name
        self.shape = shape
        self.dtype = np.dtype(np.int32 if shape[0] < _MOST_INT32 else np.int64)
        self.grid = RowGrid(n_rows=shape[0], chunk_rows=max(1, shape[0]), divisible=True)

    @property
    def held_nbytes(self) -> int:
        return self.shape[0] * self.dtype.itemsize

    def open(self) -> Reader:
        return ViewReader(self._numbers)

    def reader_nbytes(self, block_rows: int) -> int:  # noqa: ARG002
        return 0

    @cached_property
    def _numbers(self) -> Array:
        numbers, known = np.empty(self.shape[0], self.dtype), dict[object, int]()
        for start in range(0, len(numbers), _ROWS):
            part = self._labels[start : start + _ROWS]
            numbers[start : start + len(part)] = _numbered(part, known)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise InputError(
                f"groups have no value in row {missing[0]:,}{more}; every row belongs to a group"
            )
        return numbers


def group_labels(data: Any, name: str) -> GroupLabels | None:  # noqa: ANN401
    """Return groups that have to be numbered; None if they can be read as they are."""
    package = package_of(data)
    if package in {"pandas", "polars", "pyarrow"} and hasattr(data, "__len__"):
        data = _one_column(data)
        # slices of a series of pandas may be of its index, those of its array are of rows
        data = getattr(data, "array", data)
        return GroupLabels(data, (len(data),), name)
    if isinstance(data, list | tuple):
        is_flat = not len(data) or np.asarray(data[:1], object).ndim == 1
        return GroupLabels(data, (len(data),) if is_flat else np.asarray(data, object).shape, name)
    if isinstance(data, np.ndarray) and data.dtype.kind in "OUSM" and data.ndim:
        return GroupLabels(data, data.shape, name)
    return None


def _one_column(data: Any) -> Any:  # noqa: ANN401
    """Return the only column of a frame or table; a series as it is."""
    shape: tuple[int, ...] = getattr(data, "shape", (len(data),))
    if len(shape) == 1:
        return data
    if shape[1] != 1:
        raise InputError(
            f"groups have {shape[1]:,} columns; each row belongs to one group, so pass one column"
        )
    if hasattr(data, "iloc"):
        return data.iloc[:, 0]
    # of pyarrow and of polars
    return data.column(0) if hasattr(data, "column") else data.to_series()


def _numbered(labels: Any, known: dict[object, int]) -> Any:  # noqa: ANN401
    """Return the numbers of labels, -1 for missing ones; new labels are added to ``known``."""
    if hasattr(labels, "factorize"):
        numbers, levels = labels.factorize()
        # with the number of missing ones last
        of_levels = [*_each(levels, known), -1]
        return np.asarray(of_levels)[numbers]
    values = labels if isinstance(labels, np.ndarray) else np.asarray(labels, object)
    return np.fromiter(_each(values, known), np.int64, len(values))


def _each(values: Iterable[object], known: dict[object, int]) -> Iterator[int]:
    """Yield numbers of labels; those that cannot be compared are refused."""
    try:
        for value in values:
            # a missing value is None, or does not equal itself
            is_missing = value is None or value != value  # noqa: PLR0124
            yield -1 if is_missing else known.setdefault(value, len(known))
    except TypeError as error:
        raise InputError(f"groups hold {error}; pass numbers or texts") from error
