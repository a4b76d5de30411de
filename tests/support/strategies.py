"""Hypothesis strategies: arrays, ways to cut them, and ways to store them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numcodecs
import numpy as np
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

KINDS = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


def dtypes(kinds: tuple[str, ...] = KINDS) -> st.SearchStrategy[np.dtype]:
    """Real dtypes of every width, in both byte orders."""
    return st.builds(
        lambda kind, order: np.dtype(kind).newbyteorder(order),
        st.sampled_from(kinds),
        st.sampled_from("<>"),
    )


def shapes(*, most_rows: int = 40, most_columns: int = 6) -> st.SearchStrategy[tuple[int, ...]]:
    """(N,) or (N, D), not empty."""
    rows, columns = st.integers(1, most_rows), st.integers(1, most_columns)
    return st.one_of(st.tuples(rows), st.tuples(rows, columns))


def filled(shape: tuple[int, ...], dtype: np.dtype, seed: int = 0) -> np.ndarray:
    """Return values of all magnitudes that the dtype has, with none equal to a fill value."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return (rng.normal(size=shape) * 100 + 1000).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype.newbyteorder("="), endpoint=True).astype(
        dtype
    )


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """(N,) or (N, D) of any real dtype."""
    return filled(draw(shapes()) if shape is None else shape, draw(dtypes()))


def chunk_shapes(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunks that divide the array, leave a partial one, or are larger than it."""
    return st.tuples(*(st.integers(1 + length // 6, length + 3) for length in shape))


@st.composite
def heights(draw: st.DrawFn, n_rows: int, *, empty: bool = True) -> tuple[int, ...]:
    """Cut ``n_rows`` into pieces of any height; some may be empty if ``empty``."""
    cuts = draw(st.lists(st.integers(0, n_rows), max_size=6).map(sorted))
    pieces = tuple(stop - start for start, stop in pairwise([0, *cuts, n_rows]))
    return pieces if empty else tuple(piece for piece in pieces if piece)


def spans(n_rows: int, *, most: int = 6) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Row ranges to be read, in any order."""
    span = st.tuples(st.integers(0, n_rows - 1), st.integers(1, n_rows)).map(
        lambda pair: (pair[0], min(n_rows, pair[0] + pair[1]))
    )
    return st.lists(span, min_size=1, max_size=most)


_V3_DIRECT = (
    (),
    (ZstdCodec(),),
    (ZstdCodec(checksum=True),),
    (BloscCodec(cname="lz4"),),
    (BloscCodec(cname="zstd", shuffle="noshuffle"),),
    (GzipCodec(level=1),),
    (Crc32cCodec(),),
    (ZstdCodec(), Crc32cCodec()),
    (BloscCodec(), Crc32cCodec()),
)
_V3_OTHER = ((GzipCodec(level=1), ZstdCodec()),)
_V2_DIRECT = (
    None,
    numcodecs.Zstd(),
    numcodecs.Blosc(),
    numcodecs.Blosc(cname="zlib", shuffle=numcodecs.Blosc.BITSHUFFLE),
    numcodecs.GZip(1),
    numcodecs.Zlib(1),
    numcodecs.LZ4(),
)
_V2_OTHER = (numcodecs.BZ2(1),)


@st.composite
def v3_layouts(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[dict[str, Any], bool]:
    """Keywords of ``zarr.create_array`` for a Zarr v3 array, and whether it is read directly."""
    chunks = draw(chunk_shapes(shape))
    direct = draw(st.booleans())
    transposed = not direct and len(shape) > 1 and draw(st.booleans())
    compressors = draw(st.sampled_from(_V3_DIRECT if direct or transposed else _V3_OTHER))
    layout: dict[str, Any] = {
        "chunks": chunks,
        "filters": (TransposeCodec(order=(1, 0)),) if transposed else (),
        "serializer": BytesCodec(endian=draw(st.sampled_from(["little", "big"]))),
        "compressors": compressors,
    }
    if draw(st.booleans()):
        counts = draw(st.tuples(*(st.integers(1, 3) for _ in shape)))
        layout["shards"] = {
            "shape": tuple(a * b for a, b in zip(chunks, counts, strict=True)),
            "index_location": draw(st.sampled_from(["start", "end"])),
        }
    if draw(st.booleans()):
        layout["chunk_key_encoding"] = {"name": "v2", "separator": "."}
    return layout, direct


@st.composite
def v2_layouts(draw: st.DrawFn, values: np.ndarray) -> tuple[dict[str, Any], bool]:
    """Keywords of ``zarr.create_array`` for a Zarr v2 array, and whether it is read directly."""
    other = draw(st.sampled_from(["", "", "", "order", "filter", "codec"]))
    layout: dict[str, Any] = {
        "zarr_format": 2,
        "chunks": draw(chunk_shapes(values.shape)),
        "compressors": draw(st.sampled_from(_V2_OTHER if other == "codec" else _V2_DIRECT)),
        "chunk_key_encoding": {"name": "v2", "separator": draw(st.sampled_from("./"))},
    }
    if other == "order":
        layout["order"] = "F"
    if other == "filter":
        layout["filters"] = [numcodecs.Shuffle(values.dtype.itemsize)]
    return layout, other == "" or (other == "order" and values.ndim == 1)
