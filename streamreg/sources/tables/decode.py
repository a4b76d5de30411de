"""Batches of columns to rows of X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import types

from streamreg.errors import InputError, Remedy
from streamreg.kernels.gather import Columns
from streamreg.sources.tables.levels import numbers_of_levels
from streamreg.sources.tables.survey import numbers_of, place, texts_of, vectors
from streamreg.sources.tables.values import as_stored, loses_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamreg.blocks import Array, Float64
    from streamreg.schema import Feature
    from streamreg.sources.tables.table import Table

# rows in which missing values are looked for at once
_TILE_ROWS = 512


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows of a table, in columns that are ready to be written as rows of X (n, D)."""

    n_rows: int
    numbers: Columns
    vectors: dict[int, Float64]  # by the number of the first column: (n, width)
    levels: dict[int, tuple[int, NDArray[np.int32]]]  # the number of columns, and codes (n,)
    missing: dict[int, NDArray[np.bool_]]  # by the number of a column: (n,) rows without a value

    def write(self, start: int, rows: Float64) -> None:
        """Write row ``start`` and those after it to ``rows`` (m, D); a missing value is NaN."""
        part = slice(start, start + len(rows))
        self.numbers.write(start, rows)
        for column, values in self.vectors.items():
            rows[:, column : column + values.shape[1]] = values[part]
        for column, (width, codes) in self.levels.items():
            _write_levels(rows[:, column : column + width], codes[part])
        for column, missing in self.missing.items():
            rows[missing[part], column] = np.nan


class Decoder:
    """Prepares features of a table to be written as the columns of X."""

    def __init__(self, table: Table, features: Sequence[Feature]) -> None:
        self._table = table
        self._features = features
        self._n_columns = sum(feature.n_columns for feature in features)
        self._levels = {
            feature.name: pa.array(list(feature.levels), pa.string())
            for feature in features
            if feature.levels is not None
        }
        # whether an integer beyond 2**53 was rounded
        self.has_rounded = False

    def prepare(self, batch: pa.RecordBatch, start: int) -> Piece:
        """Return a batch (n rows) as a piece; ``start`` is the number of its first row."""
        numbers: dict[int, Array] = {}
        wide: dict[int, Float64] = {}
        levels: dict[int, tuple[int, NDArray[np.int32]]] = {}
        absent: dict[int, NDArray[np.bool_]] = {}
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]] = {}
        column = 0
        for feature in self._features:
            values = batch.column(feature.name)
            if feature.levels is not None:
                codes, missing = self.codes(feature, values)
                if missing is not None:
                    # a row without a level of a feature that has no column is marked in the first
                    marked = column if feature.n_columns else 0
                    absent[marked] = absent[marked] | missing if marked in absent else missing
                if codes.size and codes.min() < 0:
                    mask = codes < 0 if missing is None else (codes < 0) & ~missing
                    if mask.any():
                        unknown[feature.name] = mask, values
                levels[column] = feature.n_columns, codes
            elif feature.width is not None:
                wide[column] = vectors(
                    self._table.store, feature.name, values, feature.width, start
                )
            else:
                numbers[column] = self.numbers(feature.name, values, start)
            column += feature.n_columns
        piece = Piece(len(batch), Columns(numbers), wide, levels, absent)
        if unknown and self._table.unknown_levels == "error":
            incomplete = self._incomplete(piece)
            left_out = self.require_known(unknown, incomplete, start)
            absent[0] = incomplete | left_out
        return piece

    def numbers(self, name: str, values: pa.Array, start: int) -> Array:
        """Return numbers (n,): as stored if none is missing, else as float64."""
        found = as_stored(values)
        if found is None:
            found = numbers_of(self._table.store, name, values, start)
        if not self.has_rounded:
            self.has_rounded = loses_digits(values, found)
        return found

    def codes(
        self, feature: Feature, values: pa.Array
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
        """Return the numbers of levels (n,), -1 for others; and which are missing, if any is."""
        if types.is_dictionary(values.type) and 0 < len(values.dictionary) <= len(values):
            # a text that occurs often is looked up once
            codes, gaps = self.codes(feature, values.dictionary)
            at = values.indices.fill_null(0).to_numpy(zero_copy_only=False)
            absent = None if gaps is None else gaps[at]
            if values.indices.null_count:
                is_null = values.indices.is_null().to_numpy(zero_copy_only=False)
                absent = is_null if absent is None else absent | is_null
            return codes[at], absent
        texts = texts_of(self._table.store, feature.name, values)
        absent = texts.is_null().to_numpy(zero_copy_only=False) if texts.null_count else None
        found = numbers_of_levels(texts, self._levels[feature.name])
        return found.fill_null(-1).to_numpy(zero_copy_only=False), absent

    def _incomplete(self, piece: Piece) -> NDArray[np.bool_]:
        """Return which rows (n,) lack a value."""
        incomplete = np.empty(piece.n_rows, bool)
        for start in range(0, piece.n_rows, _TILE_ROWS):
            part = incomplete[start : start + _TILE_ROWS]
            rows = np.empty((len(part), self._n_columns))
            piece.write(start, rows)
            part[...] = np.isnan(rows).any(axis=1)
        return incomplete

    def require_known(
        self,
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]],
        incomplete: NDArray[np.bool_],
        start: int,
    ) -> NDArray[np.bool_]:
        """Return a mask (n,) of the rows with unknown levels, if they are left out anyway.

        Otherwise raise ``InputError``, which names the first of them.
        """
        table, left_out = self._table, np.zeros(len(incomplete), bool)
        for name, (mask, values) in unknown.items():
            left_out |= mask
            # rows that were left out when the levels were found may have others
            if (table.found is not None and table.schema.drop_missing) or not (
                mask & ~incomplete
            ).any():
                continue
            row = int(np.argmax(mask & ~incomplete))
            known = next(each.levels or () for each in self._features if each.name == name)
            level = texts_of(table.store, name, values.slice(row, 1))[0]
            raise InputError(
                f"column {name} of {table.name} has the level {level.as_py()!r} in "
                f"{place(table.store, start + row)}, which the schema does not know: it has "
                f"{_some(known)}. Correct it, or pass ",
                Remedy("unknown_levels", "zeros"),
                f" to use zeros for it, as for the baseline {known[0]!r}",
            )
        return left_out


def _write_levels(rows: Float64, codes: NDArray[np.int32]) -> None:
    """Write zeros, and a one in the column of each row's level; the baseline has no column."""
    rows[...] = 0.0
    has_column = np.flatnonzero(codes > 0)
    rows[has_column, codes[has_column] - 1] = 1.0


def _some(levels: Sequence[str]) -> str:
    more = f" and {len(levels) - 5:,} more" if levels[5:] else ""
    return ", ".join(map(repr, levels[:5])) + more
