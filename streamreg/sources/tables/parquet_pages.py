"""The sizes of the pages of a Parquet file, of which a decoder holds one for each column."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.formatting import MIB

if TYPE_CHECKING:
    from pathlib import Path

# of a header, which may hold the least and the largest value of the page
_HEADER_NBYTES = 256
# pages of a column chunk whose headers are read
_MOST_PAGES = 64
_DICTIONARY_PAGE = 2
# of a page whose header cannot be read: most writers end a page after 1 MiB
_USUAL_NBYTES = 2 * MIB


class PageSizes(NamedTuple):
    """Bytes of the dictionary and of the largest page of a column chunk, and of that as stored."""

    dictionary_nbytes: int
    page_nbytes: int
    stored_nbytes: int


def page_sizes(path: Path, chunk: Any) -> PageSizes:  # noqa: ANN401  (pyarrow has no types)
    """Read the headers of the pages of a column chunk, as ``parquet.thrift`` defines them."""
    at = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None:
        at = min(at, chunk.dictionary_page_offset)
    stop = at + chunk.total_compressed_size
    dictionary = page = stored = 0
    try:
        with path.open("rb") as file:
            for _ in range(_MOST_PAGES):
                if at >= stop:
                    break
                header = os.pread(file.fileno(), _HEADER_NBYTES, at)
                kind, nbytes, compressed, length = _read_header(header)
                if kind == _DICTIONARY_PAGE:
                    dictionary = max(dictionary, nbytes)
                else:
                    page, stored = max(page, nbytes), max(stored, compressed)
                at += length + compressed
    except (OSError, ValueError):
        usual = min(_USUAL_NBYTES, chunk.total_uncompressed_size)
        return PageSizes(usual, usual, usual)
    return PageSizes(dictionary, page, stored)


def _read_header(header: bytes) -> tuple[int, int, int, int]:
    """Return the kind of a page, its bytes unpacked and as stored, and the bytes of its header.

    Raises ``ValueError`` if it is no header, or longer than what was read.
    """
    try:
        fields, length = _read_struct(header, 0)
        return fields[1], fields[2], fields[3], length
    except (IndexError, KeyError) as error:
        raise ValueError("no header of a page") from error


def _read_struct(data: bytes, at: int) -> tuple[dict[int, int], int]:
    """Return the integers of a struct in Thrift's compact protocol by number, and its end."""
    fields: dict[int, int] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if not step:
            number, at = _read_integer(data, at)
        else:
            number += step
        if kind in {4, 5, 6}:  # integers of 16, 32 and 64 bits
            fields[number], at = _read_integer(data, at)
        elif kind == 8:  # noqa: PLR2004  (bytes, after their number)
            length, at = _read_varint(data, at)
            at += length
        elif kind == 12:  # noqa: PLR2004  (a struct)
            _, at = _read_struct(data, at)
        elif kind not in {1, 2}:  # true and false have no bytes
            raise ValueError(f"a field of type {kind}")
    return fields, at + 1


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:  # noqa: PLR2004  (no bit of continuation)
            return value, at
        shift += 7
