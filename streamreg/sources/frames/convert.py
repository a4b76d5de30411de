"""Which library a frame is of, and the rows of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from streamreg.errors import InputError
from streamreg.sources.frames.of_arrow import rows_of_arrow
from streamreg.sources.frames.of_pandas import rows_of_pandas
from streamreg.sources.packages import package_of

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.frames.rows import FrameRows


def is_frame(data: object) -> bool:
    """Whether ``data`` is a frame or series of pandas, polars or pyarrow."""
    package = package_of(data)
    return package in {"pandas", "polars"} or (
        package == "pyarrow" and hasattr(data, "__arrow_c_stream__")
    )


def frame_rows(data: Any, name: str) -> FrameRows | Array:  # noqa: ANN401  (of several libraries)
    """Return the rows of a frame or series; an array if the frame is one already.

    A column that does not hold real numbers is an ``InputError`` that names it.
    """
    if package_of(data) == "pandas":
        # an array of pandas' own types, or an index
        is_known = hasattr(data, "iloc")
        return rows_of_pandas(data if is_known else sys.modules["pandas"].Series(data), name)
    if not (hasattr(data, "shape") or hasattr(data, "chunks")):
        raise InputError(
            f"{name} is a {type(data).__name__} of {package_of(data)}, "
            "which has no rows yet: collect it, or read it into a table"
        )
    return rows_of_arrow(data, name)
