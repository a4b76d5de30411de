"""The files that hold models."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamreg.errors import DataCorruptionError, InputError
from streamreg.estimators.load import load
from streamreg.model import Model
from streamreg.output.coefficient_store import CoefficientStore

SUFFIXES = (".json", ".npz")
AWKWARD = [0.1, -0.0, 5e-324, 1.7976931348623157e308, -1 / 3, 2.0**53 + 1, 1e-300, 1e22]


def some_model(d=3, k=2, seed=0, **kwargs):
    random = np.random.default_rng(seed)
    return Model(random.standard_normal((k, d)), random.standard_normal(k), k == 1, **kwargs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_loaded_model_is_bitwise_identical(tmp_path, suffix):
    model = Model(
        np.array([AWKWARD]),
        np.array([-0.0]),
        one_target=True,
        feature_names=tuple(f"ä{j}" for j in range(len(AWKWARD))),
        target_names=("y",),
        details={"solver": "cg", "n_epochs": 3, "loss_history": [0.1, 1e-300]},
    )
    back = Model.load(model.save(tmp_path / f"model{suffix}"))
    assert back.coefficients.tobytes() == model.coefficients.tobytes()
    assert back.intercept.tobytes() == model.intercept.tobytes()
    assert back.one_target
    assert (back.feature_names, back.target_names) == (model.feature_names, model.target_names)
    assert back.details == model.details


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_finite_weights_are_loaded_bitwise_identical(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("model")
    model = Model(np.array([values]), np.array(values[:1]))
    for suffix in SUFFIXES:
        back = Model.load(model.save(folder / f"m{suffix}"))
        assert back.coefficients.tobytes() == model.coefficients.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_details_of_any_type_can_be_saved(tmp_path, suffix):
    details = {
        "loss": float("nan"),
        "history": [1.0, float("inf")],
        "norm": np.float64("nan"),
        "epochs": np.int64(3),
        "converged": np.True_,
        "array": np.arange(2.0),
        "nested": {"a": (1,)},
    }
    back = Model.load(some_model(details=details).save(tmp_path / f"model{suffix}"))
    assert back.details == {
        "loss": None,
        "history": [1.0, None],
        "norm": None,
        "epochs": 3,
        "converged": True,
        "array": [0.0, 1.0],
        "nested": {"a": [1]},
    }


def test_a_saved_json_file_has_no_nan(tmp_path):
    path = some_model(details={"loss": float("nan")}).save(tmp_path / "model.json")

    def refuse(token):
        raise AssertionError(token)

    json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nan_weights_are_not_saved(tmp_path, suffix):
    model = Model(np.array([[1.0, np.nan]]), np.zeros(1))
    with pytest.raises(InputError, match="NaN or inf"):
        model.save(tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.json or \.npz, not '\.pkl'"):
        some_model().save(tmp_path / "model.pkl")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"has no folder; create '{tmp_path}/absent'"):
        some_model().save(tmp_path / "absent" / "model.json")


def test_a_folder_at_the_path_of_a_model_is_not_replaced(tmp_path):
    (tmp_path / "model.json").mkdir()
    with pytest.raises(InputError, match=r"cannot be written to .*model\.json"):
        some_model().save(tmp_path / "model.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]


def test_a_failed_save_leaves_the_older_model(tmp_path, monkeypatch):
    path = some_model(seed=1).save(tmp_path / "model.json")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        some_model(seed=2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]


OUT_OF_MEMORY = """
import resource, sys
import psutil
from streamreg.errors import MemoryLimitError
from streamreg.formatting import MIB
from streamreg.model import Model
limit = psutil.Process().memory_info().vms + 16 * MIB
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    Model.load(sys.argv[1])
except MemoryLimitError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
def test_a_model_larger_than_memory_is_a_memory_error(tmp_path):
    path = some_model(d=8 * 2**20, k=1).save(tmp_path / "model.npz")
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"the system refused memory for the model in '{path}'" in done.stdout
    assert "MiB are available" in done.stdout


def test_a_saved_model_has_the_usual_permissions(tmp_path):
    path = some_model().save(tmp_path / "model.json")
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("where", ["absent", "folder"])
def test_a_missing_file_is_named(tmp_path, suffix, where):
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InputError, match="there is no model file"):
        Model.load(tmp_path / f"{where}{suffix}")


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_in_a_model_file_is_never_run(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match="is not a model"):
        Model.load(path)
    objects = np.array([_Bomb()], dtype=object)
    np.savez(tmp_path / "model.npz", allow_pickle=True, header=objects, coefficients=objects)
    with pytest.raises(InputError, match="is not a model"):
        Model.load(tmp_path / "model.npz")
    assert not (tmp_path / "exploded").exists()


def _header(**changes):
    header = {
        "format": "streamreg-model",
        "version": 1,
        "one_target": True,
        "feature_names": None,
        "target_names": None,
        "details": {},
        "coefficients": [[1.0, 2.0]],
        "intercept": [0.5],
    }
    return {key: value for key, value in (header | changes).items() if value is not ...}


def test_the_smallest_document_is_a_model(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(_header()))
    assert Model.load(tmp_path / "model.json").coefficients.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        "1",
        '"text"',
        "{",
        "[" * 100_000,
        "\x00\x01",
        "{}",
        json.dumps(_header(format="onnx")),
        json.dumps(_header(version=2)),
        json.dumps(_header(coefficients=...)),
        json.dumps(_header(details=...)),
        json.dumps(_header(details=[1])),
        json.dumps(_header(coefficients=[1.0, 2.0])),
        json.dumps(_header(coefficients=[[1.0], [2.0, 3.0]])),
        json.dumps(_header(coefficients=[[]])),
        json.dumps(_header(coefficients=[])),
        json.dumps(_header(coefficients=[["1.5", "2"]])),
        json.dumps(_header(coefficients=[[True, False]])),
        json.dumps(_header(coefficients=[[None, 1.0]])),
        json.dumps(_header(coefficients=[[10**400, 1]])),
        json.dumps(_header(coefficients=[[float("nan"), 1]])),
        json.dumps(_header(coefficients=[[1.0, 2.0]], intercept=[float("inf")])),
        json.dumps(_header()).replace("0.5", "1e999"),
        json.dumps(_header(intercept=[1.0, 2.0])),
        json.dumps(_header(intercept=1.0)),
        json.dumps(_header(one_target="yes")),
        json.dumps(_header(coefficients=[[1.0], [2.0]], intercept=[1.0, 2.0])),
        json.dumps(_header(feature_names=["a"])),
        json.dumps(_header(feature_names="ab")),
        json.dumps(_header(feature_names=[1, 2])),
        json.dumps(_header(target_names=["a", "b"])),
    ],
)
def test_a_damaged_document_is_an_input_error(tmp_path, document):
    (tmp_path / "model.json").write_text(document)
    with pytest.raises(InputError, match=r"model\.json' is not a model of streamreg \("):
        Model.load(tmp_path / "model.json")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"header": np.zeros(3, np.uint8)},
        {"header": np.frombuffer(b"{}", np.uint8)},
        {"coefficients": np.ones((1, 2)) * 1j},
        {"coefficients": np.array([["a", "b"]])},
        {"coefficients": np.full((1, 2), np.nan)},
    ],
)
def test_an_archive_of_other_arrays_is_an_input_error(tmp_path, arrays):
    text = json.dumps(_header(coefficients=..., intercept=...)).encode()
    usual = {"header": np.frombuffer(text, np.uint8), "intercept": np.zeros(1)}
    np.savez(tmp_path / "model.npz", **(usual | arrays))
    with pytest.raises(InputError, match="is not a model"):
        Model.load(tmp_path / "model.npz")


def test_an_array_file_named_npz_is_an_input_error(tmp_path):
    with (tmp_path / "model.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match="is not a model"):
        Model.load(tmp_path / "model.npz")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = some_model(feature_names=("a", "b", "c"), details={"loss": 0.25})
    return {suffix: model.save(folder / f"model{suffix}").read_bytes() for suffix in SUFFIXES}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_an_input_error_or_a_model(tmp_path_factory, saved, suffix, data):
    whole = saved[suffix]
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("damaged") / f"model{suffix}"
    path.write_bytes(damaged[:cut])
    try:
        model = Model.load(path)
    except InputError:
        return
    assert np.isfinite(model.coefficients).all()
    assert model.coefficients.shape == (model.n_targets, model.n_features)


# weights that stay in a Zarr array


def stored(path, values):
    with CoefficientStore.create(path, *values.shape, overwrite=True) as store:
        store.write(0, values)
        return store.finish()


def referring_model(folder, k=2, d=3):
    values = some_model(d, k).coefficients
    return Model(stored(folder / "w.zarr", values), np.arange(1.0, k + 1), one_target=False), values


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_refers_to_stored_weights(tmp_path, suffix):
    model, values = referring_model(tmp_path)
    path = model.save(tmp_path / f"model{suffix}")
    assert path.stat().st_size < 2000
    back = Model.load(path)
    assert (back.weights_of(0, 2) == values).all()
    assert (back.weights_of(1, 2) == values[1:]).all()
    assert (back.n_targets, back.n_features) == (2, 3)
    estimator = load(path)
    assert estimator.coef_.path == tmp_path / "w.zarr"
    estimator.save(tmp_path / f"again{suffix}")
    again = pickle.loads(pickle.dumps(estimator))
    assert (np.asarray(again.coef_) == values).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_and_the_weights_beside_it_are_moved_together(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    model, values = referring_model(tmp_path / "a")
    model.save(tmp_path / "a" / f"model{suffix}")
    (tmp_path / "a").rename(tmp_path / "b")
    back = Model.load(tmp_path / "b" / f"model{suffix}")
    assert (back.weights_of(0, 2) == values).all()


def test_weights_elsewhere_are_found_by_their_whole_path(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    model, values = referring_model(tmp_path)
    path = model.save(tmp_path / "models" / "model.json")
    monkeypatch.chdir("/")
    assert (Model.load(path).weights_of(0, 2) == values).all()


def _remove(folder):
    (folder / "w.zarr").rename(folder / "other.zarr")


def _replace(folder):
    stored(folder / "w.zarr", some_model(seed=1).coefficients)


def _replace_by_another_shape(folder):
    stored(folder / "w.zarr", some_model(4, 3).coefficients)


def _replace_by_a_file(folder):
    _remove(folder)
    (folder / "w.zarr").write_text("weights")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_remove, "there are no weights at"),
        (_replace_by_a_file, "there are no weights at"),
        (_replace, "those of another fit"),
        (_replace_by_another_shape, "those of another fit"),
    ],
)
def test_stored_weights_that_are_not_those_of_the_model_are_refused(tmp_path, suffix, change, says):
    path = referring_model(tmp_path)[0].save(tmp_path / f"model{suffix}")
    change(tmp_path)
    with pytest.raises(InputError, match=rf"of the model in .*{suffix}' cannot be used: .*{says}"):
        Model.load(path)


def test_damaged_metadata_of_stored_weights_are_a_data_error(tmp_path):
    path = referring_model(tmp_path)[0].save(tmp_path / "model.json")
    (tmp_path / "w.zarr" / "zarr.json").write_text("{")
    with pytest.raises(DataCorruptionError, match=r"of the model in .* cannot be used"):
        Model.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"coefficients": [[1.0, 2.0]]},
        {"coefficients": {}},
        {"coefficients": {"path": "w.zarr", "identity": 1, "shape": [2, 3]}},
        {"coefficients": {"path": 5, "identity": "", "shape": [2, 3]}},
        {"coefficients": {"path": "", "identity": "", "shape": [2, 3]}},
        {"intercept": [1.0]},
        {"intercept": [1.0, 2.0], "one_target": True},
        {"feature_names": ["a"]},
    ],
)
def test_a_damaged_reference_is_an_input_error(tmp_path, changes):
    path = referring_model(tmp_path)[0].save(tmp_path / "model.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=r"model\.json' is not a model of streamreg \("):
        Model.load(path)


def test_another_shape_in_a_reference_is_an_input_error(tmp_path):
    path = referring_model(tmp_path)[0].save(tmp_path / "model.json")
    document = json.loads(path.read_text())
    document["coefficients"]["shape"] = [3, 3]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"its weights are \(2, 3\), not \[3, 3\]"):
        Model.load(path)


@pytest.fixture(scope="module")
def referring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("referring")
    model = referring_model(folder)[0]
    return {suffix: model.save(folder / f"model{suffix}") for suffix in SUFFIXES}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_reference_is_an_error_or_a_model(referring, suffix, data):
    whole = referring[suffix].read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = referring[suffix].with_name(f"damaged{suffix}")
    path.write_bytes(damaged)
    try:
        model = Model.load(path)
    except (InputError, DataCorruptionError):
        return
    assert model.weights_of(0, model.n_targets).shape == model.coefficients.shape
