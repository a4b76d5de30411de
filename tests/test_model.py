"""Models: files that hold them, predictions in memory and on disk, and R²."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from streamreg.errors import InputError, MemoryLimitError
from streamreg.memory import MIB, parse_nbytes
from streamreg.model import Model
from streamreg.prediction import predict, predict_to, score
from streamreg.sources.dataset import open_dataset

SUFFIXES = (".json", ".npz")
AWKWARD = [0.1, -0.0, 5e-324, 1.7976931348623157e308, -1 / 3, 2.0**53 + 1, 1e-300, 1e22]


def some_model(d=3, k=2, seed=0, **kwargs):
    random = np.random.default_rng(seed)
    return Model(random.standard_normal((k, d)), random.standard_normal(k), k == 1, **kwargs)


def rows(n=1000, d=3, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d))


def only_x(X, **kwargs):
    return open_dataset(X, needs_y=False, **kwargs)


# files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_comes_back_bit_for_bit(tmp_path, suffix):
    model = Model(
        np.array([AWKWARD]), np.array([-0.0]), one_target=True,
        feature_names=tuple(f"ä{j}" for j in range(len(AWKWARD))), target_names=("y",),
        details={"solver": "cg", "n_epochs": 3, "loss_history": [0.1, 1e-300]},
    )  # fmt: skip
    back = Model.load(model.save(tmp_path / f"model{suffix}"))
    assert back.coefficients.tobytes() == model.coefficients.tobytes()
    assert back.intercept.tobytes() == model.intercept.tobytes()
    assert back.one_target
    assert (back.feature_names, back.target_names) == (model.feature_names, model.target_names)
    assert back.details == model.details


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_floats_come_back_bit_for_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("model")
    model = Model(np.array([values]), np.array(values[:1]))
    for suffix in SUFFIXES:
        back = Model.load(model.save(folder / f"m{suffix}"))
        assert back.coefficients.tobytes() == model.coefficients.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_details_of_any_kind_can_be_saved(tmp_path, suffix):
    details = {
        "loss": float("nan"), "history": [1.0, float("inf")], "norm": np.float64("nan"),
        "epochs": np.int64(3), "converged": np.True_, "array": np.arange(2.0),
        "nested": {"a": (1,)},
    }  # fmt: skip
    back = Model.load(some_model(details=details).save(tmp_path / f"model{suffix}"))
    assert back.details == {
        "loss": None, "history": [1.0, None], "norm": None, "epochs": 3, "converged": True,
        "array": [0.0, 1.0], "nested": {"a": [1]},
    }  # fmt: skip


def test_json_is_strict(tmp_path):
    path = some_model(details={"loss": float("nan")}).save(tmp_path / "model.json")

    def refuse(token):
        raise AssertionError(token)

    json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_that_are_not_finite_are_not_saved(tmp_path, suffix):
    model = Model(np.array([[1.0, np.nan]]), np.zeros(1))
    with pytest.raises(InputError, match="NaN or inf"):
        model.save(tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.json or \.npz, not '\.pkl'"):
        some_model().save(tmp_path / "model.pkl")


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        some_model().save(tmp_path / "absent" / "model.json")


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "model.json").mkdir()
    with pytest.raises(InputError, match=r"cannot be written to .*model\.json"):
        some_model().save(tmp_path / "model.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]


def test_an_older_model_survives_a_save_that_fails(tmp_path, monkeypatch):
    path = some_model(seed=1).save(tmp_path / "model.json")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        some_model(seed=2).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.json"]


def test_a_saved_model_may_be_read_as_any_other_file(tmp_path):
    path = some_model().save(tmp_path / "model.json")
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("where", ["absent", "folder"])
def test_a_file_that_is_not_there(tmp_path, suffix, where):
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(InputError, match="there is no model file"):
        Model.load(tmp_path / f"{where}{suffix}")


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_is_never_run(tmp_path, monkeypatch, suffix):
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
        "format": "streamreg-model", "version": 1, "one_target": True, "feature_names": None,
        "target_names": None, "details": {}, "coefficients": [[1.0, 2.0]], "intercept": [0.5],
    }  # fmt: skip
    return {key: value for key, value in (header | changes).items() if value is not ...}


def test_the_plain_header_is_a_model(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(_header()))
    assert Model.load(tmp_path / "model.json").coefficients.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "document",
    [
        "", "[]", "null", "1", '"text"', "{", "[" * 100_000, "\x00\x01", "{}",
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
)  # fmt: skip
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
def test_foreign_archives_are_an_input_error(tmp_path, arrays):
    text = json.dumps(_header(coefficients=..., intercept=...)).encode()
    usual = {"header": np.frombuffer(text, np.uint8), "intercept": np.zeros(1)}
    np.savez(tmp_path / "model.npz", **(usual | arrays))
    with pytest.raises(InputError, match="is not a model"):
        Model.load(tmp_path / "model.npz")


def test_an_array_that_is_named_like_an_archive(tmp_path):
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


# predictions


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", ">f8", "uint8"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_predictions_are_those_of_numpy(tmp_path, k, dtype, n_threads):
    # enough rows for many blocks of 2 MiB
    X = (100 * rows(60_000, 20)).astype(dtype)
    model = some_model(20, k)
    expected = X.astype(np.float64) @ model.coefficients.T + model.intercept
    expected = expected[:, 0] if k == 1 else expected
    # another order of 20 additions
    close = {"rtol": 1e-12, "atol": 1e-12 * np.abs(expected).max()}
    made = predict(model, only_x(X), n_threads=n_threads)
    np.testing.assert_allclose(made, expected, **close)
    path = predict_to(model, only_x(X), tmp_path / "out.zarr", n_threads=n_threads)
    assert np.array_equal(zarr.open_array(path, mode="r")[:], made)


def test_predictions_from_a_store_of_any_chunks(tmp_path):
    X = rows(5000, 7)
    array = zarr.create_array(tmp_path / "X.zarr", shape=X.shape, dtype=X.dtype, chunks=(611, 3))
    array[:] = X
    model = some_model(7, 2)
    made = predict(model, only_x(str(tmp_path / "X.zarr")))
    np.testing.assert_allclose(made, X @ model.coefficients.T + model.intercept, rtol=1e-12)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_x_is_named(tmp_path, n_threads, value):
    X = rows(200_000, 8)
    X[170_001, 5] = value
    what = "NaN" if np.isnan(value) else "inf"
    for attempt in (
        lambda: predict(some_model(8), only_x(X), n_threads=n_threads),
        lambda: predict_to(some_model(8), only_x(X), tmp_path / "o.zarr", n_threads=n_threads),
    ):
        with pytest.raises(InputError, match=rf"X has {what} in row 170,001, column 5"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_omitted_rows_are_predicted_to_be_nan():
    X = rows(200_000, 8)
    X[[3, 170_001], [0, 5]] = np.nan, np.inf
    model = some_model(8, 2)
    made = predict(model, only_x(X, nan_policy="omit"))
    assert np.flatnonzero(np.isnan(made).any(axis=1)).tolist() == [3, 170_001]
    expected = np.delete(X, [3, 170_001], axis=0) @ model.coefficients.T + model.intercept
    np.testing.assert_allclose(np.delete(made, [3, 170_001], axis=0), expected, rtol=1e-11)


def test_weights_so_large_that_they_overflow_are_no_fault_of_x():
    made = predict(Model(np.array([[1e300]]), np.zeros(1)), only_x(np.array([[1e300], [1.0]])))
    assert made.tolist() == [np.inf, 1e300]


def test_another_number_of_columns_is_refused():
    with pytest.raises(InputError, match=r"X has 4 features, but .* expecting 3"):
        predict(some_model(3), only_x(rows(10, 4)))


def test_names_in_another_order_are_refused(tmp_path):
    group = zarr.create_group(tmp_path / "data.zarr", attributes={"feature_names": ["b", "a"]})
    group.create_array("X", data=rows(10, 2))
    dataset = only_x(str(tmp_path / "data.zarr"))
    with pytest.raises(InputError, match=r"column 0 of .* is 'b', but .* fitted with 'a' there"):
        predict(some_model(2, feature_names=("a", "b")), dataset)
    assert predict(some_model(2, feature_names=("b", "a")), dataset).shape == (10, 2)
    assert predict(some_model(2), dataset).shape == (10, 2)


class _Unread:
    """An array of which nothing can be read."""

    def __init__(self, *shape):
        self.shape = shape
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows):
        raise AssertionError(rows)


def test_predictions_that_do_not_fit_are_refused_before_reading(tmp_path):
    model, dataset = some_model(10), only_x(_Unread(10**9, 10))
    with pytest.raises(MemoryLimitError) as caught:
        predict(model, dataset, memory_limit="1 GiB")
    text = str(caught.value)
    assert "predict needs 15.0 GiB but memory_limit is 1.0 GiB" in text
    assert "no data was read" in text
    assert "predictions    14.9 GiB   1,000,000,000 × 2 × 8 bytes" in text  # noqa: RUF001
    assert 'pass out="PATH" to write them to disk block by block: ' in text
    # both remedies work: the plan lets the reading begin
    raised, on_disk = re.findall(r"(?:memory_limit to|block by block:) ([\d.]+ \w+)", text)
    assert parse_nbytes(on_disk) < 128 * MIB
    with pytest.raises(OSError, match="cannot be read: AssertionError"):
        predict_to(model, dataset, tmp_path / "out.zarr", memory_limit="1 GiB")
    assert parse_nbytes(raised) > 16 * 10**9


def test_no_remedy_is_offered_that_does_not_fit():
    with pytest.raises(MemoryLimitError) as caught:
        predict(some_model(10), only_x(_Unread(10**9, 10)), memory_limit="1 MiB")
    assert "out=" not in str(caught.value)


# R²


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0, 1e6])
def test_score_is_that_of_sklearn(n_threads, weighted, offset):
    random = np.random.default_rng(3)
    X, model = rows(150_000, 20), some_model(20, 3)
    y = X @ model.coefficients.T + model.intercept + random.standard_normal((len(X), 3)) + offset
    model = Model(model.coefficients, model.intercept + offset, one_target=False)
    weight = random.integers(0, 4, len(X)) * 0.5 if weighted else None
    made = score(model, open_dataset(X, y, weight), n_threads=n_threads)
    predicted = X @ model.coefficients.T + model.intercept
    expected = r2_score(y, predicted, sample_weight=weight, multioutput="raw_values")
    # sums of 150,000 squares in another order; an offset costs its digits in y itself
    np.testing.assert_allclose(made, expected, rtol=1e-11 * max(1, offset))


def test_score_of_values_whose_squares_overflow():
    X = rows(1000, 3)
    y = X @ [1.0, 2.0, 3.0] + np.random.default_rng(0).standard_normal(1000)
    plain = score(Model(np.array([[1.0, 2.0, 3.0]]), np.zeros(1)), open_dataset(X, y))
    huge = Model(np.array([[1.0, 2.0, 3.0]]) * 2.0**800, np.zeros(1))
    assert score(huge, open_dataset(X, y * 2.0**800)) == pytest.approx(plain, rel=1e-12)


def test_score_of_a_constant_target_is_nan():
    y = np.stack([np.full(100, 7.0), np.arange(100.0)], axis=1)
    made = score(some_model(3, 2), open_dataset(rows(100), y))
    assert np.isnan(made).tolist() == [True, False]


def test_score_leaves_out_what_the_policy_says():
    X, model = rows(1000), some_model(3, 1)
    y = X @ model.coefficients[0] + np.random.default_rng(0).standard_normal(1000)
    X[7, 1], y[9] = np.nan, np.nan
    kept = np.delete(np.arange(1000), [7, 9])
    made = score(model, open_dataset(X, y, nan_policy="omit"))
    expected = r2_score(y[kept], X[kept] @ model.coefficients[0] + model.intercept)
    assert made == pytest.approx(expected, rel=1e-11)
    with pytest.raises(InputError, match="NaN in row 7, column 1"):
        score(model, open_dataset(X, y))
    with pytest.raises(InputError, match="none of the 1,000 rows of X counts"):
        score(model, open_dataset(X * np.nan, y, nan_policy="omit"))


def test_score_needs_as_many_targets():
    with pytest.raises(InputError, match="y has 2 targets but the model was fitted with 1"):
        score(some_model(3, 1), open_dataset(rows(10), np.ones((10, 2))))


def test_score_is_refused_before_reading():
    dataset = open_dataset(_Unread(10**6, 10), _Unread(10**6))
    with pytest.raises(MemoryLimitError, match=r"score needs .* memory_limit is 1.0 MiB"):
        score(some_model(10, 1), dataset, memory_limit="1 MiB")
