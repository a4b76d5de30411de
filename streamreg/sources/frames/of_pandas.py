"""The rows of frames and series of pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.checks import has_inexact
from streamreg.sources.frames.advice import CATEGORIES, DATES
from streamreg.sources.frames.objects import floats_of_objects
from streamreg.sources.frames.rows import FrameRows

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64

_REAL = "biuf"
# objects that are looked at at once
_OBJECTS = 1 << 16


def rows_of_pandas(data: Any, name: str) -> FrameRows | Array:  # noqa: ANN401
    """Return the rows of a frame or series; an array if the frame is one already."""
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
            cure = CATEGORIES
        elif dtype.kind in "mM":
            cure = DATES
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
