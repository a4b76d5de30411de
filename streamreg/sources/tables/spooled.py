"""Sparse rows of a table in temporary files without names, from which any rows can be read."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.csr import Csr, CsrSource
from streamreg.sources.in_memory import open_rows
from streamreg.sources.memmap import MemmapSource
from streamreg.sources.tables.nameless_file import NamelessFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from streamreg.blocks import Array, Float64, Int64
    from streamreg.sources.base import RowSource

_COPIED = 1 << 20


class SparsePart(NamedTuple):
    """Some rows of X."""

    values: Float64  # (m,)
    indices: NDArray[np.int32]  # (m,) the column of each value
    bounds: Int64  # (n + 1,) from 0 to m
    is_float32: bool  # whether float32 holds all values

    def incomplete(self) -> NDArray[np.bool_]:
        """Return which rows (n,) have a missing value."""
        found = np.zeros(len(self.bounds) - 1, bool)
        bad = np.flatnonzero(np.isnan(self.values))
        found[np.searchsorted(self.bounds, bad, side="right") - 1] = True
        return found

    def taken(self, keep: NDArray[np.bool_]) -> SparsePart:
        """Return the rows that a mask (n,) selects."""
        lengths = np.diff(self.bounds)
        stored = np.repeat(keep, lengths)
        bounds = np.concatenate([[0], np.cumsum(lengths[keep])])
        return SparsePart(self.values[stored], self.indices[stored], bounds, self.is_float32)


class SpooledArray:
    """Numbers in a temporary file."""

    def __init__(self, dtype: Any, folder: Path | None = None) -> None:  # noqa: ANN401
        self.dtype = np.dtype(dtype)
        self._folder = folder
        self._file = NamelessFile(folder)
        self.length = 0

    def append(self, values: Array) -> None:
        """Add numbers (n,)."""
        try:
            with self._file.path.open("ab") as file:
                file.write(np.ascontiguousarray(values, self.dtype).data)
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise InputError(
                f"the temporary copy of the table in {where} cannot be written: "
                f"{error.strerror or error}. Set TMPDIR to a folder with more space, or ingest the "
                "table"
            ) from error
        self.length += len(values)

    def source(self, name: str) -> RowSource:
        """Return the numbers as rows; nothing can be added afterwards."""
        if not self.length:
            return open_rows(np.empty(0, self.dtype), name, "error")
        mapped = np.memmap(self._file.path, self.dtype, "r")
        source = MemmapSource(mapped, name, mapped)
        # NumPy tells the name that the file had; by its descriptor it is read, and mapped pages,
        # which would count as memory of the process, stay unused
        source.path = self._file.path
        # the file is open as long as the source is used
        vars(source)["file"] = self._file
        return source

    def widened(self) -> SpooledArray:
        """Return the same numbers as float64."""
        wide = SpooledArray(np.float64, self._folder)
        with self._file.path.open("rb") as file:
            while len(piece := np.fromfile(file, self.dtype, _COPIED)):
                wide.append(piece)
        return wide


def spooled(parts: Iterable[SparsePart], name: str, folder: Path | None = None) -> Csr:
    """Write rows to temporary files; values are float32 if it holds all of them."""
    values, indices = SpooledArray(np.float32, folder), SpooledArray(np.int32, folder)
    bounds = SpooledArray(np.int64, folder)
    bounds.append(np.zeros(1, np.int64))
    for part in parts:
        if not part.is_float32 and values.dtype == np.float32:
            values = values.widened()
        bounds.append(part.bounds[1:] + values.length)
        values.append(part.values)
        indices.append(part.indices)
    named = (("data", values), ("indices", indices), ("indptr", bounds))
    return Csr(*(array.source(f"{what} of {name}") for what, array in named))


class SpooledRows(CsrSource):
    """Sparse rows of a table, with the identity of its files."""

    def __init__(
        self,
        arrays: Csr,
        n_columns: int,
        name: str,
        *,
        paths: list[Path],
        require_unchanged: Callable[[], None],
        storage: str,
        place: Callable[[int, int], str] | None = None,
    ) -> None:
        super().__init__(arrays, n_columns, None, name)
        self._place = place
        self._paths, self._require_unchanged = paths, require_unchanged
        self.storage = storage
        # without files the rows are a frame's
        self.fingerprint_reads_all_rows = not paths

    def local_paths(self) -> list[Path]:
        return self._paths

    def place(self, row: int, column: int = 0) -> str:
        return super().place(row, column) if self._place is None else self._place(row, column)

    def require_unchanged(self) -> None:
        self._require_unchanged()
