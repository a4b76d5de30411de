"""Batches of columns to sparse rows of X: numbers, levels, hashed values and texts."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pyarrow import types

from streamreg.formatting import MIB
from streamreg.kernels.hashing import HashedTokens, hash_texts, hash_values, tidy
from streamreg.sources.tables.decode import Decoder
from streamreg.sources.tables.levels import one_spelling
from streamreg.sources.tables.spooled import SparsePart
from streamreg.sources.tables.store import width
from streamreg.sources.tables.survey import texts_of, vectors
from streamreg.sources.tables.values import as_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from streamreg.blocks import Float64
    from streamreg.schema import Feature, Hashing
    from streamreg.sources.tables.table import Table

# of columns that are read at once; of texts, whose length is unknown, this many rows
_BATCH_NBYTES, _TEXT_ROWS = 2 * MIB, 4096


class _Entries(NamedTuple):
    """The values of n rows in the columns that one feature becomes."""

    columns: NDArray[np.int32]  # (n, width), or (m,)
    values: Float64  # the same shape
    stored: NDArray[np.bool_] | None = None  # (n, width) which of them; None: all
    bounds: NDArray[np.int64] | None = None  # (n + 1,) of rows, if they have unequal numbers

    def is_stored(self) -> NDArray[np.bool_]:
        """Return which values (n, width) are stored."""
        return np.ones(self.values.shape, bool) if self.stored is None else self.stored


class Encoder:
    """Makes sparse rows of the columns of a table.

    Numbers are stored also where they are 0, so that a column is centred as it is stored. A row
    with a missing value has a NaN.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._features = list(zip(table.schema.features, table.schema.places, strict=True))
        self.decoder = Decoder(table, table.schema.features)
        self.columns = [feature.name for feature in table.schema.features]
        hashings = table.schema.hashed.values()
        kinds = (table.store.schema.field(name).type for name in self.columns)
        # rows that are read at once
        self.piece_rows = max(1, _BATCH_NBYTES // sum(map(width, kinds)))
        if any(each.is_text for each in hashings):
            self.piece_rows = min(self.piece_rows, _TEXT_ROWS)

    def parts(self) -> Iterator[SparsePart]:
        """Yield all rows of X."""
        store = self._table.store
        with closing(store.select(self.columns, self.piece_rows)) as selection:
            for start, stop in pairwise(store.pieces(self.piece_rows)):
                first = start
                for batch in selection.read(start, stop):
                    yield self.encoded(batch, first)
                    first += len(batch)

    def encoded(self, batch: pa.RecordBatch, start: int) -> SparsePart:
        """Return a batch as rows of X; ``start`` is the number of its first row."""
        entries: list[_Entries] = []
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]] = {}
        for feature, place in self._features:
            values = batch.column(feature.name)
            if feature.hashing is not None:
                entries.append(self._hashed(feature.name, feature.hashing, place, values))
            elif feature.levels is not None:
                entries.append(self._levels(feature, place, values, unknown))
            elif feature.width is not None:
                store = self._table.store
                wide = vectors(store, feature.name, values, feature.width, start)
                columns = np.arange(place, place + feature.width, dtype=np.int32)
                entries.append(_Entries(np.broadcast_to(columns, wide.shape), wide))
            else:
                numbers = self.decoder.numbers(feature.name, values, start)
                entries.append(_one_each(place, np.asarray(numbers, np.float64)))
        if unknown and self._table.unknown_levels == "error":
            left_out = self.decoder.require_known(unknown, _with_nan(entries, len(batch)), start)
            gaps = np.where(left_out, np.nan, 0.0)
            entries.append(_one_each(self._features[0][1], gaps, stored=left_out))
        columns, values, bounds = tidy(_joined(entries, len(batch)))
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        is_float32 = bool(((narrow == values) | np.isnan(values)).all())
        return SparsePart(values, columns, bounds, is_float32)

    def _hashed(self, name: str, hashing: Hashing, place: int, values: pa.Array) -> _Entries:
        if hashing.analyzer is not None:
            tokens = hash_texts(
                as_texts(values), hashing.bits, analyzer=hashing.analyzer, ngrams=hashing.ngrams
            )
            return _Entries(tokens.columns + np.int32(place), tokens.values, bounds=tokens.bounds)
        if types.is_dictionary(values.type) and 0 < len(values.dictionary) <= len(values):
            # a text that occurs often is hashed once
            found = self._hashed(name, hashing, place, values.dictionary)
            at = values.indices.fill_null(0).to_numpy(zero_copy_only=False)
            columns, signs = found.columns[at, 0], found.values[at, 0]
            missing = values.indices.is_null().to_numpy(zero_copy_only=False)
        else:
            texts = texts_of(self._table.store, name, values)
            hashed = hash_values(texts, f"{name}=", hashing.bits)
            if hashed.is_respelled:
                hashed = hash_values(one_spelling(texts), f"{name}=", hashing.bits)
            columns, signs = hashed.columns + np.int32(place), hashed.signs
            missing = texts.is_null().to_numpy(zero_copy_only=False) if texts.null_count else None
        if missing is not None and missing.any():
            signs = np.where(missing, np.nan, signs)
            columns = np.where(missing, np.int32(place), columns)
        return _Entries(columns[:, None], signs[:, None])

    def _levels(
        self,
        feature: Feature,
        place: int,
        values: pa.Array,
        unknown: dict[str, tuple[NDArray[np.bool_], pa.Array]],
    ) -> _Entries:
        codes, missing = self.decoder.codes(feature, values)
        stored = codes > 0
        ones = stored.astype(np.float64)
        columns = np.where(stored, codes + (place - 1), place).astype(np.int32)
        is_unknown = codes < 0
        if missing is not None:
            ones[missing], columns[missing] = np.nan, place
            stored |= missing
            is_unknown &= ~missing
        if is_unknown.any():
            unknown[feature.name] = is_unknown, values
        return _Entries(columns[:, None], ones[:, None], stored[:, None])


def _one_each(place: int, values: Float64, stored: NDArray[np.bool_] | None = None) -> _Entries:
    columns = np.full((len(values), 1), place, np.int32)
    return _Entries(columns, values[:, None], None if stored is None else stored[:, None])


def _with_nan(entries: list[_Entries], n_rows: int) -> NDArray[np.bool_]:
    """Return which rows (n,) have a missing value."""
    incomplete = np.zeros(n_rows, bool)
    for each in entries:
        if each.bounds is None:
            incomplete |= np.isnan(each.values).any(axis=1)
    return incomplete


def _joined(entries: list[_Entries], n_rows: int) -> HashedTokens:
    """Return the entries of several features, row by row."""
    if len(entries) == 1 and entries[0].bounds is not None:
        return HashedTokens(entries[0].columns, entries[0].values, entries[0].bounds)
    equal = [each for each in entries if each.bounds is None]
    none = np.empty((n_rows, 0))
    columns = np.hstack([none.astype(np.int32), *(each.columns for each in equal)])
    values = np.hstack([none, *(each.values for each in equal)])
    lengths = np.full(n_rows, columns.shape[1])
    if any(each.stored is not None for each in equal):
        stored = np.hstack([each.is_stored() for each in equal])
        columns, values, lengths = columns[stored], values[stored], stored.sum(axis=1)
    # each row has the values of the first, then those of the second, …
    pieces = [(columns.ravel(), values.ravel(), lengths)]
    pieces.extend(
        (each.columns, each.values, np.diff(each.bounds))
        for each in entries
        if each.bounds is not None
    )
    if len(pieces) == 1:
        return HashedTokens(*pieces[0][:2], _bounds(lengths))
    bounds = _bounds(np.sum([each[2] for each in pieces], axis=0))
    all_columns, all_values = np.empty(bounds[-1], np.int32), np.empty(bounds[-1])
    first = bounds[:-1].copy()
    for of_columns, of_values, of_lengths in pieces:
        own = _bounds(of_lengths)
        at = np.repeat(first - own[:-1], of_lengths) + np.arange(own[-1])
        all_columns[at], all_values[at] = of_columns, of_values
        first += of_lengths
    return HashedTokens(all_columns, all_values, bounds)


def _bounds(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
