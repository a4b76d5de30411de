"""Dask arrays and lazy expressions give the rows that NumPy gives; shared work gives a warning."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import strategies as ours
from hypothesis import given
from hypothesis import strategies as st
from stores import read_all

from streamreg.errors import DataCorruptionError, DataWarning, InputError
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.kinds import open_source
from streamreg.sources.open import open_dataset

da = pytest.importorskip("dask.array")

ROWS, COLUMNS, HEIGHT = 240, 3, 10


class Loads:
    """A Dask array that counts how often each chunk is loaded."""

    def __init__(self, heights=(HEIGHT,) * (ROWS // HEIGHT), columns=COLUMNS):
        self.values = np.random.default_rng(0).normal(size=(sum(heights), columns)) + 5
        self.count = Counter()
        self.bounds = np.cumsum([0, *heights])
        self.array = da.map_blocks(
            self._load, chunks=(heights, (columns,)), dtype=float, meta=np.empty((0, 0))
        )

    def _load(self, block_info=None):
        number = block_info[None]["chunk-location"][0]
        self.count[number] += 1
        return self.values[self.bounds[number] : self.bounds[number + 1]]


def assert_rows(source, values, spans):
    reader = source.open()
    for start, stop in spans:
        rows = reader.read(start, stop)
        assert rows.dtype == values.dtype
        np.testing.assert_array_equal(rows, values[start:stop])


@given(st.data())
def test_any_chunks_have_the_rows_of_numpy(data):
    values = data.draw(ours.arrays())
    chunks = tuple(data.draw(ours.heights(length)) for length in values.shape)
    source = open_source(da.from_array(values, chunks=values.shape).rechunk(chunks), "X")
    assert_rows(source, values, data.draw(ours.spans(len(values))))
    for row in range(len(values)):
        chunk = source.grid.chunk_at(row)
        start, stop = source.grid.rows(chunk)
        assert start <= row < stop
        assert f"chunk row {chunk} of the Dask array X" in source.place(row)


# DataWarning: the arrays have many small chunks
@pytest.mark.filterwarnings("ignore:a chunk row of the Dask array X:streamreg.DataWarning")
@given(st.data())
def test_lazy_expressions_have_the_rows_of_numpy(data):
    n = data.draw(st.integers(2, 60))
    values = ours.filled((n, 4), np.dtype("f8"))
    # Dask itself cannot compute means of empty chunks
    chunks = (data.draw(ours.heights(n, empty=False)), data.draw(ours.heights(4, empty=False)))
    x = da.from_array(values, chunks=chunks)
    make = data.draw(
        st.sampled_from(
            [
                lambda a, _: a * 2 + 1,
                lambda a, _: (a - a.mean(axis=0)) / a.std(axis=0),
                lambda a, xp: xp.concatenate([a, a**2], axis=1),
                lambda a, _: a[:, ::-1][1:],
                lambda a, xp: xp.cumsum(a, axis=0),
                lambda a, _: a / (a - a.mean(axis=0)).std(axis=0),
                lambda a, _: a @ a[:2].T,
            ]
        )
    )
    lazy = make(x, da)
    read = read_all(open_source(lazy, "X"), rows=data.draw(st.integers(1, n)))
    # the sums of a mean are taken chunk by chunk
    np.testing.assert_allclose(read, make(values, np), rtol=1e-10)


def test_planning_and_opening_compute_nothing():
    loads = Loads()
    source = open_source(loads.array * 2, "X")
    source.reader_nbytes(HEIGHT)
    source.open()
    assert not loads.count


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x - x.mean(axis=0),
        lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
        lambda x: x / (x - x.mean(axis=0)).std(axis=0),
        lambda x: da.cumsum(x, axis=0),
    ],
)
def test_work_that_most_chunk_rows_share_gives_one_warning(make):
    lazy = make(Loads().array)
    source = open_source(lazy, "X")
    with pytest.warns(DataWarning, match=r"a chunk row of the Dask array X needs \d+ of \d+ tasks"):
        source.open()
    np.testing.assert_array_equal(read_all(source), lazy)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x * 2 + 1,
        lambda x: da.concatenate([x, x**2], axis=1),
        lambda x: x @ np.ones((COLUMNS, COLUMNS)),
        lambda x: x.rechunk((7, 2)),
        lambda x: da.map_overlap(lambda block: block * 2, x, depth=(1, 0), boundary="none"),
        # what the warning advises
        lambda x: x - x.mean(axis=0).compute(),
        lambda x: (y := x.persist(scheduler="sync")) - y.mean(axis=0).compute(),
    ],
)
def test_chunk_rows_that_share_little_give_no_warning(make):
    # pytest turns a warning into an error
    lazy = make(Loads().array)
    np.testing.assert_array_equal(read_all(open_source(lazy, "X")), lazy)


def test_a_mean_that_was_computed_before_is_not_computed_again():
    loads = Loads()
    source = open_source(loads.array - loads.array.mean(axis=0).compute(), "X")
    loads.count.clear()
    read_all(source)
    assert loads.count == Counter(range(ROWS // HEIGHT))


def test_many_readers_compute_what_numpy_does():
    loads = Loads()
    source = open_source(loads.array * 2, "X")
    wrong = []

    def read(first):
        reader = source.open()
        for chunk in range(first, ROWS // HEIGHT, 4):
            span = slice(chunk * HEIGHT, (chunk + 1) * HEIGHT)
            if not np.array_equal(reader.read(span.start, span.stop), loads.values[span] * 2):
                wrong.append(chunk)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert loads.count == Counter(range(ROWS // HEIGHT))


def test_the_last_chunk_of_a_long_chain_can_be_read_first():
    # each chunk needs the sum of the one before: a recursion would exceed Python's stack
    values = np.ones((3000, 1))
    source = open_source(da.cumsum(da.from_array(values, chunks=(1, 1)), axis=0), "X")
    with pytest.warns(DataWarning, match=r"of 3,000 chunk rows computes them again"):
        reader = source.open()
    assert reader.read(2999, 3000) == 3000


def test_one_row_or_one_chunk():
    for values in (np.ones((1, 2)), np.ones((5, 2)), np.ones(5)):
        x = da.from_array(values, chunks=values.shape)
        np.testing.assert_array_equal(read_all(open_source(x * 3, "X")), values * 3)


def test_unknown_chunks_are_refused_with_a_remedy():
    x = da.from_array(np.arange(10.0).reshape(5, 2), chunks=(2, 2))
    unknown = x[x[:, 0] > 2]
    with pytest.raises(
        InputError, match=r"X is a Dask array of unknown shape.*X\.compute_chunk_si"
    ):
        open_source(unknown, "X")
    np.testing.assert_array_equal(read_all(open_source(unknown.compute_chunk_sizes(), "X")), x[2:])


def test_other_collections_are_refused_with_a_remedy():
    delayed = pytest.importorskip("dask").delayed
    with pytest.raises(InputError, match=r"X is a dask\.delayed\.Delayed; pass a dask\.array"):
        open_source(delayed(np.ones)(3), "X")


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("gone"), DataCorruptionError), (KeyError("z"), InputError)]
)
def test_tasks_that_fail_are_named_by_rows(error, kind):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"][0] == 2:
            raise error
        return block

    x = da.ones((25, 2), chunks=(10, 2)).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    reader = open_source(x, "X").open()
    reader.read(0, 20)
    message = rf"chunk row 2 of the Dask array X \(rows 20.24\).*{type(error).__name__}"
    with pytest.raises(kind, match=message):
        reader.read(20, 25)


def test_chunks_of_another_shape_or_dtype_than_claimed_are_an_input_error():
    x = da.ones((20, 2), chunks=(10, 2))
    short = x.map_blocks(lambda block: block[1:], dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(InputError, match=r"chunk row 0 .* returned shape \(9, 2\) but declares"):
        read_all(open_source(short, "X"))
    whole = x.map_blocks(lambda block: block / 2, dtype=int, meta=np.empty((0, 0), int))
    with pytest.raises(InputError, match=r"returned float64 but declares int64"):
        read_all(open_source(whole, "X"))


def test_x_and_y_may_share_a_graph():
    loads = Loads()
    reader = BlockReader(open_dataset(loads.array[:, :2], loads.array[:, 2]))
    block = reader.read(5, 25)
    np.testing.assert_array_equal(block.X, loads.values[5:25, :2])
    np.testing.assert_array_equal(block.y, loads.values[5:25, 2:])
