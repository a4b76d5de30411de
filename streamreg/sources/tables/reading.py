"""Errors of libraries that read tables."""

from __future__ import annotations

import csv
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from streamreg.errors import DataCorruptionError, InputError, Remedy, Verbatim

if TYPE_CHECKING:
    from collections.abc import Iterator


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
