"""Weights of many targets in a Zarr array."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import zarr

from streamreg.errors import DataCorruptionError, InputError
from streamreg.formatting import MIB
from streamreg.model import Model
from streamreg.output.coefficient_store import CoefficientStore
from streamreg.output.stored_coefficients import StoredCoefficients


def weights(k=5, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((k, d))


def stored(path, values):
    with CoefficientStore.create(path, *values.shape) as store:
        store.write(0, values)
        return store.finish()


@pytest.fixture
def several_chunks(tmp_path):
    """Return weights of three chunks of two targets, and the store of them."""
    values = weights(5, MIB // 2)
    return values, stored(tmp_path / "w.zarr", values)


def test_blocks_in_any_order_are_read_back_bitwise_identical(tmp_path):
    values = weights(7, MIB // 4)  # four targets a chunk
    with CoefficientStore.create(tmp_path / "w.zarr", *values.shape) as store:
        assert store.chunk_targets == 4
        for start, stop in ((5, 7), (0, 1), (1, 5)):
            store.write(start, np.asfortranarray(values[start:stop]))
        back = store.finish()
    assert back.shape == values.shape
    assert (back.rows(3, 6) == values[3:6]).all()
    assert np.asarray(back).tobytes() == values.tobytes()
    assert (zarr.open_array(tmp_path / "w.zarr", mode="r")[:] == values).all()


def test_the_identity_is_that_of_the_values_whatever_the_blocks(tmp_path):
    values = weights()
    one = stored(tmp_path / "a.zarr", values)
    with CoefficientStore.create(tmp_path / "b.zarr", *values.shape) as store:
        store.write(2, values[2:])
        store.write(0, values[:2])
        other = store.finish()
    assert one.identity == other.identity
    assert stored(tmp_path / "c.zarr", weights(seed=1)).identity != one.identity


def test_stored_weights_are_indexed_by_target(several_chunks):
    values, back = several_chunks
    assert (back[-1] == values[-1]).all()
    assert (back[1:3] == values[1:3]).all()
    assert back[3:2].shape == (0, values.shape[1])
    assert len(back) == 5
    assert np.ndim(back) == 2
    with pytest.raises(IndexError):
        back[5]
    with pytest.raises(TypeError, match=r"np\.asarray loads all"):
        back[::2]


def test_a_pickle_holds_the_path(several_chunks):
    _, back = several_chunks
    copied = pickle.dumps(back)
    assert len(copied) < 1000
    assert (pickle.loads(copied).rows(0, 1) == back.rows(0, 1)).all()


def test_the_array_appears_only_once_it_is_finished(tmp_path):
    store = CoefficientStore.create(tmp_path / "w.zarr", 5, 3)
    store.write(0, weights())
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.zarr.partial"]
    store.finish()
    store.abandon()
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.zarr"]


def test_an_abandoned_array_leaves_nothing(tmp_path):
    CoefficientStore.create(tmp_path / "w.zarr", 5, 3).abandon()
    with CoefficientStore.create(tmp_path / "w.zarr", 5, 3) as store:
        store.write(0, weights())
    assert list(tmp_path.iterdir()) == []


def test_targets_that_were_not_written_are_counted(tmp_path):
    store = CoefficientStore.create(tmp_path / "w.zarr", 5, 3)
    store.write(2, weights(2))
    with pytest.raises(InputError, match="3 targets were not written, first 0"):
        store.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_array_is_replaced_only_if_asked(tmp_path):
    stored(tmp_path / "w.zarr", weights())
    with pytest.raises(InputError, match="exists; pass overwrite=True"):
        CoefficientStore.create(tmp_path / "w.zarr", 5, 3)
    with CoefficientStore.create(tmp_path / "w.zarr", 1, 3, overwrite=True) as store:
        store.write(0, weights(1))
        assert store.finish().shape == (1, 3)


@pytest.mark.parametrize(("first", "shape"), [(4, (2, 3)), (0, (2, 2)), (-1, (1, 3))])
def test_weights_beyond_the_array_are_refused(first, shape, tmp_path):
    with (
        CoefficientStore.create(tmp_path / "w.zarr", 5, 3) as store,
        pytest.raises(InputError, match="are not in 5 targets"),
    ):
        store.write(first, np.zeros(shape))


def test_weights_that_are_not_finite_are_refused_by_target(tmp_path):
    values = weights()
    values[3, 1] = np.inf
    with (
        CoefficientStore.create(tmp_path / "w.zarr", 5, 3) as store,
        pytest.raises(InputError, match="target 3 has weights that are NaN or inf"),
    ):
        store.write(0, values)


def test_a_replaced_array_is_refused(tmp_path):
    before = stored(tmp_path / "w.zarr", weights())
    with CoefficientStore.create(tmp_path / "w.zarr", 5, 3, overwrite=True) as store:
        store.write(0, weights(seed=1))
        store.finish()
    with pytest.raises(InputError, match="those of another fit"):
        before.require_unchanged()
    with pytest.raises(InputError, match="those of another fit"):
        StoredCoefficients(tmp_path / "w.zarr", before.identity)


@pytest.mark.parametrize(
    ("replacement", "words"), [(None, "no local folder"), (1, "those of another fit")]
)
def test_a_model_whose_weights_are_gone_says_so_and_is_not_saved(replacement, words, tmp_path):
    path = tmp_path / "w.zarr"
    model = Model(stored(path, weights()), np.zeros(5), one_target=False)
    model.weights_of(0, 5)
    shutil.rmtree(path)
    if replacement is not None:
        stored(path, weights(seed=replacement))
    with pytest.raises(InputError, match=words):
        model.weights_of(0, 5)
    with pytest.raises(InputError, match=words), model.stored.reading(2):
        pass
    with pytest.raises(InputError, match=words):
        model.save(tmp_path / "model.json")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("url", ["s3://bucket/w.zarr", "file:///w.zarr", "absent.zarr"])
def test_weights_are_in_a_local_folder(url):
    with pytest.raises(InputError, match="there are no weights at"):
        StoredCoefficients(url)


def test_another_zarr_array_is_not_weights(tmp_path):
    zarr.create_array(tmp_path / "x.zarr", data=np.zeros((4, 2)))
    zarr.create_group(tmp_path / "g.zarr")
    for name in ("x.zarr", "g.zarr"):
        with pytest.raises(InputError, match="does not hold weights"):
            StoredCoefficients(tmp_path / name)


@pytest.mark.parametrize("damage", ["absent", "truncated", "flipped"])
def test_a_damaged_chunk_is_named(damage, several_chunks):
    values, back = several_chunks
    chunk = back.path / "c" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "absent":
        chunk.unlink()
    else:
        chunk.write_bytes(content[:1000] if damage == "truncated" else content)
    with pytest.raises(DataCorruptionError, match=r"chunk c/1/0 of .*w\.zarr \(rows 2") as caught:
        back.rows(1, 4)
    assert "missing_chunks" not in str(caught.value)
    assert (back.rows(4, 5) == values[4:]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [5]},
        {"shape": [-1, 3]},
        {"data_type": "float32"},
        {"attributes": {}},
        {"attributes": {"streamreg_identity": 1}},
        {"codecs": []},
        {"zarr_format": 9},
    ],
)
def test_damaged_metadata_are_a_clear_error(changes, tmp_path):
    stored(tmp_path / "w.zarr", weights())
    document = tmp_path / "w.zarr" / "zarr.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | changes))
    with pytest.raises((InputError, DataCorruptionError)):
        StoredCoefficients(tmp_path / "w.zarr")
