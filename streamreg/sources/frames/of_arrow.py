"""The rows of frames and series that have Arrow's interface: of polars and pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.frames.advice import CATEGORIES, DATES
from streamreg.sources.frames.rows import FrameRows

if TYPE_CHECKING:
    from streamreg.blocks import Float64


def rows_of_arrow(data: Any, name: str) -> FrameRows:  # noqa: ANN401
    """Return the rows of a frame or series that has Arrow's interface."""
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
            cure = CATEGORIES if pa.types.is_dictionary(each.type) else "drop it, or convert it"
            cure = DATES if pa.types.is_temporal(each.type) else cure
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
