"""The block cache: which blocks it holds, that they are read once, and that no bit changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from streamreg import LinearRegression, plan
from streamreg.accumulators.gradient import Gradient
from streamreg.blocks import Block
from streamreg.engines.block_cache import BlockCache, CachingReader, slot_nbytes
from streamreg.engines.partition import Blocks
from streamreg.engines.threads import ThreadsEngine
from streamreg.formatting import MIB
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.open import open_dataset


def data_set(path, X, chunk_rows, *, y=None, weight=None, **options):
    group = zarr.create_group(path)
    group.create_array("X", data=X, chunks=(chunk_rows, X.shape[1]))
    group.create_array("y", data=X[:, 0].astype(float) if y is None else y)
    if weight is not None:
        group.create_array("sample_weight", data=weight)
    return open_dataset(path, **options)


def is_readable(X):
    return X.flags.c_contiguous, X.flags.f_contiguous, X.flags.aligned


def cached_numbers(dataset, n_slots):
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    cache = BlockCache(dataset, blocks, n_slots * slot_nbytes(dataset, blocks.max_rows))
    reader = CachingReader(dataset, cache)
    for start, stop in blocks:
        reader.read(start, stop)
    return [number for number, (start, _) in enumerate(blocks) if cache.get(start)], len(blocks)


@pytest.fixture
def dataset(tmp_path):
    X = np.random.default_rng(0).standard_normal((40_000, 65))  # 20 MiB
    return data_set(tmp_path / "a.zarr", X, 4_000)


@pytest.mark.parametrize("n_slots", [0, 1, 3, 9, 10, 25])
def test_as_many_blocks_as_fit_are_cached_and_spread_evenly(dataset, n_slots):
    numbers, n_blocks = cached_numbers(dataset, n_slots)
    assert len(numbers) == min(n_slots, n_blocks)
    gaps = [b - a for a, b in itertools.pairwise(numbers)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_cached_blocks_are_read_once(dataset, tmp_path, chunks_opened):
    accumulator = Gradient(np.ones((65, 1)), np.zeros(1), 1)
    with ThreadsEngine(dataset, 2, cache_nbytes=100 * MIB) as engine:
        first = engine.reduce(accumulator).result
        before = len(chunks_opened())
        second = engine.reduce(accumulator).result
        assert len(chunks_opened()) == before
    assert first.gradient.tobytes() == second.gradient.tobytes()


@given(
    dtype=st.sampled_from(["<f8", ">f4", "u1", "?", "<f2"]),
    weighted=st.booleans(),
    omit=st.booleans(),
    n_slots=st.integers(0, 12),
)
def test_cached_blocks_change_no_bit(tmp_path_factory, dtype, weighted, omit, n_slots):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((300, 5)) * 3).astype(dtype)
    if omit and X.dtype.kind == "f":
        X[rng.integers(0, 300, 20), 0] = np.nan
    dataset = data_set(
        tmp_path_factory.mktemp("cache") / "a.zarr",
        X,
        30,
        y=rng.standard_normal(300),
        weight=rng.integers(0, 3, 300).astype("u1") if weighted else None,
        nan_policy="omit" if omit else "raise",
    )
    blocks = Blocks(300, 30, 30)
    room = n_slots * slot_nbytes(dataset, 30)
    reader, plain = CachingReader(dataset, BlockCache(dataset, blocks, room)), BlockReader(dataset)
    for _ in range(3):
        for start, stop in blocks:
            block, expected = reader.read(start, stop), plain.read(start, stop)
            for field in ("X", "y", "weight", "start"):
                np.testing.assert_array_equal(getattr(block, field), getattr(expected, field))
            assert is_readable(block.X) == is_readable(expected.X)
        assert reader.n_omitted == plain.n_omitted


@pytest.mark.parametrize(("dtype", "y_dtype"), [("f8", "i1"), ("f4", "i1"), ("f8", "f4")])
def test_cached_blocks_are_read_by_the_same_kernels(tmp_path, dtype, y_dtype):
    # rows and targets of odd sizes: the second slot must be aligned for float64 all the same
    X = np.random.default_rng(0).standard_normal((30_003, 101)).astype(dtype)
    dataset = data_set(tmp_path / "a.zarr", X, 5001, y=X[:, 0].astype(y_dtype))
    results = []
    for room in (0, 100 * MIB):
        with ThreadsEngine(dataset, 2, cache_nbytes=room) as engine:
            for _ in range(2):
                result = engine.reduce(Gradient(np.ones((101, 2)), np.zeros(2), 1)).result
            results.append(result.gradient.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("order", ["C", "F", "columns"])
def test_blocks_of_mapped_files_are_cached_in_any_order(tmp_path, order):
    X = np.asarray(
        np.random.default_rng(0).standard_normal((5000, 40)), order="F" if order == "F" else "C"
    )
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    mapped = mapped[:, 3:30] if order == "columns" else mapped
    dataset = open_dataset(mapped, X[:, 0])
    numbers, n_blocks = cached_numbers(dataset, 100)
    assert len(numbers) == n_blocks


def test_the_plan_caches_what_the_limit_leaves_unused(dataset, tmp_path):
    needed = plan(tmp_path / "a.zarr", solver="cg").candidates["cg"].needed_nbytes
    answers = []
    for limit in (needed, needed + 10 * MIB, needed + 100 * MIB):
        fit = LinearRegression(solver="cg", memory_limit=limit).fit(tmp_path / "a.zarr")
        candidate = fit.plan_.candidates["cg"]
        assert candidate.peak_nbytes <= limit
        answers.append((candidate.cache_nbytes // MIB, fit.coef_.tobytes()))
    cached, bits = zip(*answers, strict=True)
    assert cached[0] == 0
    assert 5 <= cached[1] <= 10
    assert cached[2] >= 20
    assert len(set(bits)) == 1


def test_arrays_in_memory_are_not_cached():
    X = np.ones((100_000, 20))
    assert plan(X, X[:, 0], solver="cg").candidates["cg"].cache_nbytes == 0


@pytest.mark.parametrize("size", [1.0, 1e200])
def test_the_memory_limit_changes_no_bit_if_y_is_not_contiguous(tmp_path, size):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_000, 65)) * size  # 30 MiB
    zarr.create_array(store=tmp_path / "X.zarr", data=X, chunks=(4_000, 65))
    wide = rng.standard_normal((60_000, 9))
    answers = set()
    for y in (wide[:, ::3], np.asfortranarray(wide)[:, ::3], wide[::-1, ::3]):
        needed = plan(tmp_path / "X.zarr", y, solver="cg").candidates["cg"].needed_nbytes
        answers = {
            LinearRegression(solver="cg", memory_limit=limit, tol=1e-3)
            .fit(tmp_path / "X.zarr", y)
            .coef_.tobytes()
            for limit in (needed, needed + 20 * MIB, needed + 100 * MIB)
        }
        assert len(answers) == 1


@pytest.mark.parametrize(
    "y", [np.zeros((4_000, 4))[:, ::2], np.zeros((8_000, 2), order="F")[::2]], ids=["C", "F"]
)
def test_a_cached_block_keeps_the_memory_order_of_y_that_is_not_contiguous(tmp_path, y):
    # kernels add up in the order of memory, so another order would change last bits
    dataset = data_set(tmp_path / "a.zarr", np.zeros((4_000, 65)), 4_000, y=np.zeros((4_000, 2)))
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    cache = BlockCache(dataset, blocks, slot_nbytes(dataset, blocks.max_rows))
    cache.put(Block(np.zeros((4_000, 65)), y, None, 0), 0)
    cached = cache.get(0).block.y
    assert np.argsort(cached.strides).tolist() == np.argsort(y.strides).tolist()
