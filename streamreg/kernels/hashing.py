"""Texts to hashed columns of X, with the columns and signs of scikit-learn's hashers."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.kernels.library import load_library

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from streamreg.blocks import Float64, Int64

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_NUL = "\0"


class HashedValues(NamedTuple):
    """One column of X for each of n texts."""

    columns: NDArray[np.int32]  # (n,)
    signs: Float64  # (n,) 1 or -1
    # whether some texts may be a number, date or truth value that is written in other ways too
    is_respelled: bool


class HashedTokens(NamedTuple):
    """The columns of X of n texts of several tokens."""

    columns: NDArray[np.int32]  # (m,)
    values: Float64  # (m,) 1 or -1, or their sums
    bounds: Int64  # (n + 1,) from 0 to m


def hash_values(texts: Any, prefix: str, bits: int) -> HashedValues:  # noqa: ANN401
    """Hash ``prefix`` + text by MurmurHash3, seed 0, to one of 2^bits columns.

    ``texts`` is an array of Arrow, of strings; null is as the empty text. Columns and signs are
    those of ``FeatureHasher(2**bits)``: of a dictionary {"c": "v"}, the prefix is ``"c="``.
    """
    n = len(texts)
    library = load_library()
    if library is None and n:
        found = _feature_hasher(bits).transform(
            [[f"{prefix}{text or ''}"] for text in texts.to_pylist()]
        )
        return HashedValues(found.indices.astype(np.int32), found.data, is_respelled=True)
    columns, signs = np.empty(n, np.int32), np.empty(n)
    if library is None:
        return HashedValues(columns, signs, is_respelled=False)
    data, bounds = _utf8(texts)
    key = prefix.encode()
    hash_texts = library.functions.hash_texts
    hash_texts.restype = _INT64
    hash_texts.argtypes = [_POINTER] * 2 + [_INT64] * 2 + [ctypes.c_char_p] + [_INT64] * 2
    hash_texts.argtypes += [_POINTER] * 2
    respelled = hash_texts(
        data.ctypes.data,
        bounds.ctypes.data,
        bounds.itemsize == 8,  # noqa: PLR2004
        n,
        key,
        len(key),
        bits,
        columns.ctypes.data,
        signs.ctypes.data,
    )
    if respelled < 0:
        raise MemoryError("no memory for the longest text of a column")
    return HashedValues(columns, signs, bool(respelled))


def hash_texts(
    texts: Any,  # noqa: ANN401
    bits: int,
    *,
    analyzer: str = "word",
    ngrams: tuple[int, int] = (1, 1),
) -> HashedTokens:
    """Hash the tokens of texts to 2^bits columns, as ``HashingVectorizer`` does without a norm.

    ``texts`` is an array of Arrow, of strings; null has no token. scikit-learn finds the tokens,
    but for words of ASCII, which the compiled loop finds; NUL counts as a space. :func:`tidy` adds
    up tokens of one column.
    """
    library = load_library()
    if not len(texts):
        return HashedTokens(np.empty(0, np.int32), np.empty(0), np.zeros(1, np.int64))
    if library is None:
        documents = [text or "" for text in texts.to_pylist()]
        found = vectorizer(bits, analyzer, ngrams).transform(documents)
        return HashedTokens(
            found.indices.astype(np.int32), found.data, found.indptr.astype(np.int64)
        )
    by_words = analyzer == "word" and ngrams == (1, 1)
    data, bounds = _utf8(texts)
    if not by_words or (data >= 128).any():  # noqa: PLR2004
        analyse = vectorizer(bits, analyzer, ngrams).build_analyzer()
        data, bounds = _analysed(texts.to_pylist(), analyse, by_words=by_words)
    bounds = bounds.astype(np.int64)
    # its words become lower case
    data = data[bounds[0] : bounds[-1]].copy()
    bounds -= bounds[0]
    most = len(data) + 1
    columns, signs = np.empty(most, np.int32), np.empty(most)
    starts = np.empty(len(bounds), np.int64)
    hash_tokens = library.functions.hash_tokens
    hash_tokens.restype = _INT64
    hash_tokens.argtypes = [_POINTER] * 2 + [_INT64] * 3 + [_POINTER] * 3
    m = hash_tokens(
        data.ctypes.data,
        bounds.ctypes.data,
        len(bounds) - 1,
        by_words,
        bits,
        starts.ctypes.data,
        columns.ctypes.data,
        signs.ctypes.data,
    )
    return HashedTokens(columns[:m], signs[:m], starts)


def tidy(rows: HashedTokens) -> HashedTokens:
    """Sort the values of each row by columns, and add up those of one column; in place."""
    library = load_library()
    if library is None:
        from scipy.sparse import csr_array  # noqa: PLC0415  (imported only for sparse rows)

        width = int(rows.columns.max(initial=0)) + 1
        matrix = csr_array((rows.values, rows.columns, rows.bounds), (len(rows.bounds) - 1, width))
        matrix.sum_duplicates()
        columns, bounds = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64)
        return HashedTokens(columns, matrix.data, bounds)
    tidy_rows = library.functions.tidy_rows
    tidy_rows.restype = _INT64
    tidy_rows.argtypes = [_POINTER, _INT64, _POINTER, _POINTER]
    columns, values, bounds = (
        np.ascontiguousarray(each, dtype)
        for each, dtype in zip(rows, (np.int32, np.float64, np.int64), strict=True)
    )
    m = tidy_rows(bounds.ctypes.data, len(bounds) - 1, columns.ctypes.data, values.ctypes.data)
    return HashedTokens(columns[:m], values[:m], bounds)


@cache
def vectorizer(bits: int, analyzer: str, ngrams: tuple[int, int]) -> Any:  # noqa: ANN401
    """Return the vectoriser of scikit-learn whose columns and signs those of a text are."""
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415  (slow)

    return HashingVectorizer(n_features=1 << bits, analyzer=analyzer, ngram_range=ngrams, norm=None)


@cache
def _feature_hasher(bits: int) -> Any:  # noqa: ANN401
    from sklearn.feature_extraction import FeatureHasher  # noqa: PLC0415  (slow)

    return FeatureHasher(1 << bits, input_type="string")


def _analysed(
    documents: Sequence[str | None], analyse: Callable[[str], list[str]], *, by_words: bool
) -> tuple[NDArray[np.uint8], Int64]:
    """Return the tokens of documents as UTF-8, separated by spaces or by NUL, and their bounds."""
    mark = " " if by_words else _NUL
    texts = [
        mark.join(analyse(text.replace(_NUL, " "))).encode() if text else b"" for text in documents
    ]
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    # one byte more, because an empty array has no address
    return np.frombuffer(b"".join([*texts, b" "]), np.uint8), bounds


def _utf8(texts: Any) -> tuple[NDArray[np.uint8], NDArray[Any]]:  # noqa: ANN401
    """Return the bytes of an array of Arrow, and the bounds of its texts, without a copy."""
    _, bounds, data = texts.buffers()
    wide = str(texts.type) == "large_string"
    dtype = np.int64 if wide else np.int32
    if bounds is None or not len(texts):
        return np.zeros(1, np.uint8), np.zeros(1, dtype)
    found = np.frombuffer(bounds, dtype)[texts.offset : texts.offset + len(texts) + 1]
    return np.zeros(1, np.uint8) if data is None else np.frombuffer(data, np.uint8), found
