"""NumPy arrays, memory maps, HDF5 and array-likes are read as by NumPy, in bounded memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
import strategies as ours
from hypothesis import given
from hypothesis import strategies as st
from stores import read_all

from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.kinds import is_streamable, open_source
from streamreg.sources.memmap import MemmapSource
from streamreg.sources.open import open_dataset


class ArrayLike:
    """An array that has only shape, dtype and slices."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype

    def __getitem__(self, rows):
        return self.values[rows]


class Chunked(ArrayLike):
    def __init__(self, values, chunks):
        super().__init__(values)
        self.chunks = chunks


def assert_rows(source, values, spans):
    reader = source.open()
    for start, stop in spans:
        rows = reader.read(start, stop)
        assert rows.dtype.newbyteorder("=") == values.dtype.newbyteorder("=")
        np.testing.assert_array_equal(rows, values[start:stop])
    reader.close()


def views(draw, values):
    """Views of some rows and columns of an array, adjacent or with gaps."""
    row_step = draw(st.sampled_from([1, 1, 2, 3]))
    first = draw(st.integers(0, len(values) - 1))
    view = values[first::row_step]
    if values.ndim == 1:
        return view
    left = draw(st.integers(0, values.shape[1] - 1))
    return draw(
        st.sampled_from([view, view[:, left:], view[:, left], view[:, ::2], view[::-1, ::-1]])
    )


@given(st.data())
def test_numpy_arrays_are_read_as_views(data):
    values = data.draw(ours.arrays())
    values = data.draw(st.sampled_from([values, np.asfortranarray(values)]))
    values = views(data.draw, values)
    source = open_source(values, "X")
    assert_rows(source, values, data.draw(ours.spans(len(values))))
    assert np.shares_memory(source.open().read(0, 1), values)


@given(st.data())
def test_memory_maps_have_the_rows_of_numpy(tmp_path, data):
    values = data.draw(ours.arrays())
    order = data.draw(st.sampled_from("CF"))
    offset = data.draw(st.sampled_from([0, 8, 4096 + 24]))
    mode = data.draw(st.sampled_from(["r", "r+", "c"]))
    path = tmp_path / "X.bin"
    path.write_bytes(bytes(offset) + values.tobytes(order=order))
    mapped = np.memmap(path, values.dtype, mode, offset, values.shape, order)
    if mode == "c":
        # changes to a map of mode "c" are only in memory
        mapped[0] = values[0] = 1
    view = views(data.draw, mapped)
    if data.draw(st.booleans()):
        view = np.asarray(view)
    np.testing.assert_array_equal(view, read_all(open_source(view, "X"), rows=7))
    assert_rows(open_source(view, "X"), view, data.draw(ours.spans(len(view))))


def test_rows_and_columns_of_a_map_are_copied(tmp_path):
    values = np.arange(600.0).reshape(60, 10)
    values.tofile(tmp_path / "X.bin")
    for order in "CF":
        mapped = np.memmap(tmp_path / "X.bin", float, "r", shape=(60, 10), order=order)
        for view in (
            mapped,
            mapped[5:],
            mapped[:, :-1],
            mapped[:, -1],
            mapped[::2, ::2],
            mapped[::-1],
            np.broadcast_to(mapped[:, :1], (60, 3)),
            np.asarray(mapped),
        ):
            source = open_source(view, "X")
            assert isinstance(source, MemmapSource)
            assert not np.shares_memory(source.open().read(2, 9), mapped)
    wide = np.memmap(tmp_path / "wide.bin", float, "w+", shape=(3, 9000))
    wide[:] = 1
    assert_rows(open_source(wide[:, 7], "y"), wide[:, 7], [(0, 3), (1, 2)])


def test_changes_to_a_shared_map_are_seen(tmp_path):
    mapped = np.memmap(tmp_path / "X.bin", float, "w+", shape=(5, 2))
    mapped[3] = 7
    np.testing.assert_array_equal(read_all(open_source(mapped, "X")), mapped)


@pytest.mark.parametrize("by", ["unlink", "replace"])
def test_a_map_is_read_after_its_file_was_removed_or_replaced(tmp_path, by):
    values = np.arange(10.0).reshape(5, 2)
    path = tmp_path / "X.bin"
    values.tofile(path)
    mapped = np.memmap(path, float, "r", shape=(5, 2))
    if by == "unlink":
        path.unlink()
    else:
        (values + 1).tofile(tmp_path / "other.bin")
        (tmp_path / "other.bin").replace(path)
    np.testing.assert_array_equal(read_all(open_source(mapped, "X")), values)


def test_a_map_of_a_truncated_file_is_refused(tmp_path):
    # to touch its pages would kill the process
    path = tmp_path / "X.bin"
    np.arange(4000.0).tofile(path)
    source = open_source(np.memmap(path, float, "r", shape=(2000, 2)), "X")
    reader = source.open()
    os.truncate(path, 8192)
    with pytest.raises(DataCorruptionError, match=r"rows 0.1,999 of X.*X\.bin.*truncated"):
        reader.read(0, 2000)
    with pytest.raises(DataCorruptionError, match=r"X\.bin has 8,192 bytes where X needs 32,000"):
        source.open()


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path_factory.mktemp("hdf5") / "data.h5", "w") as file:
        yield file


@given(st.data())
def test_hdf5_has_the_rows_of_numpy(hdf5, data):
    values = data.draw(ours.arrays())
    layout = {}
    if data.draw(st.booleans()):
        layout["chunks"] = tuple(
            min(pair)
            for pair in zip(data.draw(ours.chunk_shapes(values.shape)), values.shape, strict=True)
        )
        layout["compression"] = data.draw(st.sampled_from([None, "gzip", "lzf"]))
    hdf5.pop("X", None)
    source = open_source(hdf5.create_dataset("X", data=values, **layout), "X")
    assert_rows(source, values, data.draw(ours.spans(len(values))))


def test_hdf5_chunks_are_read_once_for_any_blocks(hdf5, monkeypatch):
    monkeypatch.setattr("streamreg.sources.hdf5._SMALL_NBYTES", 0)
    values = np.arange(600.0).reshape(60, 10)
    dataset = hdf5.create_dataset("chunked", data=values, chunks=(16, 5), compression="gzip")
    source = open_source(dataset, "X")
    read = []
    monkeypatch.setattr(source, "fill", lambda start, out, _: read.append((start, len(out))))
    reader = source.open()
    for start in range(0, 60, 7):
        reader.read(start, min(60, start + 7))
    assert read == [(0, 16), (16, 16), (32, 16), (48, 12)]


def test_hdf5_messages_name_file_and_path(hdf5):
    source = open_source(hdf5.create_dataset("features", data=np.ones((3, 2))), "X")
    assert source.name == f"X ({hdf5.filename}/features)"


def test_the_error_of_damaged_hdf5_names_the_rows(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).random((40, 5))
    with h5py.File(tmp_path / "X.h5", "w") as file:
        chunks = file.create_dataset("X", data=values, chunks=(8, 5), compression="gzip").id
        where = chunks.get_chunk_info(4).byte_offset
    with (tmp_path / "X.h5").open("r+b") as raw:
        raw.seek(where + 9)
        raw.write(bytes(60))
    with h5py.File(tmp_path / "X.h5") as file:
        source = open_source(file["X"], "X")
        with pytest.raises(
            DataCorruptionError,
            match=r"chunk at \(32, 0\) of X \(.*X\.h5/X\) \(rows 32.39\) is damaged",
        ):
            read_all(source)


def test_a_masked_array_without_masked_values_is_read():
    values = np.arange(6.0).reshape(3, 2)
    for mask in (np.zeros((3, 2), bool), False):
        rows = open_source(np.ma.array(values, mask=mask), "X")
        np.testing.assert_array_equal(read_all(rows), values)


def test_an_npz_file_is_refused_with_the_array_to_pass(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.ones((3, 1)))
    with np.load(tmp_path / "x.npz") as file:
        with pytest.raises(InputError, match=r"pass one of them, as X\['X'\]"):
            open_dataset(file, np.ones(3))
        open_dataset(file["X"], np.ones(3))


def test_a_closed_hdf5_file_is_an_input_error(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "X.h5", "w") as file:
        dataset = file.create_dataset("X", data=np.ones(3))
    with pytest.raises(InputError, match="X, a Dataset, cannot be read"):
        open_source(dataset, "X")


@given(st.data())
def test_anything_with_shape_dtype_and_slices_is_read(data):
    values = data.draw(ours.arrays())
    chunks = data.draw(st.none() | ours.chunk_shapes(values.shape))
    source = open_source(ArrayLike(values) if chunks is None else Chunked(values, chunks), "X")
    assert is_streamable(source.array)
    assert_rows(source, values, data.draw(ours.spans(len(values))))


def test_opening_an_array_reads_nothing():
    class Untouched(ArrayLike):
        def __getitem__(self, rows):
            raise AssertionError(rows)

    source = open_source(Untouched(np.ones((5, 2))), "X")
    source.reader_nbytes(5)
    source.open().close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (ArrayLike(np.ones((5, 2), "f8")).values.astype("c8"), "Complex data not supported: X"),
        (np.array([["a"], ["b"]]), "X has dtype <U1, which is not a real number"),
        (np.zeros((2, 2), "M8[s]"), "X has dtype datetime64"),
        (np.zeros((2, 2), [("a", "f8")]), "X has dtype"),
        (np.zeros((0, 2)), "0 sample"),
        (np.zeros((2, 0)), "0 feature"),
        (np.zeros((2, 2, 2)), "3 dimensions"),
        (np.array(1.0), "0 dimensions"),
    ],
)
def test_what_no_regression_can_use_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        open_dataset(values, np.zeros(2))


def test_masked_values_are_not_read_as_numbers():
    masked = np.ma.masked_greater(np.arange(6.0).reshape(3, 2), 4)
    with pytest.raises(InputError, match=r"X is a masked array.*filled"):
        open_source(masked, "X")
    unmasked = np.ma.masked_array(np.ones((3, 2)))
    np.testing.assert_array_equal(read_all(open_source(unmasked, "X")), np.ones((3, 2)))
    with pytest.raises(InputError, match="masked arrays are not read"):
        read_all(open_source(ArrayLike(masked), "X"))


def test_an_array_that_returns_another_shape_or_dtype_is_an_input_error():
    class Lying(ArrayLike):
        def __init__(self, values, answer):
            super().__init__(values)
            self.answer = answer

        def __getitem__(self, rows):
            return self.answer

    X = np.ones((5, 2), "f4")
    with pytest.raises(InputError, match=r"rows 0.4 of X: .* shape \(5, 3\) but declares \(5, 2\)"):
        read_all(open_source(Lying(X, np.ones((5, 3))), "X"))
    with pytest.raises(InputError, match="float64 but declares float32"):
        read_all(open_source(Lying(X, np.ones((5, 2))), "X"))
    narrow = read_all(open_source(Lying(X, np.ones((5, 2), "f2")), "X"))
    assert narrow.dtype == np.float32


def test_what_cannot_be_sliced_is_refused():
    for data in (7, object(), {"X": 1}, [1.0, 2.0]):
        assert not is_streamable(data)
        with pytest.raises(InputError, match=r"X is a .*, which has no rows to read"):
            open_source(data, "X")


def test_data_frames_are_not_streamed():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0]})
    for data in (frame, frame["a"]):
        assert not is_streamable(data)


def test_element_types_unknown_to_numpy_are_an_input_error():
    foreign = ArrayLike(np.ones(3))
    foreign.dtype = "bfloat16"
    assert not is_streamable(foreign)
    with pytest.raises(InputError, match="X, a ArrayLike, cannot be read"):
        open_source(foreign, "X")


def test_integers_that_float64_cannot_hold_are_reported():
    X = np.ones((3, 1), "i8")
    for where in ("X", "y"):
        for value, inexact in ((2**53, False), (2**53 + 1, True), (-(2**53) - 1, True)):
            big = X * value
            data = {"X": X, "y": X[:, 0]} | {where: big if where == "X" else big[:, 0]}
            reader = BlockReader(open_dataset(**data))
            reader.read(0, 3)
            assert reader.rounded == ({where} if inexact else set())
