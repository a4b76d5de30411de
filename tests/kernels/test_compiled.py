"""The compiled kernels: the same bits on every level of instructions, from memory or from files."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamreg.blocks import Block, FileRows
from streamreg.kernels import compiled
from streamreg.kernels.base import Affine
from streamreg.kernels.library import LEVELS, load_level
from streamreg.kernels.registry import load_kernels
from streamreg.kernels.states import MomentsState, ProductState, ResidualState

FUSED = [level for level in ("v3", "v4", "neon") if load_level(level)]
ALL = [level for level in ("baseline", *FUSED) if load_level(level)]
DTYPES = [
    "?",
    "u1",
    "i1",
    "<u2",
    ">i2",
    "<i4",
    ">u4",
    "<i8",
    ">u8",
    "<f2",
    ">f2",
    "<f4",
    ">f4",
    "<f8",
    ">f8",
]

pytestmark = pytest.mark.skipif(not ALL, reason="nothing was compiled when streamreg was installed")


class Stored:
    """Rows in some files, as a source hands them to kernels."""

    def __init__(self, path, X, bounds):
        self.X, self.reads, self.files = X, [], []
        for number, first in enumerate(bounds[:-1]):
            part = path / str(number)
            # some bytes before the rows, as files have headers
            part.write_bytes(b"header" + X[first : bounds[number + 1]].tobytes())
            self.files.append(os.open(part, os.O_RDONLY))
        self.rows = FileRows(
            shape=X.shape,
            dtype=X.dtype,
            files=np.array(self.files, np.int64),
            offsets=np.full(len(self.files), 6, np.int64),
            bounds=np.array(bounds, np.int64),
            read=self.read,
            # a piece holds some tiles, and ends within a file
            piece=np.empty(300_000, np.uint8),
        )

    def read(self, first, stop):
        self.reads.append((first, stop))
        return self.X[first:stop]

    def close(self):
        for file in self.files:
            os.close(file)


def reduced(level, block, *, columns=None, targets=1, scale=None, shift=None):
    """Return the states of all O(D) kernels."""
    d, m = block.X.shape[1], columns or targets
    rng = np.random.default_rng(7)
    products, moments = ProductState.zero(d, targets, m), MomentsState.zero(d, targets)
    kernels = load_kernels(level).for_block(block)
    kernels.find("products")(
        block,
        products,
        coefficients=rng.standard_normal((d, m)),
        bias=rng.standard_normal(m),
        x=Affine(scale, shift),
    )
    kernels.find("moments")(block, moments, x_scale=scale, y_scale=None)
    residuals = ResidualState.zero(d, m)
    kernels.find("residuals")(
        block,
        residuals,
        coefficients=rng.standard_normal((m, 2, d)),
        bias=rng.standard_normal((m, 2)),
        n_targets=targets,
        x_scale=scale,
    )
    return [*products, *moments, *residuals]


@st.composite
def dense_blocks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d, k = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 3))
    X = (rng.standard_normal((n, d)) * 50 + 60).astype(draw(st.sampled_from(DTYPES)))
    weight = rng.uniform(0.1, 2.0, n) if draw(st.booleans()) else None
    if draw(st.booleans()):
        X = np.asfortranarray(X)
    return Block(X, rng.standard_normal((n, k)), weight, 0)


@pytest.mark.skipif(len(FUSED) < 2, reason="this processor has one level with fused sums")
@given(block=dense_blocks(), directed=st.booleans(), scaled=st.booleans(), shifted=st.booleans())
def test_levels_with_fused_sums_give_the_same_bits(block, directed, scaled, shifted):
    d, k = block.X.shape[1], block.y.shape[1]
    how = {
        "columns": 2 * k if directed else k,
        "targets": k,
        "scale": np.full(d, 0.25) if scaled else None,
        "shift": np.linspace(0, 60, d) if shifted else None,
    }
    first, *others = (reduced(level, block, **how) for level in FUSED)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", ALL)
def test_rows_of_files_give_the_bits_of_rows_in_memory(tmp_path, level, dtype):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((20_000, 5)) * 50).astype(dtype)
    y, weight = rng.standard_normal((20_000, 1)), rng.uniform(0.5, 1.5, 20_000)
    stored = Stored(tmp_path, X, [0, 7, 9_001, 20_000])
    in_files = reduced(level, Block(stored.rows, y, weight, 0), columns=2)
    for a, b in zip(in_files, reduced(level, Block(X, y, weight, 0), columns=2), strict=True):
        np.testing.assert_array_equal(a, b)
    # the origin, and nothing else, was read by the source's reader
    assert stored.reads == [(0, 1)]
    stored.close()


@pytest.mark.parametrize("level", ALL[-1:])
def test_rows_that_the_loop_cannot_read_are_read_again_by_the_source(tmp_path, level):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20_000, 5)), rng.standard_normal((20_000, 1))
    stored = Stored(tmp_path, X, [0, 10_000, 20_000])
    os.truncate(tmp_path / "1", 6 + 40 * 1_000)
    in_files = reduced(level, Block(stored.rows, y, None, 0), columns=2)
    assert len(stored.reads) > 1
    for a, b in zip(in_files, reduced(level, Block(X, y, None, 0), columns=2), strict=True):
        np.testing.assert_array_equal(a, b)
    stored.close()


def test_another_kind_of_processors_level_is_refused():
    foreign = next(
        level for levels in LEVELS.values() for level in levels if load_level(level) is None
    )
    with pytest.raises(LookupError, match=f"no kernels '{foreign}' that run on this processor"):
        load_kernels(foreign)


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("d", [3, 50, 900])
def test_bits_depend_neither_on_the_layout_of_rows_nor_on_how_many_are_copied_at_a_time(
    monkeypatch, level, d
):
    rng = np.random.default_rng(0)
    n = 150_000 // d + 7
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, 3))
    weight = rng.uniform(0.5, 1.5, n)
    first = reduced(level, Block(X, y, weight, 0), targets=3)
    monkeypatch.setattr(compiled, "_COPIED_NBYTES", 1)
    for copy in (X, np.asfortranarray(X)):
        others = reduced(level, Block(copy, y, weight, 0), targets=3)
        for a, b in zip(first, others, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("level", ALL)
def test_any_byte_of_a_boolean_but_0_is_1(tmp_path, level):
    stored = np.arange(512, dtype=np.uint8).reshape(64, 8) % 4
    X, y = stored.view(bool), stored[:, :1].view(bool)
    plain = Block((stored != 0).astype(float), (stored[:, :1] != 0).astype(float), None, 0)
    expected = reduced(level, plain)
    in_files = Stored(tmp_path, X, [0, 64])
    for block in (Block(X, y, None, 0), Block(in_files.rows, y, None, 0)):
        for a, b in zip(reduced(level, block), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    in_files.close()
    for a, b in zip(reduced("numpy", Block(X, y, None, 0)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9)


def test_loops_whose_structs_differ_from_pythons_are_not_run(monkeypatch):
    fields = [("m", compiled._INT64)]
    shorter = type("products", (ctypes.Structure,), {"_fields_": fields})
    monkeypatch.setattr(compiled, "_STRUCTS", (shorter,))
    with pytest.raises(TypeError, match=r"struct products has 80 bytes in .* and 8 in Python"):
        compiled._Loops(load_level(ALL[0]))
