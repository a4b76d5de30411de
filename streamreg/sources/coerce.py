"""Lists and data frames, which are whole in memory, become NumPy arrays."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import InputError
from streamreg.sources.checks import has_inexact, require_dense
from streamreg.sources.kinds import is_streamable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array

_REAL = "biuf"


class _NotNumbersError(InputError, TypeError):
    """An element is no number; scikit-learn's estimators raise TypeError for it."""


class Streamable(NamedTuple):
    """Data that can be read in blocks, and whether integers beyond 2^53 were rounded."""

    data: object
    is_rounded: bool = False


def as_streamable(data: object, name: str) -> Streamable:
    """Return data that can be read in blocks: unchanged if possible, else as a NumPy array."""
    if isinstance(data, bytes):
        raise InputError(f"{name} is of type bytes; paths must be text: pass {name}.decode()")
    if isinstance(data, np.lib.npyio.NpzFile):
        raise InputError(
            f"{name} is an .npz file, which holds arrays by name: pass one of them, as "
            f"{name}[{next(iter(data), 'NAME')!r}]"
        )
    require_dense(data, name)
    is_objects = isinstance(data, np.ndarray) and data.dtype == object
    if is_streamable(data) and not is_objects:
        return Streamable(data)
    if type(data).__module__.partition(".")[0] == "pandas":
        return _from_pandas(data, name)
    try:
        rows = data if isinstance(data, list | tuple) else ()
        if any(isinstance(row, np.ma.MaskedArray) for row in rows):
            # np.asarray would drop the masks
            return Streamable(np.ma.array(data))
        array = np.asarray(data)
    # rows of different lengths raise ValueError; other libraries may raise any error
    except Exception as error:
        raise InputError(f"{name} cannot be made an array: {error}") from error
    if array.ndim == 0:
        return Streamable(data)  # not rows: open_source refuses it, and names its type
    if array.dtype == object:
        return _as_floats(array, name)
    return Streamable(array, array.dtype.kind == "f" and _rounds(data, array))


def as_groups(data: Any) -> object:  # noqa: ANN401
    """Return groups as they can be read: texts and categories in memory are numbered."""
    if type(data).__module__.partition(".")[0] == "pandas":
        if data.ndim > 1:
            if data.shape[1] != 1:
                raise InputError(
                    f"groups have {data.shape[1]:,} columns; each row belongs to one group, so "
                    "pass one column"
                )
            data = data.iloc[:, 0]
        numbers, _ = data.factorize()
        return _require_groups(np.asarray(numbers))
    values = np.asarray(data, object) if isinstance(data, list | tuple) else data
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "OUSM":
        return data
    known: dict[object, int] = {}
    # a missing value is None, or does not equal itself
    numbered = (
        -1 if v is None or v != v else known.setdefault(v, len(known))  # noqa: PLR0124
        for v in _flat(values)
    )
    return _require_groups(np.fromiter(numbered, np.int64, values.size).reshape(values.shape))


def _flat(values: Array) -> Iterator[Any]:
    """Yield values one at a time; labels that cannot be compared are refused."""
    try:
        for value in values.flat:
            hash(value)
            yield value
    except TypeError as error:
        raise InputError(f"groups hold {error}; pass numbers or texts") from error


def _require_groups(numbers: Array) -> Array:
    missing = np.flatnonzero(numbers < 0)
    if len(missing):
        raise InputError(
            f"groups have no value in row {missing[0]:,} and {len(missing) - 1:,} more; "
            "every row belongs to a group"
        )
    return numbers


def _from_pandas(data: Any, name: str) -> Streamable:  # noqa: ANN401  (pandas need not be installed)
    """Return the values of a frame, series or index; missing values become NaN."""
    if data.ndim == 1:
        values: Any = _from_pandas(data.to_frame(), name)
        return Streamable(values.data[:, 0], values.is_rounded)
    for column, dtype in zip(data.columns, data.dtypes, strict=True):
        if dtype.kind not in _REAL + "O" or str(dtype).startswith(("category", "Sparse")):
            raise InputError(
                f"column {column!r} of {name} has dtype {dtype}, and columns must be real numbers: "
                "drop it, or convert it with .astype(float); turn categories into columns of 0 "
                "and 1 with pandas.get_dummies"
            )
    rounds = False
    if all(isinstance(dtype, np.dtype) and dtype.kind in _REAL for dtype in data.dtypes):
        array = data.to_numpy(np.result_type(*data.dtypes) if data.shape[1] else float)
    else:
        columns: list[Any] = [
            _as_floats(values.to_numpy(object), f"column {column!r} of {name}")
            if values.dtype.kind == "O"
            else Streamable(values.to_numpy(np.float64, na_value=np.nan))
            for column, values in data.items()
        ]
        array = np.stack([column.data for column in columns], axis=1)
        rounds = any(column.is_rounded for column in columns)
    if array.dtype.kind == "f":  # integers that stay integers are checked when they are read
        integers = (values.dropna() for _, values in data.items() if values.dtype.kind in "iu")
        rounds |= any(has_inexact(each.to_numpy(f"{each.dtype.kind}8")) for each in integers)
    return Streamable(array, rounds)


def _rounds(data: Any, floats: Array) -> bool:  # noqa: ANN401
    """Return whether an integer of a list, or of a frame of polars, was rounded to a float."""
    is_large = np.abs(floats) >= EXACT_INTEGERS
    if not is_large.any():
        return False
    if type(data).__module__.partition(".")[0] == "polars":
        columns = data.get_columns() if len(data.shape) > 1 else [data]
        integers = (column.drop_nulls() for column in columns if column.dtype.is_integer())
        return any(has_inexact(column.to_numpy()) for column in integers)
    large = np.asarray(data, object)[is_large]
    return any(isinstance(value, Integral) and abs(int(value)) > EXACT_INTEGERS for value in large)


def _as_floats(objects: Array, name: str) -> Streamable:
    try:
        floats = objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = _NotNumbersError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{name} has objects that are not numbers: {error}; store integers or floats"
        ) from error
    return Streamable(floats, _rounds(objects, floats))
