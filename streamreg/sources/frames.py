"""Data frames and series of pandas, polars and pyarrow: converted a block at a time."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import InputError
from streamreg.sources.base import Kind, Reader, RowGrid, RowSource
from streamreg.sources.checks import has_inexact

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array, Float64

_REAL = "biuf"
_CATEGORIES = (
    "drop it, or turn categories into columns of 0 and 1, with pandas.get_dummies or "
    "streamreg.read_table(frame, one_hot=…)"
)
_NO_NUMBERS = (str, bytes, date, timedelta, np.datetime64, np.timedelta64)
# objects that are converted at once
_OBJECTS = 1 << 16
_TEXTS = (
    "store integers or floats, or encode columns of a data frame as levels: "
    "streamreg.read_table(frame, one_hot=COLUMN)"
)
_DATES = (
    "drop it, or make numbers of it: for dates, a difference to a date, as days, "
    "(column - first) / numpy.timedelta64(1, 'D')"
)


class NotNumbersError(InputError, TypeError):
    """An element is no number; scikit-learn's estimators raise TypeError for it."""


class FrameRows(NamedTuple):
    """A frame whose columns are all real numbers, and a function that converts some of its rows."""

    frame: Any
    shape: tuple[int, ...]
    convert: Callable[[int, int], tuple[Float64, bool]]


class FrameSource(RowSource):
    """The rows of a frame, as float64; each block is a copy."""

    fingerprint_reads_all_rows = True

    def __init__(self, rows: FrameRows, name: str) -> None:
        self.rows = rows
        self.name = name
        self.shape = rows.shape
        self.dtype = np.dtype(np.float64)
        n_rows = rows.shape[0]
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)

    def open(self) -> Reader:
        return _FrameReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        # the columns, and the rows that are made of them; and what a column takes meanwhile
        return 3 * block_rows * self.row_nbytes + 32 * block_rows


class _FrameReader(Reader):
    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def read(self, start: int, stop: int) -> Array:
        values, is_rounded = self._source.rows.convert(start, stop)
        if is_rounded:
            self._source.is_rounded = True
        return values if len(self._source.shape) > 1 else values[:, 0]


def open_rows(data: FrameRows, name: str, _missing_chunks: str) -> RowSource:
    """Return the rows of a frame."""
    return FrameSource(data, name)


KIND = Kind(lambda data: isinstance(data, FrameRows), open_rows)


def is_frame(data: object) -> bool:
    """Whether ``data`` is a frame or series of pandas, polars or pyarrow."""
    package = type(data).__module__.partition(".")[0]
    return package in {"pandas", "polars"} or (
        package == "pyarrow" and hasattr(data, "__arrow_c_stream__")
    )


def frame_rows(data: Any, name: str) -> FrameRows | Array:  # noqa: ANN401  (of several libraries)
    """Return the rows of a frame or series; an array if the frame is one already.

    A column that does not hold real numbers is an ``InputError`` that names it.
    """
    if type(data).__module__.partition(".")[0] == "pandas":
        # an array of pandas' own types, or an index
        is_known = hasattr(data, "iloc")
        return _of_pandas(data if is_known else sys.modules["pandas"].Series(data), name)
    if not (hasattr(data, "shape") or hasattr(data, "chunks")):
        raise InputError(
            f"{name} is a {type(data).__name__} of {type(data).__module__.partition('.')[0]}, "
            "which has no rows yet: collect it, or read it into a table"
        )
    return _of_arrow(data, name)


def _of_pandas(data: Any, name: str) -> FrameRows | Array:  # noqa: ANN401
    is_series = data.ndim == 1
    frame = data.to_frame() if is_series else data
    _require_real(frame, name)
    plain = all(isinstance(dtype, np.dtype) and dtype.kind in _REAL for dtype in frame.dtypes)
    if plain and frame.shape[1] and len(set(frame.dtypes)) == 1 and _is_view(frame):
        array: Array = frame.to_numpy()
        return array[:, 0] if is_series else array
    shape = frame.shape[:1] if is_series else frame.shape

    def convert(start: int, stop: int) -> tuple[Float64, bool]:
        return _pandas_block(frame.iloc[start:stop], name, start)

    return FrameRows(data, shape, convert)


def _require_real(frame: Any, name: str) -> None:  # noqa: ANN401
    """Refuse columns that are not real numbers; of objects, each is looked at."""
    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        text = str(dtype)
        is_category = text.startswith(("category", "Sparse"))
        if dtype.kind in _REAL + "O" and not is_category:
            continue
        cure = "drop it, or convert it with .astype(float)"
        if text.startswith("category"):
            cure = _CATEGORIES
        elif dtype.kind in "mM":
            cure = _DATES
        elif dtype.kind == "c":
            cure = "fit its real and imaginary parts as two columns"
        raise InputError(
            f"column {column!r} of {name} has dtype {dtype}, and columns must be real numbers: "
            f"{cure}"
        )
    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if dtype.kind == "O":
            # a plan refuses them too; other types need no look at the values
            for start in range(0, len(frame), _OBJECTS):
                values = frame[[column]].iloc[start : start + _OBJECTS, 0].to_numpy(object)
                floats_of_objects(values, f"column {column!r} of {name}", start)


def _is_view(frame: Any) -> bool:  # noqa: ANN401
    """Whether the values of a frame are one array, which pandas does not copy."""
    part = frame.iloc[:1]
    return len(frame) == 0 or np.shares_memory(part.to_numpy(), part.to_numpy())


def _pandas_block(frame: Any, name: str, start: int) -> tuple[Float64, bool]:  # noqa: ANN401
    out = np.empty(frame.shape)
    is_rounded = False
    for at, (column, values) in enumerate(frame.items()):
        if values.dtype.kind == "O":
            label = f"column {column!r} of {name}"
            found, rounds = floats_of_objects(values.to_numpy(object), label, start)
            is_rounded |= rounds
            out[:, at] = found
            continue
        if isinstance(values.dtype, np.dtype):
            out[:, at] = values.to_numpy()
        else:
            out[:, at] = values.to_numpy(np.float64, na_value=np.nan)
        if values.dtype.kind in "iu":
            integers = values.dropna().to_numpy(f"{values.dtype.kind}8")
            is_rounded |= has_inexact(integers)
    return out, is_rounded


def floats_of_objects(objects: Array, name: str, start: int = 0) -> tuple[Float64, bool]:
    """Return objects as float64, and whether an integer was rounded; pd.NA and None are NaN."""
    flat = objects.ravel()
    for at, value in enumerate(flat):
        if isinstance(value, _NO_NUMBERS):
            what, cure = "text", _TEXTS
            if not isinstance(value, str | bytes):
                # NumPy would make numbers of its own dates and durations, in any unit
                what, cure = "a date or a duration", _DATES
            raise InputError(
                f"{name} has objects that are not numbers: {value!r} in row "
                f"{start + at * len(objects) // max(1, len(flat)):,} is {what}; {cure}"
            )
    missing = np.fromiter(map(_is_missing, flat), bool, len(flat)).reshape(objects.shape)
    if missing.any():
        objects = objects.copy()
        objects[missing] = np.nan
    try:
        floats: Float64 = objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = NotNumbersError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{name} has objects that are not numbers: {error}; store integers or floats"
        ) from error
    large = np.abs(floats) >= EXACT_INTEGERS
    rounds = large.any() and any(_is_large_integer(value) for value in objects[large])
    return floats, bool(rounds)


def _is_missing(value: object) -> bool:
    # pandas need not be installed
    return value is None or type(value).__name__ == "NAType"


def _is_large_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and abs(int(value)) > EXACT_INTEGERS


def _of_arrow(data: Any, name: str) -> FrameRows:  # noqa: ANN401
    """Return the rows of a frame that has Arrow's interface: polars, pyarrow."""
    import pyarrow as pa  # noqa: PLC0415  (imported only if there are such frames)

    from streamreg.sources.tables.values import (  # noqa: PLC0415
        as_floats,
        describe_type,
        is_number,
        loses_digits,
    )

    is_series = isinstance(data, pa.ChunkedArray) or hasattr(data, "to_frame")
    n_rows = len(data) if is_series else data.shape[0]

    def part(start: int, stop: int) -> pa.Table:
        piece = data.slice(start, stop - start)
        if isinstance(piece, pa.ChunkedArray):
            return pa.table({name: piece})
        piece = piece.to_frame() if is_series else piece
        try:
            return pa.table(piece)
        except pa.ArrowException as error:
            raise InputError(
                f"{name} has a column that Arrow cannot represent ({error}); cast it to float64"
            ) from error

    schema = part(0, 0).schema
    for each in schema:
        if not is_number(each.type):
            cure = _CATEGORIES if pa.types.is_dictionary(each.type) else "drop it, or convert it"
            cure = _DATES if pa.types.is_temporal(each.type) else cure
            where = name if is_series else f"column {each.name!r} of {name}"
            raise InputError(
                f"{where} holds {describe_type(each.type)}, and columns must be real numbers: "
                f"{cure}"
            )

    def convert(start: int, stop: int) -> tuple[Float64, bool]:
        out = np.empty((stop - start, len(schema)))
        rounds = False
        for at, column in enumerate(part(start, stop).columns):
            values = column.combine_chunks()
            values = values if isinstance(values, pa.Array) else pa.concat_arrays(values.chunks)
            out[:, at] = as_floats(values)
            rounds |= loses_digits(values, out[:, at])
        return out, rounds

    return FrameRows(data, (n_rows,) if is_series else (n_rows, len(schema)), convert)
