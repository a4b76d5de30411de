"""Data frames as tables of Arrow: of pandas, polars, and any other with Arrow's interface."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamreg.errors import InputError
from streamreg.sources.packages import package_of
from streamreg.sources.tables.file_set import require_names

if TYPE_CHECKING:
    from collections.abc import Iterator

# rows from which types are taken; a frame tells the types of all its rows, but of objects
_SAMPLE = 1
_OBJECTS = 1 << 16


class ArrowFrame:
    """A frame of which some rows are converted at a time."""

    def __init__(self, frame: Any, name: str) -> None:  # noqa: ANN401
        self.name = name
        self._frame = frame
        self._is_of_pandas = package_of(frame) == "pandas"
        names = list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
        if not all(isinstance(each, str) for each in names):
            raise InputError(f"the names of the columns of {name} are not all texts; rename them")
        require_names(name, names)
        self.schema = self._types(names)

    def rows(self, columns: list[str], start: int, stop: int) -> pa.Table:
        """Return some rows as a table of Arrow."""
        with self._representing(columns):
            kinds = pa.schema([self.schema.field(name) for name in columns])
            return self._rows(columns, start, stop, kinds)

    def _rows(self, columns: list[str], start: int, stop: int, kinds: Any = None) -> pa.Table:  # noqa: ANN401
        if self._is_of_pandas:
            # rows first: a selection of columns is a copy
            part = self._frame.iloc[start:stop][columns]
            return pa.Table.from_pandas(part, kinds, preserve_index=False)
        part = self._frame.select(columns).slice(start, stop - start)
        return part if isinstance(part, pa.Table) else pa.table(part)

    def _types(self, names: list[str]) -> pa.Schema:
        """Return the types of columns: of objects, those of all rows."""
        objects = [name for name in names if self._holds_objects(name)]
        others = [name for name in names if name not in set(objects)]
        stop = min(_SAMPLE, len(self._frame))
        kinds: dict[str, pa.DataType] = {}
        if others:
            try:
                schema = self._rows(others, 0, stop).schema
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                objects = names  # column by column, because the error shall name one
            else:
                kinds = dict(zip(others, schema.types, strict=True))
        for name in objects:
            kinds[name] = self._type(name)
        return pa.schema([(name, kinds[name]) for name in names])

    def _holds_objects(self, name: str) -> bool:
        return self._is_of_pandas and self._frame[name].dtype.kind == "O"

    def _type(self, name: str) -> pa.DataType:
        last = len(self._frame) if self._holds_objects(name) else min(_SAMPLE, len(self._frame))
        with self._representing([name]):
            starts = range(0, max(last, 1), _OBJECTS)
            schemas = [self._rows([name], at, min(at + _OBJECTS, last)).schema for at in starts]
            return pa.unify_schemas(schemas, promote_options="permissive").field(0).type

    @contextmanager
    def _representing(self, columns: list[str]) -> Iterator[None]:
        """Turn errors of a conversion to Arrow into an ``InputError``."""
        try:
            yield
        # objects of other types, and integers beyond 64 bits
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            named = f"column {columns[0]!r}" if len(columns) == 1 else "a column"
            reason = "; ".join(map(str, error.args))
            raise InputError(
                f"{self.name} has {named} that Arrow cannot represent ({reason}); make its values "
                "all numbers or all texts, or drop it"
            ) from error
