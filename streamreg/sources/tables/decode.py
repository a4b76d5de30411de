"""Batches of columns to rows of X."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streamreg.errors import InputError, Remedy
from streamreg.sources.tables.levels import numbers_of_levels
from streamreg.sources.tables.survey import numbers_of, place, texts_of, vectors
from streamreg.sources.tables.values import loses_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamreg.blocks import Float64
    from streamreg.schema import Feature
    from streamreg.sources.tables.table import Table

# rows that are written column by column while they are in the processor's cache
_TILE_ROWS = 512


class Decoder:
    """Writes features of a table as the columns of X; a missing value is NaN."""

    def __init__(self, table: Table, features: Sequence[Feature]) -> None:
        self._table = table
        self._features = features
        self._levels = {
            feature.name: pa.array(list(feature.levels), pa.string())
            for feature in features
            if feature.levels is not None
        }
        # whether an integer beyond 2**53 was rounded
        self.has_rounded = False

    def decode(self, batch: pa.RecordBatch, rows: Float64, start: int) -> None:
        """Write a batch (n rows) to ``rows`` (n, D); ``start`` is the number of its first row."""
        numbers: dict[int, Float64] = {}
        incomplete = np.zeros(len(rows), bool)
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]] = {}
        column = 0
        for feature in self._features:
            values = batch.column(feature.name)
            if feature.levels is not None:
                texts = texts_of(self._table.store, feature.name, values)
                codes = self._codes(feature, texts)
                missing = texts.is_null().to_numpy(zero_copy_only=False)
                incomplete |= missing
                if (codes[~missing] < 0).any():
                    unknown[feature.name] = (codes < 0) & ~missing, texts
                _write_levels(rows[:, column : column + feature.n_columns], codes)
            elif feature.width is not None:
                rows[:, column : column + feature.width] = vectors(
                    self._table.store, feature.name, values, feature.width, start
                )
            else:
                numbers[column] = numbers_of(self._table.store, feature.name, values, start)
                if not self.has_rounded:
                    self.has_rounded = loses_digits(values, numbers[column])
            column += feature.n_columns
        for low in range(0, len(rows), _TILE_ROWS):
            part = slice(low, low + _TILE_ROWS)
            tile = rows[part]
            for at, values in numbers.items():
                tile[:, at] = values[part]
        if unknown and self._table.unknown_levels == "error":
            incomplete |= self._require_known(
                unknown, incomplete | np.isnan(rows).any(axis=1), start
            )
        if incomplete.any():
            # also for a feature without a column: a row is used if all its values are known
            rows[incomplete, 0] = np.nan

    def _codes(self, feature: Feature, texts: pa.Array) -> NDArray[np.int32]:
        """Return the numbers of levels (n,), -1 for texts that are none."""
        codes = numbers_of_levels(texts, self._levels[feature.name])
        numbers: NDArray[np.int32] = codes.fill_null(-1).to_numpy(zero_copy_only=False)
        return numbers

    def _require_known(
        self,
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]],
        incomplete: NDArray[np.bool_],
        start: int,
    ) -> NDArray[np.bool_]:
        """Return a mask (n,) of the rows with unknown levels, if they are left out anyway.

        Otherwise raise ``InputError``, which names the first of them.
        """
        table, left_out = self._table, np.zeros(len(incomplete), bool)
        for name, (mask, texts) in unknown.items():
            left_out |= mask
            # rows that were left out when the levels were found may have others
            if (table.found is not None and table.schema.drop_missing) or not (
                mask & ~incomplete
            ).any():
                continue
            row = int(np.argmax(mask & ~incomplete))
            known = next(each.levels or () for each in self._features if each.name == name)
            raise InputError(
                f"column {name} of {table.name} has the level {texts[row].as_py()!r} in "
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
