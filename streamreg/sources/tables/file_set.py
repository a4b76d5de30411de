"""Files that hold the rows of one table: their columns, and whether they changed."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from streamreg.errors import DataCorruptionError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Kind = Literal["text", "parquet", "arrow", "libsvm"]
# index columns that pandas and Dask write without a name
_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")


@dataclass(eq=False)
class FileSet:
    """Files of one kind, in order, that hold the rows of one table."""

    name: str
    kind: Kind
    paths: list[Path]
    partition_values: list[dict[str, pa.Scalar]] = field(default_factory=list)
    copy: Any = None  # what keeps the temporary copy of a pipe

    def __post_init__(self) -> None:
        self.partition_values = self.partition_values or [{} for _ in self.paths]
        self._stamps = [_stamp(path) for path in self.paths]

    @property
    def partition_names(self) -> list[str]:
        """The columns that names of folders hold, as in ``year=2020/``."""
        return list(self.partition_values[0]) if self.partition_values else []

    def require_unchanged(self, number: int | None = None) -> None:
        """Raise ``DataCorruptionError`` if a file has changed since it was opened.

        With ``number``, only this file is looked at.
        """
        for at in range(len(self.paths)) if number is None else (number,):
            path = self.paths[at]
            if _stamp(path) != self._stamps[at]:
                raise DataCorruptionError(
                    f"{path} changed since it was first read. Start again when nothing writes to it"
                )

    def common_schema(self, schemas: Sequence[pa.Schema]) -> pa.Schema:
        """Return the columns of all files; files with other columns are an ``InputError``."""
        first = schemas[0]
        require_names(self.name, first.names)
        fields = {each.name: each.type for each in first}
        for path, schema in zip(self.paths[1:], schemas[1:], strict=True):
            if set(schema.names) != set(fields):
                other = sorted(set(schema.names) ^ set(fields))
                raise InputError(
                    f"{path} has other columns than {self.paths[0]}: only one of them has "
                    f"{', '.join(map(repr, other[:5]))}. Read them as two tables"
                )
            for each in schema:
                # a column without a value in one file has another type in the next
                known = fields[each.name]
                if pa.types.is_null(known) or (
                    _is_numeric(known) and not _is_numeric(each.type) and each.type != known
                ):
                    fields[each.name] = each.type
        for name in self.partition_names:
            fields[name] = self.partition_values[0][name].type
        return pa.schema(list(fields.items()), metadata=first.metadata)

    def own_columns(self, schema: pa.Schema) -> dict[str, str]:
        """Return the columns that pandas or Dask wrote for the index of a frame, and why."""
        found = {
            name: "the index of a data frame" for name in schema.names if _INDEX.fullmatch(name)
        }
        document: Any = None
        with suppress(ValueError):
            document = json.loads((schema.metadata or {}).get(b"pandas", b"null"))
        indices = document.get("index_columns") if isinstance(document, dict) else None
        for name in indices if isinstance(indices, list) else []:
            if isinstance(name, str) and name in schema.names:
                found[name] = "the index of a data frame"
        return found


def require_names(path: str, names: Sequence[str]) -> None:
    """Refuse a table without columns, and one with two columns of a name."""
    if not names:
        raise InputError(f"{path} is empty: it names no columns")
    for name, copies in Counter(names).items():
        if copies > 1:
            raise InputError(f"{path} has {copies} columns named {name!r}; rename all but one")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_numeric(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in tests)
