"""The files of a table: one, those of a folder or a glob, or a copy of what a pipe delivers."""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import select
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import pyarrow as pa

from streamreg.errors import DataCorruptionError, InputError, Remedy, Verbatim
from streamreg.formatting import MIB, count
from streamreg.sources.tables.paths import (
    ENDINGS,
    compression_of,
    is_libsvm,
    is_table_file,
    natural_order,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["text", "parquet", "arrow", "libsvm"]
_COPY_NBYTES = MIB
_PIPE_SECONDS = 5
# index columns that pandas and Dask write without a name
_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


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


class NamelessFile:
    """A temporary file without a name in its folder, closed when nobody uses it any more."""

    def __init__(self, folder: Path | None) -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix="streamreg-", dir=folder)
        except OSError as error:
            raise InputError(
                f"no temporary file can be made in {folder or tempfile.gettempdir()}: "
                f"{error.strerror}; set TMPDIR to another folder"
            ) from error
        self.path = Path(f"/dev/fd/{descriptor}")
        weakref.finalize(self, os.close, descriptor)
        Path(name).unlink()


def find_files(path: str, *, any_name: bool = False) -> FileSet:
    """Return the files of a table at a path: a file, a folder, a glob, a pipe.

    With ``any_name`` a file may have another name than tables have.
    Raises ``InputError`` if there are none, or they are of several kinds.
    """
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
    if "://" in path:
        raise InputError(
            f"{path} is a URL, and tables are read from local files: copy it to a file, or pipe "
            "it into the command and name /dev/stdin as the table"
        )
    here = Path(path)
    with reading(path[:200]):  # a text may be too long for a path
        is_folder = here.is_dir()
    if is_folder:
        return _folder(path, here)
    if here.is_file():
        return FileSet(path, _kind(here, any_name=any_name), [here])
    if here.exists():
        return _pipe(path)
    matches = [Path(match) for match in glob.glob(path)] if glob.has_magic(path) else []  # noqa: PTH207
    files = sorted((each for each in matches if each.is_file()), key=natural_order)
    if not files and len(matches) == 1:
        return _folder(path, matches[0])
    if not files:
        raise InputError(f"there is no file {path}; is the path spelled as on disk?")
    return FileSet(path, _common_kind(path, files, any_name=any_name), files)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors of a library into an ``InputError`` that names the file."""
    try:
        yield
    except (
        pa.ArrowException,
        csv.Error,
        UnicodeError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        if isinstance(error, InputError | DataCorruptionError):
            raise
        reason = " ".join(str(error).split())
        encoding = Remedy("encoding", Verbatim("ENCODING"))
        if "straddling" in reason:
            reason = "a line is longer than 1 MiB or 64 bytes a column; is a quote left open?"
        elif "Empty CSV" in reason:
            reason = "it has no rows"
        elif isinstance(error, UnicodeError) or "invalid UTF8" in reason:
            raise InputError(
                f"{path} cannot be read: it is not UTF-8 text ({reason}). Name its encoding with ",
                encoding,
                ", such as latin-1 or cp1252, or save it as UTF-8",
            ) from error
        raise InputError(f"{path} cannot be read: {reason}") from error


def require_names(path: str, names: Sequence[str]) -> None:
    """Refuse a table without columns, and one with two columns of a name."""
    if not names:
        raise InputError(f"{path} is empty: it names no columns")
    for name, copies in Counter(names).items():
        if copies > 1:
            raise InputError(f"{path} has {copies} columns named {name!r}; rename all but one")


def _folder(name: str, folder: Path) -> FileSet:
    found = sorted(
        (Path(parent, file) for parent, file in _walk(folder) if is_table_file(Path(file))),
        key=lambda path: natural_order(path.relative_to(folder)),
    )
    if not found:
        raise InputError(f"the folder {name} has no table; their names end in {', '.join(ENDINGS)}")
    kind = _common_kind(name, found)
    keys = [_hive_keys(path.relative_to(folder)) for path in found]
    if any(set(each) != set(keys[0]) for each in keys):
        raise InputError(
            f"the folders in {name} name different columns, as in year=2020/; read them as "
            "several tables"
        )
    if keys[0] and kind == "text":
        raise InputError(
            f"{name} has folders that name columns, as in year=2020/, around text files; write it "
            "as Parquet"
        )
    return FileSet(name, kind, found, _partition_scalars(keys))


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield parent and name of files; Spark and Hive do not read those that begin with _ or .."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(("_", "."))]
        yield from ((parent, file) for file in files if not file.startswith(("_", ".")))


def _hive_keys(path: Path) -> dict[str, str]:
    pairs = (part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    return {unquote(key): unquote(value) for key, value in pairs}


def _partition_scalars(keys: list[dict[str, str]]) -> list[dict[str, pa.Scalar]]:
    """Return the values of folders as integers, if all of a column are, else as texts."""
    types = {}
    for name in keys[0]:
        values = [each[name] for each in keys if each[name] != _NO_PARTITION]
        # as pyarrow: 2020 is a number, and 01 a text, because it would not be written so
        is_integer = values and all(value == str(_integer(value)) for value in values)
        types[name] = pa.int64() if is_integer else pa.string()
    return [
        {
            name: pa.scalar(
                None
                if each[name] == _NO_PARTITION
                else int(each[name])
                if kind == pa.int64()
                else each[name],
                kind,
            )
            for name, kind in types.items()
        }
        for each in keys
    ]


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) < 1 << 63 else None


def _pipe(path: str) -> FileSet:
    """Copy what a pipe or a device delivers to a temporary file, because it is read twice."""
    if not stat.S_ISFIFO(Path(path).stat().st_mode):
        raise InputError(f"{path} is neither a file nor a folder nor a pipe")
    copy = NamelessFile(None)
    try:
        # a pipe that nobody writes to would block for ever
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(pipe, "rb") as source, copy.path.open("wb") as sink:
            is_written = bool(select.select([source], [], [], _PIPE_SECONDS)[0])
            os.set_blocking(pipe, True)
            if is_written:
                shutil.copyfileobj(source, sink, _COPY_NBYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be copied to {tempfile.gettempdir()}: {error.strerror}"
        ) from error
    if not is_written:
        raise InputError(f"nobody wrote to the pipe {path} within {_PIPE_SECONDS} s")
    return FileSet(path, _kind(copy.path, any_name=True), [copy.path], copy=copy)


def _kind(path: Path, *, any_name: bool = False) -> Kind:
    """Return the kind of a file by its first bytes, or, if they do not say, its name."""
    with reading(str(path)), path.open("rb") as file:
        first = file.read(8)
    name = path.name.lower()
    if first.startswith(b"PAR1") or name.endswith((".parquet", ".pq")):
        return "parquet"
    if first.startswith(b"ARROW1") or name.endswith((".arrow", ".feather", ".ipc")):
        return "arrow"
    if first.startswith(b"\xff\xff\xff\xff"):
        raise InputError(f"{path} is a stream of Arrow; write it as a file, .arrow or .parquet")
    if is_libsvm(path):
        return "libsvm"
    is_named = any_name or is_table_file(path)
    if not is_named and compression_of(first) is None:
        raise InputError(f"{path} ends in none of {', '.join(ENDINGS)}; convert or rename it")
    return "text"


def _common_kind(name: str, paths: list[Path], *, any_name: bool = False) -> Kind:
    kinds = Counter(_kind(path, any_name=any_name) for path in paths)
    if len(kinds) > 1:
        listed = ", ".join(f"{count(number, 'file')} of {kind}" for kind, number in kinds.items())
        raise InputError(f"{name} has files of several kinds, {listed}; name one with a glob")
    return next(iter(kinds))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_numeric(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(is_kind(kind) for is_kind in tests)
