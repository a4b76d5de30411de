"""Lists and data frames, which are in memory whole, as the NumPy arrays that are then read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.array import require_dense
from streamreg.sources.opening import is_streamable

if TYPE_CHECKING:
    from streamreg.blocks import Array

_REAL = "biuf"


class _NotNumbersError(InputError, TypeError):
    """An element that is no number at all; scikit-learn's estimators raise TypeError for it."""


def as_streamable(data: object, name: str) -> object:
    """Return data that can be read in blocks: as they are, or else as a NumPy array.

    Raises
    ------
    InputError
        Elements or columns are not real numbers, or the data are sparse.
    """
    require_dense(data, name)
    is_objects = isinstance(data, np.ndarray) and data.dtype == object
    if data is None or (is_streamable(data) and not is_objects):
        return data
    if type(data).__module__.partition(".")[0] == "pandas":
        return _from_pandas(data, name)
    try:
        if isinstance(data, list | tuple) and any(
            isinstance(row, np.ma.MaskedArray) for row in data
        ):
            # np.asarray would forget the masks
            return np.ma.array(data)
        array = np.asarray(data)
    # rows of different lengths, and whatever other libraries raise
    except Exception as error:
        raise InputError(f"{name} cannot be made an array: {error}") from error
    if array.ndim == 0:
        return data  # no rows: refused by its own type
    return _as_floats(array, name) if array.dtype == object else array


def _from_pandas(data: Any, name: str) -> object:  # noqa: ANN401  (pandas need not be installed)
    """Return the values of a frame, series or index; those missing become NaN."""
    if data.ndim == 1:
        values: Any = _from_pandas(data.to_frame(), name)
        return values[:, 0]
    for column, dtype in zip(data.columns, data.dtypes, strict=True):
        if dtype.kind not in _REAL + "O" or str(dtype).startswith(("category", "Sparse")):
            raise InputError(
                f"column {column!r} of {name} has dtype {dtype}, and columns must be real numbers: "
                "drop it, or convert it with .astype(float); of categories make columns of 0 and 1 "
                "with pandas.get_dummies"
            )
    if data.shape[1] and all(isinstance(d, np.dtype) and d.kind in _REAL for d in data.dtypes):
        frame: object = data.to_numpy(np.result_type(*data.dtypes))
        return frame
    columns = [
        _as_floats(data.iloc[:, at].to_numpy(object), f"column {column!r} of {name}")
        if dtype.kind == "O"
        else data.iloc[:, at].to_numpy(np.float64, na_value=np.nan)
        for at, (column, dtype) in enumerate(zip(data.columns, data.dtypes, strict=True))
    ]
    return np.stack(columns, axis=1) if columns else np.empty(data.shape)


def _as_floats(objects: Array, name: str) -> Array:
    try:
        return objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = _NotNumbersError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{name} has objects that are not numbers: {error}; store integers or floats"
        ) from error
