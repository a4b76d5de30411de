"""X, y and weights of a table: a block at a time, decoded from columns to rows."""

from __future__ import annotations

import threading
import zlib
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from streamreg.errors import InputError, PythonOnly, Remedy
from streamreg.formatting import MIB
from streamreg.sources.base import ArrayGroup, Kind, Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.tables.paths import is_libsvm, is_table

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array, Float64
    from streamreg.schema import Feature, Schema
    from streamreg.sources.csr import Csr
    from streamreg.sources.tables.decode import Piece
    from streamreg.sources.tables.libsvm import LibsvmTable
    from streamreg.sources.tables.table import Table

# of decoded rows that are read at once
_PIECE_NBYTES = 8 * MIB
# held while readers of a selection are counted
_COUNTING = threading.Lock()
# the sparse rows of tables that are in use, and whether an integer was rounded
_ENCODED: WeakKeyDictionary[Table, tuple[Csr, bool]] = WeakKeyDictionary()
_ENCODING = threading.Lock()


_OURS = {"Table", "LibsvmTable", "TableColumns"}


class TableColumns:
    """X, y or sample_weight of a table."""

    def __init__(self, table: Table | LibsvmTable, role: str) -> None:
        self.table = table
        self.role = role

    def source(self) -> RowSource:
        """Return the rows."""
        table: Any = self.table
        if table.schema.first_column is not None:
            source: RowSource = table.sources[self.role]
            return source
        if self.role == "X" and table.schema.is_sparse:
            return _encoded(table)
        return TableSource(table, self.role)


def claims(data: object) -> bool:
    """Whether ``data`` is a table that was opened, a part of one, or the path of one."""
    kind = type(data)
    is_ours = kind.__module__.startswith("streamreg.sources.tables.")
    return (is_ours and kind.__name__ in _OURS) or is_table(data)


def open_rows(data: Any, name: str, _missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return X, y or the weights of a table; a path is refused."""
    if not isinstance(data, TableColumns):
        if name == "groups":
            raise InputError(
                "groups cannot be a table; pass an array (N,): the path of a Zarr array, or a "
                "column of a data frame"
            )
        if not hasattr(data, "schema"):
            raise _is_path(data)
        raise InputError(f"{name} is a table; pass it alone, as X: it has its own y")
    return data.source()


def open_group(data: Any) -> ArrayGroup | None:  # noqa: ANN401
    """Return X, y and the weights of a table."""
    if isinstance(data, TableColumns):
        return None
    if not hasattr(data, "schema"):
        raise _is_path(data)
    return TableGroup(data)


KIND = Kind(claims, open_rows, open_group)


def _is_path(data: object) -> InputError:
    options = "first_column=1" if is_libsvm(data) else "target=…"
    call = f"pass streamreg.read_table({str(data)!r}, {options}), or, to predict, "
    return InputError(
        f"{data} is a table: ",
        PythonOnly(f"{call}read_table(…, like=model); or "),
        "write it as a data set with `streamreg ingest`",
    )


def _encoded(table: Table) -> RowSource:
    """Return X of a table whose rows are sparse; they are encoded once, into temporary files."""
    from streamreg.sources.tables.encode import Encoder  # noqa: PLC0415  (imports pyarrow)
    from streamreg.sources.tables.spooled import SpooledRows, spooled  # noqa: PLC0415

    with _ENCODING:
        if table not in _ENCODED:
            encoder = Encoder(table)
            arrays = spooled(encoder.parts(), table.name)
            table.store.require_unchanged()
            _ENCODED[table] = arrays, encoder.decoder.has_rounded
        arrays, is_rounded = _ENCODED[table]
    rows = SpooledRows(
        arrays,
        table.schema.n_columns,
        table.name,
        paths=table.store.local_paths(),
        require_unchanged=table.store.require_unchanged,
        storage=_storage(table),
        place=partial(_place_encoded, table),
    )
    rows.feature_names = table.schema.feature_names
    rows.is_rounded = is_rounded or bool(table.store.rounded)
    return rows


def _place_encoded(table: Table, row: int, column: int) -> str:
    """Name the row and the column of a table that a column of X is made of."""
    ends = np.cumsum([feature.n_columns for feature in table.schema.features])
    feature = table.schema.features[int(np.searchsorted(ends, column, side="right"))]
    store = table.store
    return f"{feature.name!r} in row {row + store.first_row:,}, where {store.rows_meaning}"


def _storage(table: Table) -> str:
    """Return what distinguishes the rows of a table from those of other schemas."""
    known = f"{table.schema.to_json()} {table.unknown_levels} {table.store.bounds[:1000]}"
    return f"table {zlib.crc32(known.encode()):08x}"


class TableGroup(ArrayGroup):
    """The columns of a table, by their roles."""

    def __init__(self, table: Table | LibsvmTable) -> None:
        self._table = table
        self.schema = table.schema
        self.feature_names = table.schema.feature_names
        self.target_names = table.schema.targets or None
        self.omits_missing = table.schema.drop_missing

    def member(self, name: str, *, optional: bool = False) -> object:
        schema = self._table.schema
        is_absent = (name == "y" and not schema.targets) or (
            name == "sample_weight" and schema.weight is None
        )
        if not is_absent:
            return TableColumns(self._table, name)
        if optional:
            return None
        raise InputError(
            f"{self._table.name} was opened without a target: name its column with ",
            Remedy("target"),
        )


class TableSource(RowSource):
    """X (N, D), y (N,) or (N, K), or weights (N,), as float64."""

    why_unreachable_from_workers = (
        "is a table, which this process reads; write it as a data set with streamreg ingest"
    )

    def __init__(self, table: Table, role: str) -> None:
        schema = table.schema
        self.table, self._role = table, role
        self.dtype = np.dtype(np.float64)
        store = table.store
        n_columns = {"X": schema.n_columns, "y": len(schema.targets), "sample_weight": 1}[role]
        is_matrix = role == "X" or n_columns > 1
        self.shape = (store.n_rows, n_columns) if is_matrix else (store.n_rows,)
        # its readers hold columns, of which kernels take some rows at a time
        self.is_in_files = role == "X"
        self.name = store.name if role == "X" else f"{role} of {store.name}"
        # The pieces of X, so that they end at the same rows. Pieces of sparse X, of 2^20 columns
        # perhaps, would be single rows, whose bounds take 40 bytes.
        width = n_columns if schema.is_sparse else schema.n_columns
        self.piece_rows = max(1, _PIECE_NBYTES // (8 * width))
        bounds = store.pieces(self.piece_rows)
        self.grid = RowGrid(store.n_rows, max(b - a for a, b in pairwise(bounds)), bounds)
        self.storage = _storage(table)
        self.is_rounded = role == "X" and bool(store.rounded)
        self.advice_for_many_passes = store.advice_for_many_passes
        self.columns = self._columns(schema)
        self._selection: Any = None

    def open(self) -> Reader:
        with _COUNTING:
            if self._selection is None:
                self._selection = self.table.store.select(self.columns, self.piece_rows)
            self._selection.n_readers += 1
            return _TableReader(self, self._selection)

    def reader_nbytes(self, block_rows: int) -> int:
        return block_rows * self.row_nbytes + self.columns_nbytes(block_rows)

    def columns_nbytes(self, block_rows: int) -> int:
        each, _ = self.table.store.selection_nbytes(self.columns, self.piece_rows)
        # columns that are not used as they are stored, and values of a column in several forms
        return each + 8 * len(self.columns) * block_rows + 64 * block_rows

    @property
    def shared_nbytes(self) -> int:
        return self.table.store.selection_nbytes(self.columns, self.piece_rows)[1]

    def local_paths(self) -> list[Path]:
        return self.table.store.local_paths()

    @property
    def fingerprint_reads_all_rows(self) -> bool:  # type: ignore[override]
        """Whether no file tells the version of the rows, because they are a frame's."""
        return not self.table.store.local_paths()

    def require_unchanged(self) -> None:
        self.table.store.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:  # noqa: ARG002
        store = self.table.store
        return f"row {row + store.first_row:,} of {store.name}, where {store.rows_meaning}"

    def describe(self) -> dict[str, Any]:
        store = self.table.store
        return {"chunks": f"{len(store.bounds) - 1:,} parts", "codecs": type(store).__name__}

    def _columns(self, schema: Schema) -> list[str]:
        if self._role == "X":
            return [feature.name for feature in schema.features]
        return list(schema.targets) if self._role == "y" else [str(schema.weight)]

    @property
    def features(self) -> list[Feature]:
        """How each of the columns is read."""
        from streamreg.schema import Feature  # noqa: PLC0415

        if self._role == "X":
            return list(self.table.schema.features)
        return [Feature(name) for name in self.columns]


class _TableReader(Reader):
    """Holds the pieces of a block in columns, and writes some of their rows at a time."""

    def __init__(self, source: TableSource, selection: Any) -> None:  # noqa: ANN401
        from streamreg.sources.tables.decode import Decoder  # noqa: PLC0415  (imports pyarrow)

        self._source = source
        self._selection = selection
        self._buffer = RowBuffer((source.shape[1] if len(source.shape) > 1 else 1,), source.dtype)
        self._decoder = Decoder(source.table, source.features)
        # the first row of each piece, and the row after the last
        self._bounds: list[int] = [0]
        self._pieces: list[Piece] = []

    def read(self, start: int, stop: int) -> Array:
        if not (self._bounds[0] <= start and stop <= self._bounds[-1]):
            self.parts(start, stop)
        rows: Float64 = self._buffer.rows(stop - start)
        for (first, last), piece in zip(pairwise(self._bounds), self._pieces, strict=True):
            low, high = max(first, start), min(last, stop)
            if low < high:
                piece.write(low - first, rows[low - start : high - start])
        return rows if len(self._source.shape) > 1 else rows[:, 0]

    def parts(self, start: int, stop: int) -> None:
        """Read the columns of these rows, from which ``read`` then makes rows."""
        # freed first, so that two blocks never coexist
        self._bounds, self._pieces = [start], []
        for batch in self._selection.read(start, stop):
            self._pieces.append(self._decoder.prepare(batch, self._bounds[-1]))
            self._bounds.append(self._bounds[-1] + len(batch))
        if self._decoder.has_rounded:
            self._source.is_rounded = True

    def close(self) -> None:
        self._bounds, self._pieces = [0], []
        with _COUNTING:
            self._selection.n_readers -= 1
            if not self._selection.n_readers:
                self._selection.close()
