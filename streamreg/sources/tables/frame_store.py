"""Data frames in memory: pandas, polars, and any other with Arrow's interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamreg.sources.packages import package_of
from streamreg.sources.tables.arrow_frame import ArrowFrame
from streamreg.sources.tables.store import Selection, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa


def is_frame(data: object) -> bool:
    """Whether ``data`` is a data frame: of pandas, or with Arrow's interface and columns."""
    if package_of(data) == "pandas":
        return getattr(data, "ndim", 0) == 2  # noqa: PLR2004
    return hasattr(data, "__arrow_c_stream__") and hasattr(data, "shape") and hasattr(data, "slice")


class FrameStore(Store):
    """A frame; a piece of it is converted at a time."""

    def __init__(self, frame: Any, name: str = "the frame") -> None:  # noqa: ANN401
        self.name = name
        self.own_columns = {}
        self.bounds = (0, len(frame)) if len(frame) else (0,)
        self._frame = ArrowFrame(frame, name)
        self.schema = self._frame.schema

    def select(self, columns: Sequence[str], piece_rows: int) -> Selection:  # noqa: ARG002
        return _FrameSelection(self._frame, list(columns))

    def selection_nbytes(self, columns: Sequence[str], piece_rows: int) -> tuple[int, int]:
        return 4 * 8 * min(piece_rows, self.n_rows) * len(columns), 0


@dataclass(eq=False)
class _FrameSelection(Selection):
    frame: ArrowFrame
    columns: list[str]

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        yield from self.frame.rows(self.columns, start, stop).to_batches()
