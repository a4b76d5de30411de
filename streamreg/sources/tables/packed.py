"""Files that may be packed, as streams of what is in them."""

from __future__ import annotations

import lzma
import zipfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamreg.errors import InputError
from streamreg.formatting import count
from streamreg.sources.tables.paths import compression_of, is_table_file

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """Yield the bytes of a file, unpacked if it is packed, whatever its name is."""
    with path.open("rb") as file:
        codec = compression_of(file.read(8))
    if codec == "zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if is_table_file(Path(name))]
            members = [name for name in members if not name.startswith("__MACOSX/")]
            if len(members) != 1:
                listed = f" ({', '.join(members[:5])})" if members else ""
                found = f"{count(len(members), 'table')}{listed}"
                raise InputError(f"{path} holds {found}; it must hold one: unpack it")
            with archive.open(members[0]) as stream:
                yield stream
    elif codec == "xz":
        with lzma.open(path) as stream:
            yield stream
    else:
        with closing(pa.input_stream(str(path), compression=codec)) as stream:
            yield stream
