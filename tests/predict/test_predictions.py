"""Predictions in memory and on disk, and R²."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr
from sklearn.metrics import r2_score, root_mean_squared_error

from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError, MemoryLimitError
from streamreg.formatting import GIB, MIB
from streamreg.model import Model
from streamreg.predict.predictions import predict, predict_to
from streamreg.predict.scores import residuals, score
from streamreg.progress import Progress
from streamreg.sources.open import open_dataset
from streamreg.validate import parse_nbytes


def some_model(d=3, k=2, seed=0, **kwargs):
    random = np.random.default_rng(seed)
    return Model(random.standard_normal((k, d)), random.standard_normal(k), k == 1, **kwargs)


def rows(n=1000, d=3, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d))


def only_x(X, **kwargs):
    return open_dataset(X, needs_y=False, **kwargs)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", ">f8", "uint8"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_predictions_are_those_of_numpy(tmp_path, k, dtype, n_threads):
    # enough rows for many blocks of 2 MiB
    X = (100 * rows(60_000, 20)).astype(dtype)
    model = some_model(20, k)
    expected = X.astype(np.float64) @ model.coefficients.T + model.intercept
    expected = expected[:, 0] if k == 1 else expected
    # NumPy adds the 20 products in another order
    close = {"rtol": 1e-12, "atol": 1e-12 * np.abs(expected).max()}
    config = FitConfig(n_threads=n_threads)
    made = predict(model, only_x(X), config)
    np.testing.assert_allclose(made, expected, **close)
    path = predict_to(model, only_x(X), tmp_path / "out.zarr", config)
    assert np.array_equal(zarr.open_array(path, mode="r")[:], made)


def test_predictions_from_a_store_of_any_chunks(tmp_path):
    X = rows(5000, 7)
    array = zarr.create_array(tmp_path / "X.zarr", shape=X.shape, dtype=X.dtype, chunks=(611, 3))
    array[:] = X
    model = some_model(7, 2)
    made = predict(model, only_x(str(tmp_path / "X.zarr")), FitConfig())
    np.testing.assert_allclose(made, X @ model.coefficients.T + model.intercept, rtol=1e-12)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_x_is_named(tmp_path, n_threads, value):
    X = rows(200_000, 8)
    X[170_001, 5] = value
    what = "NaN" if np.isnan(value) else "inf"
    config = FitConfig(n_threads=n_threads)
    for attempt in (
        lambda: predict(some_model(8), only_x(X), config),
        lambda: predict_to(some_model(8), only_x(X), tmp_path / "o.zarr", config),
    ):
        with pytest.raises(InputError, match=rf"X has {what} in row 170,001, column 5"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_omitted_rows_are_predicted_to_be_nan():
    X = rows(200_000, 8)
    X[[3, 170_001], [0, 5]] = np.nan, np.inf
    model = some_model(8, 2)
    made = predict(model, only_x(X, nan_policy="omit"), FitConfig())
    assert np.flatnonzero(np.isnan(made).any(axis=1)).tolist() == [3, 170_001]
    expected = np.delete(X, [3, 170_001], axis=0) @ model.coefficients.T + model.intercept
    np.testing.assert_allclose(np.delete(made, [3, 170_001], axis=0), expected, rtol=1e-11)


def test_overflow_from_large_weights_is_not_reported_as_inf_in_x():
    made = predict(
        Model(np.array([[1e300]]), np.zeros(1)), only_x(np.array([[1e300], [1.0]])), FitConfig()
    )
    assert made.tolist() == [np.inf, 1e300]


def test_another_number_of_columns_is_refused():
    with pytest.raises(InputError, match=r"X has 4 features, but .* expecting 3"):
        predict(some_model(3), only_x(rows(10, 4)), FitConfig())


@pytest.mark.parametrize(
    ("given", "known", "says"),
    [
        ("ab", "abcdefg", "lacks 'c', 'd', 'e' and 2 more of the model, and has no column that"),
        ("azb", "ab", "lacks no column of the model, and has 'z' that the model does not know"),
        ("ay", "abc", "lacks 'b', 'c' of the model, and has 'y' that the model does not know"),
    ],
)
def test_missing_and_extra_columns_are_named(tmp_path, given, known, says):
    path, names = tmp_path / "data.zarr", list(given)
    group = zarr.create_group(path, attributes={"feature_names": names})
    group.create_array("X", data=rows(10, len(names)))
    group.create_array("y", data=np.zeros(10))
    model = some_model(len(known), 1, feature_names=tuple(known))
    sklearns = f"X has {len(given)} features, but LinearRegression is expecting {len(known)} "
    for attempt in (
        lambda: predict(model, only_x(str(path)), FitConfig()),
        lambda: score(model, open_dataset(str(path)), FitConfig()),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        text = str(caught.value)
        assert text.startswith(f"{sklearns}features as input. {path}/X {says}")
        assert text.endswith("Pass the columns of the fit, in their order")


def test_names_in_another_order_are_refused(tmp_path):
    group = zarr.create_group(tmp_path / "data.zarr", attributes={"feature_names": ["b", "a"]})
    group.create_array("X", data=rows(10, 2))
    dataset = only_x(str(tmp_path / "data.zarr"))
    with pytest.raises(InputError, match=r"column 0 of .* is 'b', but .* with 'a' in its place"):
        predict(some_model(2, feature_names=("a", "b")), dataset, FitConfig())
    assert predict(some_model(2, feature_names=("b", "a")), dataset, FitConfig()).shape == (10, 2)
    assert predict(some_model(2), dataset, FitConfig()).shape == (10, 2)


@pytest.mark.parametrize("name", ["p", "p_0.5", "p.2026-01", "p.1e-3"])
def test_an_ending_that_is_no_file_type_is_a_part_of_the_name(name, tmp_path):
    X = np.ones((10, 3))
    path = predict_to(some_model(3), only_x(X), tmp_path / name, FitConfig())
    assert path.name == name
    assert zarr.open_array(path, mode="r").shape[0] == 10


@pytest.mark.parametrize("name", ["p.npy", "p.npz", "p.json", "p.h5", "p.txt", "p.tsv"])
def test_predictions_are_not_written_under_the_name_of_another_format(tmp_path, name):
    with pytest.raises(InputError, match=rf"as a table: name it 'p\.zarr', .*, not '{name}'"):
        predict_to(some_model(), only_x(rows()), tmp_path / name, FitConfig())
    assert list(tmp_path.iterdir()) == []


def _zarr_array(path, X):
    array = zarr.create_array(path, data=X)
    return array, path


def _dask_from_zarr(path, X):
    dask = pytest.importorskip("dask.array")
    zarr.create_array(path, data=X)
    return dask.from_zarr(zarr.open_array(path)) * 2.0, path


def _dask_from_path(path, X):
    dask = pytest.importorskip("dask.array")
    zarr.create_array(path, data=X)
    return dask.from_zarr(str(path)), path


def _mapped(path, X):
    np.save(path.with_suffix(".npy"), X)
    return np.load(path.with_suffix(".npy"), mmap_mode="r"), path.with_suffix(".npy")


@pytest.mark.parametrize("kind", [_zarr_array, _dask_from_zarr, _dask_from_path, _mapped])
def test_predictions_are_not_written_over_the_object_that_they_come_from(tmp_path, kind):
    X = rows(100)
    given, path = kind(tmp_path / "X.zarr", X)
    with pytest.raises(InputError, match="would overwrite the input"):
        predict_to(some_model(), only_x(given), path, FitConfig(), overwrite=True)
    # nothing was made or lost
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    left = np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[:]
    assert np.array_equal(left, X)


class _RecordedProgress(Progress):
    """Records the calls that progress receives."""

    def __init__(self):
        self.passes, self.closed = [], 0

    def begin_pass(self, n_rows):
        self.passes.append([n_rows, 0])

    def rows(self, n_rows):
        self.passes[-1][1] += n_rows

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("scale", [1.0, 2.0**800])
def test_progress_receives_every_row_of_every_pass(tmp_path, scale):
    X, model = rows(60_000, 20), some_model(20, 1)
    y = X[:, 0] * scale
    for work, given, n_passes in (
        (predict, [only_x(X)], 1),
        (predict_to, [only_x(X), tmp_path / "out.zarr"], 1),
        # a second pass is needed if squares overflow
        (score, [open_dataset(X, y)], 1 if scale == 1 else 2),
    ):
        recorded = _RecordedProgress()
        work(model, *given, FitConfig(), recorded)
        assert (recorded.passes, recorded.closed) == ([[60_000, 60_000]] * n_passes, 1)


class _Unread:
    """An array that raises an error when it is read."""

    def __init__(self, *shape):
        self.shape = shape
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows):
        raise AssertionError(rows)


def test_predictions_that_do_not_fit_are_refused_before_reading(tmp_path):
    model, dataset = some_model(10), only_x(_Unread(10**9, 10))
    with pytest.raises(MemoryLimitError) as caught:
        predict(model, dataset, FitConfig(memory_limit=GIB))
    text = str(caught.value)
    assert "predict needs 15.0 GiB but memory_limit is 1.0 GiB" in text
    assert "no data was read" in text
    assert "predictions    14.9 GiB   1,000,000,000 × 2 × 8 bytes" in text  # noqa: RUF001
    assert 'pass out="PATH" to write them to disk block by block: ' in text
    # both remedies work: the plan lets the reading begin
    raised, on_disk = re.findall(r"(?:memory_limit to|block by block:) ([\d.]+ \w+)", text)
    assert parse_nbytes(on_disk) < 128 * MIB
    with pytest.raises(OSError, match="cannot be read: AssertionError"):
        predict_to(model, dataset, tmp_path / "out.zarr", FitConfig(memory_limit=GIB))
    assert parse_nbytes(raised) > 16 * 10**9


def test_no_remedy_is_offered_that_does_not_fit():
    with pytest.raises(MemoryLimitError) as caught:
        predict(some_model(10), only_x(_Unread(10**9, 10)), FitConfig(memory_limit=MIB))
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
    made = score(model, open_dataset(X, y, weight), FitConfig(n_threads=n_threads)).evaluation
    predicted = X @ model.coefficients.T + model.intercept
    expected = r2_score(y, predicted, sample_weight=weight, multioutput="raw_values")
    # 150,000 squares are added in another order; y loses as many digits as its offset has
    rtol = 1e-11 * max(1, offset)
    np.testing.assert_allclose(made.r2, expected, rtol=rtol)
    rmse = root_mean_squared_error(y, predicted, sample_weight=weight, multioutput="raw_values")
    np.testing.assert_allclose(made.rmse, rmse, rtol=rtol)
    both = np.cov(y - offset, predicted, rowvar=False, aweights=weight)
    covariance, deviation = both[:3, 3:].diagonal(), np.sqrt(both.diagonal())
    correlation = covariance / (deviation[:3] * deviation[3:])
    np.testing.assert_allclose(made.pearson_r, correlation, rtol=rtol)
    assert made.n_rows == (len(X) if weight is None else np.count_nonzero(weight))


@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_are_those_of_numpy_for_any_number_of_threads(weighted):
    random = np.random.default_rng(3)
    X, model = rows(300_000, 20), some_model(20, 2)
    y = X @ model.coefficients.T + model.intercept + random.standard_normal((len(X), 2))
    weight = random.integers(0, 4, len(X)) * 0.5 if weighted else None
    dataset = open_dataset(X, y, weight)
    one, two = (
        residuals(model, dataset, FitConfig(n_threads=n), target=1).histogram for n in (1, 2)
    )
    for name, mine, other in zip(one._fields, one, two, strict=True):
        np.testing.assert_array_equal(mine, other, err_msg=name)
    counted = slice(None) if weight is None else weight > 0
    predicted = X @ model.coefficients.T + model.intercept
    fitted, observed = predicted[counted, 1], y[counted, 1]
    expected, _, _ = np.histogram2d(
        fitted, observed - fitted, bins=[one.fitted_edges, one.residual_edges]
    )
    np.testing.assert_array_equal(one.counts, expected)
    for measure, found in (r2_score, one.r2), (root_mean_squared_error, one.rmse):
        value = measure(y[:, [1]], predicted[:, [1]], sample_weight=weight)
        # 300,000 squares are added in another order
        np.testing.assert_allclose(found, value, rtol=1e-11)


def test_residuals_of_predictions_that_overflow_are_refused():
    model = Model(np.array([[1e308, 1e308, 1e308]]), np.zeros(1))
    with pytest.raises(InputError, match="predictions of X leave the range of float64"):
        residuals(model, open_dataset(rows(100, 3) * 1e10, np.ones(100)), FitConfig())


def test_residuals_are_refused_before_reading():
    dataset = open_dataset(_Unread(10**6, 10), _Unread(10**6))
    with pytest.raises(MemoryLimitError, match=r"report needs .* memory_limit is 1.0 MiB"):
        residuals(some_model(10, 1), dataset, FitConfig(memory_limit=MIB))


def test_score_of_values_whose_squares_overflow():
    X = rows(1000, 3)
    y = X @ [1.0, 2.0, 3.0] + np.random.default_rng(0).standard_normal(1000)
    w = np.array([[1.0, 2.0, 3.0]])
    (plain, _), (huge, _) = (
        score(Model(w * unit, np.zeros(1)), open_dataset(X, y * unit), FitConfig())
        for unit in (1.0, 2.0**800)
    )
    assert huge.r2 == pytest.approx(plain.r2, rel=1e-12)
    assert huge.pearson_r == pytest.approx(plain.pearson_r, rel=1e-12)
    assert huge.rmse == pytest.approx(plain.rmse * 2.0**800, rel=1e-12)


def test_score_of_a_constant_target_is_nan():
    y = np.stack([np.full(100, 7.0), np.arange(100.0)], axis=1)
    made = score(some_model(3, 2), open_dataset(rows(100), y), FitConfig()).evaluation
    assert np.isnan(made.r2).tolist() == [True, False]
    assert np.isnan(made.pearson_r).tolist() == [True, False]


def test_correlation_with_constant_predictions_is_nan():
    model = Model(np.zeros((1, 3)), np.full(1, 0.1))
    made = score(model, open_dataset(rows(100), np.arange(100.0)), FitConfig()).evaluation
    assert np.isnan(made.pearson_r).all()
    assert np.isfinite(made.r2).all()


def test_score_leaves_out_rows_with_nan_if_the_policy_is_omit():
    X, model = rows(1000), some_model(3, 1)
    y = X @ model.coefficients[0] + np.random.default_rng(0).standard_normal(1000)
    X[7, 1], y[9] = np.nan, np.nan
    kept = np.delete(np.arange(1000), [7, 9])
    made = score(model, open_dataset(X, y, nan_policy="omit"), FitConfig())
    expected = r2_score(y[kept], X[kept] @ model.coefficients[0] + model.intercept)
    assert made.evaluation.r2 == pytest.approx(expected, rel=1e-11)
    assert made.evaluation.rows_omitted == 2
    assert made.evaluation.n_rows == 998
    (message,) = made.warnings
    assert message.startswith("2 of 1,000 rows hold NaN or inf and were left out")
    with pytest.raises(InputError, match="NaN in row 7, column 1"):
        score(model, open_dataset(X, y), FitConfig())
    with pytest.raises(InputError, match="none of the 1,000 rows of X counts"):
        score(model, open_dataset(X * np.nan, y, nan_policy="omit"), FitConfig())


def test_score_needs_as_many_targets():
    with pytest.raises(InputError, match="y has 2 targets but the model was fitted with 1"):
        score(some_model(3, 1), open_dataset(rows(10), np.ones((10, 2))), FitConfig())


def test_score_is_refused_before_reading():
    dataset = open_dataset(_Unread(10**6, 10), _Unread(10**6))
    with pytest.raises(MemoryLimitError, match=r"score needs .* memory_limit is 1.0 MiB"):
        score(some_model(10, 1), dataset, FitConfig(memory_limit=MIB))
