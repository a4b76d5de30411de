"""Batches of columns to rows of X."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamreg.errors import InputError, Remedy
from streamreg.sources.tables.survey import place, texts_of, vectors
from streamreg.sources.tables.values import as_floats, loses_digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.blocks import Float64
    from streamreg.sources.tables.schema import Feature
    from streamreg.sources.tables.table import Table

# rows that are written column by column while they are in the processor's cache
_TILE_ROWS = 512
_TRUTHS = {"true", "false"}


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
        incomplete = None
        column = 0
        for feature in self._features:
            values = batch.column(feature.name)
            if feature.levels is not None:
                missing = self._one_hot(feature, values, rows[:, column:], start)
                incomplete = missing if incomplete is None else incomplete | missing
            elif feature.width is not None:
                rows[:, column : column + feature.width] = vectors(
                    self._table.store, feature.name, values, feature.width, start
                )
            else:
                numbers[column] = as_floats(values)
                if not self.has_rounded:
                    self.has_rounded = loses_digits(values, numbers[column])
            column += feature.n_columns
        for low in range(0, len(rows), _TILE_ROWS):
            part = slice(low, low + _TILE_ROWS)
            tile = rows[part]
            for at, values in numbers.items():
                tile[:, at] = values[part]
        if incomplete is not None and incomplete.any():
            # also for a feature without a column: a row is used if all its values are known
            rows[incomplete, 0] = np.nan

    def _one_hot(self, feature: Feature, values: pa.Array, rows: Float64, start: int) -> Float64:
        """Write zeros and ones; return a mask (n,) of the rows without a value."""
        levels = self._levels[feature.name]
        known = feature.levels or ()
        texts = texts_of(self._table.store, feature.name, values)
        codes = pc.index_in(texts, value_set=levels)
        if _TRUTHS >= {text.lower() for text in known}:
            # pandas writes True to CSV, Arrow true
            lower = pa.array([text.lower() for text in known])
            codes = pc.index_in(pc.utf8_lower(texts), value_set=lower)
        missing = texts.is_null().to_numpy(zero_copy_only=False)
        numbers = codes.fill_null(-1).to_numpy(zero_copy_only=False)
        unknown = (numbers < 0) & ~missing
        if unknown.any() and self._table.unknown_levels == "error":
            row = int(np.argmax(unknown))
            raise InputError(
                f"column {feature.name} of {self._table.name} has the level {texts[row].as_py()!r} "
                f"in {place(self._table.store, start + row)}, which the schema does not know: it "
                f"has {_some(known)}. Correct it, or pass ",
                Remedy("unknown_levels", "zeros"),
                f" to use zeros for it, as for the baseline {known[0]!r}",
            )
        width = feature.n_columns
        rows[:, :width] = 0.0
        has_column = np.flatnonzero(numbers > 0)
        rows[has_column, numbers[has_column] - 1] = 1.0
        if width:
            rows[missing, :width] = np.nan
        return missing


def _some(levels: Sequence[str]) -> str:
    more = f" and {len(levels) - 5:,} more" if levels[5:] else ""
    return ", ".join(map(repr, levels[:5])) + more
