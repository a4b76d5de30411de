"""What the rows of a table tell before they are used: levels, missing values, counters."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import types

from streamreg.errors import InputError, Message, Remedy
from streamreg.formatting import MIB, count
from streamreg.sources.tables.levels import in_order, one_spelling, require_few
from streamreg.sources.tables.roles import IGNORE_COLUMN, MAX_NAMED, infinite_values
from streamreg.sources.tables.values import (
    NotNumbersError,
    as_floats,
    as_texts,
    is_vector,
    loses_digits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from streamreg.blocks import Float64
    from streamreg.sources.tables.store import Store

BATCH_NBYTES = 2 * MIB
_FIRST_LISTS = 64


class Survey(NamedTuple):
    """The result of a pass over some columns."""

    n_rows: int
    n_complete: int  # rows without a missing value in these columns
    levels: dict[str, tuple[str, ...]]
    rounded: list[str]


def survey(  # noqa: C901  (each column is looked at in one loop)
    store: Store,
    columns: Sequence[str],
    one_hot: Sequence[str],
    *,
    hashed: Collection[str] = (),
    weight: str | None = None,
    drop_missing: bool,
    requires_values: bool = False,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Survey:
    """Read ``columns`` once: levels of ``one_hot``, missing values, and what no fit can use.

    Of ``hashed`` columns any value will do. With ``drop_missing``, levels count only in rows that
    are complete; else a missing value is an ``InputError`` if ``requires_values``. So are infinite
    values and negative weights.
    """
    levels: dict[str, set[str]] = {name: set() for name in one_hot}
    n_missing, first_missing = np.zeros((2, len(columns)), dtype=int)  # of each column
    rounded: set[str] = set()
    n_rows = n_complete = 0
    for batch in batches(store, columns):
        missing = np.zeros((len(batch), len(columns)), bool)
        texts: dict[str, pa.Array] = {}
        infinite: dict[str, tuple[str, int]] = {}
        for at, name in enumerate(columns):
            column = batch.column(name)
            if name in levels:
                texts[name] = texts_of(store, name, column)
                missing[:, at] = texts[name].is_null().to_numpy(zero_copy_only=False)
                continue
            if name in hashed:
                found_texts = texts_of(store, name, column)
                missing[:, at] = found_texts.is_null().to_numpy(zero_copy_only=False)
                continue
            values = numbers_of(store, name, column, n_rows)
            if np.isinf(values).any():
                row = int(np.argwhere(np.isinf(values))[0][0])
                infinite[name] = str(values[row]), n_rows + row
            if name == weight:
                _require_weights(store, name, values, n_rows)
            gaps = np.isnan(values)
            missing[:, at] = gaps.any(axis=1) if gaps.ndim > 1 else gaps
            if values.ndim == 1 and loses_digits(column, values):
                rounded.add(name)
        if infinite:
            raise infinite_values(store.name, infinite, store.first_row, store.rows_meaning)
        complete = ~missing.any(axis=1)
        for name, found in texts.items():
            counted = found.filter(pa.array(complete)) if drop_missing else found.drop_null()
            levels[name].update(one_spelling(counted.unique()).to_pylist())
        new = (n_missing == 0) & missing.any(axis=0)
        first_missing[new] = n_rows + missing[:, new].argmax(axis=0)
        n_missing += missing.sum(axis=0)
        n_rows += len(batch)
        n_complete += int(complete.sum())
        for name, known in levels.items():
            require_few(name, known, store.name, n_rows)
        on_rows(len(batch))
    if requires_values and n_missing.any() and not (drop_missing and n_complete):
        found_gaps = zip(columns, n_missing.tolist(), first_missing.tolist(), strict=True)
        lacking = {name: (n, row) for name, n, row in found_gaps if n}
        raise _lacking(store, lacking, n_rows, n_complete)
    ordered = {name: in_order(found) for name, found in levels.items()}
    return Survey(n_rows, n_complete, ordered, sorted(rounded | store.rounded))


def counting_columns(store: Store, candidates: Sequence[str]) -> list[str]:
    """Return the columns of integers that only count rows, from 0 or 1.

    A column is read until a row disagrees.
    """
    if store.counters is not None:
        return [name for name in candidates if name in store.counters]
    found = []
    for name in candidates:
        if not types.is_integer(store.schema.field(name).type):
            continue
        row, first = 0, None
        for batch in batches(store, [name]):
            column = batch.column(0)
            if column.null_count:
                break
            values = column.to_numpy(zero_copy_only=False)
            first = int(values[0]) if first is None else first
            if first not in {0, 1} or not np.array_equal(
                values, np.arange(first + row, first + row + len(values))
            ):
                break
            row += len(batch)
        if row == store.n_rows:
            found.append(name)
    return found


def width_of(store: Store, name: str) -> int:
    """Return the length of the lists in a column, that of its first list."""
    kind = store.schema.field(name).type
    if types.is_fixed_size_list(kind):
        return int(kind.list_size)
    # few at a time, because lists of unknown length may be long
    for batch in _pieces(store, [name], _FIRST_LISTS):
        values = batch.column(0).drop_null()
        if len(values):
            return len(values[0])
    raise InputError(
        f"column {name} of {store.name} has no list; leave it out with ", Remedy("ignore", name)
    )


def batches(store: Store, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield all rows of some columns, some MiB at a time."""
    lists = [name for name in columns if is_vector(store.schema.field(name).type)]
    n_numbers = len(columns) + sum(width_of(store, name) for name in lists)
    yield from _pieces(store, columns, max(1, BATCH_NBYTES // (8 * n_numbers)))


def _pieces(store: Store, columns: Sequence[str], step: int) -> Iterator[pa.RecordBatch]:
    bounds = store.pieces(step)
    with closing(store.select(columns, step)) as selection:
        for start, stop in pairwise(bounds):
            yield from selection.read(start, stop)


def texts_of(store: Store, name: str, column: pa.Array) -> pa.Array:
    """Return a one-hot column as texts; an ``InputError`` if it cannot be."""
    try:
        return as_texts(column)
    except pa.ArrowException as error:
        raise InputError(
            f"column {name} of {store.name} holds {column.type}, which cannot be one-hot "
            f"encoded ({error}); leave it out with ",
            Remedy("ignore", name),
        ) from error


def vectors(store: Store, name: str, column: pa.Array, width: int, start: int) -> Float64:
    """Return lists of numbers (n, width); null is NaN. Other lengths are an ``InputError``."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    if types.is_fixed_size_list(column.type):
        lengths = np.where(valid, column.type.list_size, 0)
        values = as_floats(column.flatten())
    else:
        lengths = np.where(valid, column.value_lengths().fill_null(0).to_numpy(), 0)
        values = as_floats(column.flatten())
    wrong = np.flatnonzero(valid & (lengths != width))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"column {name} of {store.name} has lists of {width:,} numbers, but one of "
            f"{lengths[row]:,} in {place(store, start + row)}; make them equal, or leave it "
            "out with ",
            Remedy("ignore", name),
        )
    if valid.all():
        return values.reshape(-1, width)
    out = np.full((len(column), width), np.nan)
    out[valid] = values.reshape(-1, width)
    return out


def place(store: Store, row: int) -> str:
    """Return what a row is called."""
    return f"row {row + store.first_row:,} ({store.rows_meaning})"


def numbers_of(store: Store, name: str, column: pa.Array, start: int) -> Float64:
    """Return numbers (n,), or lists of them (n, width); other values are an ``InputError``."""
    if is_vector(column.type):
        found = column.drop_null()
        return vectors(store, name, column, len(found[0]) if len(found) else 1, start)
    try:
        return as_floats(column)
    except NotNumbersError as error:
        row, value = error.args
        raise InputError(
            f"column {name} of {store.name} holds {str(value)[:40]!r} in "
            f"{place(store, start + row)}, which is not a number"
        ) from error


def _require_weights(store: Store, name: str, values: Float64, start: int) -> None:
    if (values < 0).any():
        row = int(np.argmax(values < 0))
        raise InputError(
            f"{store.name} has sample weights below 0: {name} ({str(values[row])!r} in row "
            f"{start + row + store.first_row:,}); {store.rows_meaning}. Correct them, or write 0 "
            "for rows that shall not count"
        )


def _lacking(
    store: Store, gaps: Mapping[str, tuple[int, int]], n_rows: int, n_complete: int
) -> InputError:
    # columns with the most missing values first
    order = sorted(gaps, key=lambda name: -gaps[name][0])[:MAX_NAMED]
    listed = ", ".join(
        f"{name} ({gaps[name][0]:,}, first in row {gaps[name][1] + store.first_row:,})"
        for name in order
    )
    cure: str = "No row would be left: leave out the columns that lack most values"
    if n_complete:
        rows = Remedy("drop_missing", value=True)
        cure = Message("Leave such rows out with ", rows, ", or such columns")
    return InputError(
        f"{store.name} lacks values in {n_rows - n_complete:,} of {count(n_rows, 'row')} and "
        f"{count(len(gaps), 'column')}: {listed}; {store.rows_meaning}. ",
        cure,
        " with ",
        IGNORE_COLUMN,
    )
