"""The files of a table: one, those of a folder or a glob, or a copy of what a pipe delivers."""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from streamreg.errors import InputError
from streamreg.formatting import count
from streamreg.sources.tables.file_set import FileSet, Kind
from streamreg.sources.tables.hive_folders import hive_keys, partition_scalars
from streamreg.sources.tables.paths import (
    ENDINGS,
    compression_of,
    is_libsvm,
    is_table_file,
    natural_order,
)
from streamreg.sources.tables.pipe import copy_of_pipe
from streamreg.sources.tables.reading import reading

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        copy = copy_of_pipe(path)
        return FileSet(path, _kind(copy.path, any_name=True), [copy.path], copy=copy)
    matches = [Path(match) for match in glob.glob(path)] if glob.has_magic(path) else []  # noqa: PTH207
    files = sorted((each for each in matches if each.is_file()), key=natural_order)
    if not files and len(matches) == 1:
        return _folder(path, matches[0])
    if not files:
        raise InputError(f"there is no file {path}; is the path spelled as on disk?")
    return FileSet(path, _common_kind(path, files, any_name=any_name), files)


def _folder(name: str, folder: Path) -> FileSet:
    found = sorted(
        (Path(parent, file) for parent, file in _walk(folder) if is_table_file(Path(file))),
        key=lambda path: natural_order(path.relative_to(folder)),
    )
    if not found:
        raise InputError(f"the folder {name} has no table; their names end in {', '.join(ENDINGS)}")
    kind = _common_kind(name, found)
    keys = [hive_keys(path.relative_to(folder)) for path in found]
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
    return FileSet(name, kind, found, partition_scalars(keys))


def _walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield parent and name of files; Spark and Hive do not read those that begin with _ or .."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(("_", "."))]
        yield from ((parent, file) for file in files if not file.startswith(("_", ".")))


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
