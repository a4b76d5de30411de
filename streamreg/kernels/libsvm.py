"""Lines of libsvm text to sparse rows: ``target column:value column:value # comment``."""

from __future__ import annotations

import math
import re
from ctypes import byref
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.kernels.library import load_library
from streamreg.kernels.structs import struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamreg.blocks import Float64, Int64

# in the order of the struct of native/libsvm.c, where the fields are described
_Libsvm = struct(
    "libsvm",
    "*text nbytes first_column *targets *values *indices *bounds n_rows n_values consumed lines "
    "is_float32 least most",
)
_MOST_COLUMN = 2**31 - 1
_WORD = re.compile(rb"[^ \t\r\n]+")
_PAIR = re.compile(rb"(-?\d{1,20}):(.*)")
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class LibsvmRows(NamedTuple):
    """Rows of libsvm text; columns count from 0."""

    targets: Float64  # (n,)
    values: Float64  # (m,)
    indices: NDArray[np.int32]  # (m,) ascending in each row
    bounds: Int64  # (n + 1,) from 0 to m
    lines: int  # that were read, also empty ones and comments
    is_float32: bool  # whether float32 holds all values
    least: int  # the first column with a value; 2³¹ - 1 without any
    most: int  # the last one; -1 without any


class LineError(Exception):
    """The arguments are the number of a line from 0, of a character from 0, and a sentence."""


def read_lines(text: bytes, first_column: int) -> LibsvmRows:
    """Return the rows of whole lines, each with its line feed; an error names line and character.

    What the compiled loop does not read, such as numbers of more than 19 digits, Python reads.
    """
    targets, bounds = np.empty(len(text) // 2 + 2), np.empty(len(text) // 2 + 2, np.int64)
    values, indices = np.empty(len(text) // 4 + 1), np.empty(len(text) // 4 + 1, np.int32)
    bounds[0] = 0
    characters = np.frombuffer(text, np.uint8)
    at = _Libsvm(characters.ctypes.data, len(text), first_column)
    at.targets, at.values = targets.ctypes.data, values.ctypes.data
    at.indices, at.bounds = indices.ctypes.data, bounds.ctypes.data
    at.is_float32, at.least, at.most = 1, _MOST_COLUMN, -1
    library = load_library()
    while at.consumed < len(text):
        if library is not None and library.functions.read_libsvm(byref(at)):
            break
        end = text.index(b"\n", at.consumed) + 1
        try:
            row = _row(text[at.consumed : end], first_column)
        except LineError as error:
            raise LineError(at.lines, *error.args) from None
        if row is not None:
            targets[at.n_rows], found, columns = row
            low, high = at.n_values, at.n_values + len(found)
            values[low:high], indices[low:high] = found, columns
            with np.errstate(over="ignore"):
                at.is_float32 &= int((values[low:high].astype(np.float32) == found).all())
            at.n_rows, at.n_values = at.n_rows + 1, high
            bounds[at.n_rows] = high
            if columns:
                at.least, at.most = min(at.least, columns[0]), max(at.most, columns[-1])
        at.lines, at.consumed = at.lines + 1, end
    return LibsvmRows(
        targets=targets[: at.n_rows],
        values=values[: at.n_values],
        indices=indices[: at.n_values],
        bounds=bounds[: at.n_rows + 1],
        lines=at.lines,
        is_float32=bool(at.is_float32),
        least=at.least,
        most=at.most,
    )


def _row(line: bytes, first_column: int) -> tuple[float, list[float], list[int]] | None:
    """Return target, values and columns of a line; ``None`` for an empty one.

    Raises :class:`LineError` with the number of a character, and a sentence.
    """
    words = list(_WORD.finditer(line.partition(b"#")[0]))
    if not words:
        return None
    target = words[0]
    if b":" in target[0]:
        raise LineError(target.start(), f"{_text(target)} is a pair, and a line begins with y")
    if b"," in target[0]:
        raise LineError(target.start(), f"{_text(target)} has several values, and y has one")
    return _number(target[0], target), *_pairs(words[1:], first_column)


def _pairs(words: list[re.Match[bytes]], first_column: int) -> tuple[list[float], list[int]]:
    values, columns = [], []
    last = -1
    for word in words:
        if word[0].startswith(b"qid:"):
            raise LineError(word.start(), f"{_text(word)} is a query, which ranking alone uses")
        pair = _PAIR.fullmatch(word[0])
        if pair is None:
            raise LineError(word.start(), f"{_text(word)} is no pair column:value")
        column = int(pair[1]) - first_column
        if column < 0:
            what = f"{_text(word)} is in column {int(pair[1])}, and the first is {first_column}"
            raise LineError(word.start(), what)
        if column >= _MOST_COLUMN:
            raise LineError(word.start(), f"{_text(word)} is in a column beyond 2^31")
        if column <= last:
            what = f"{_text(word)} is not in a later column than the pair before it"
            raise LineError(word.start(), what)
        last = column
        columns.append(column)
        values.append(_number(pair[2], word))
    return values, columns


def _number(text: bytes, word: re.Match[bytes]) -> float:
    """Return a number that is finite; Python rounds to the nearest float64."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    if math.isinf(number):
        shown = text.decode(errors="replace")[:40]
        raise LineError(word.start(), f"{shown!r} is not a finite number")
    return number


def _text(word: re.Match[bytes]) -> str:
    return repr(word[0].decode(errors="replace")[:40])
