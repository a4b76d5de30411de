"""Predictions and scores of targets whose weights or predictions do not all fit in memory."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from sklearn.metrics import r2_score, root_mean_squared_error

from streamreg import LinearRegression, evaluate
from streamreg.config.fit_config import FitConfig
from streamreg.errors import DataCorruptionError, InputError, MemoryLimitError
from streamreg.formatting import GIB, MIB
from streamreg.model import Model
from streamreg.output import zarr_writer
from streamreg.output.coefficient_store import CoefficientStore
from streamreg.predict import predictions
from streamreg.predict.predictions import predict, predict_to
from streamreg.predict.scores import residuals, score
from streamreg.sources.open import open_dataset
from tests.support.stores import write_zarr

N, D, K = 700, 300, 2_500
# all weights at once take 6 MiB, and a chunk of 1 MiB 436 targets
ONE, SEVERAL = FitConfig(memory_limit=GIB), FitConfig(memory_limit=18 * MIB, n_threads=2)
STORED_SEVERAL = FitConfig(memory_limit=20 * MIB, n_threads=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for module in (zarr_writer, predictions):
        monkeypatch.setattr(module, "CHUNK_NBYTES", MIB)
        monkeypatch.setattr(module, "BATCH_CHUNK_NBYTES", MIB // 2)


@pytest.fixture(scope="module")
def known():
    """Return X, y, w and b, of which y has noise."""
    random = np.random.default_rng(0)
    X = random.standard_normal((N, D)).astype("f4")
    w, b = random.standard_normal((K, D)), random.standard_normal(K)
    y = X @ w.T + b + 5 * random.standard_normal((N, K))
    return X, y, w, b


@pytest.fixture
def stores(tmp_path, known):
    X, y, _, _ = known
    write_zarr(tmp_path / "X.zarr", X, chunks=(100, D))
    write_zarr(tmp_path / "y.zarr", y, chunks=(250, 400))
    return tmp_path


def model_of(folder, w, b, *, stored):
    if not stored:
        return Model(w, b, one_target=False)
    with CoefficientStore.create(folder / "w.zarr", *w.shape, overwrite=True) as store:
        store.write(0, w)
        return Model(store.finish(), b, one_target=False)


def only_x(folder, **kwargs):
    return open_dataset(str(folder / "X.zarr"), needs_y=False, **kwargs)


def both(folder, **kwargs):
    return open_dataset(str(folder / "X.zarr"), str(folder / "y.zarr"), **kwargs)


def close_to(expected):
    # sums of D products in another order
    return {"rtol": 1e-12, "atol": 1e-12 * np.abs(expected).max()}


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
def test_predictions_in_batches_are_those_of_numpy(stores, known, stored):
    X, _, w, b = known
    expected = X.astype("f8") @ w.T + b
    model, plans = model_of(stores, w, b, stored=stored), []
    config = STORED_SEVERAL if stored else SEVERAL
    np.testing.assert_allclose(predict(model, only_x(stores), ONE), expected, **close_to(expected))
    path = predict_to(model, only_x(stores), stores / "out.zarr", config, on_plan=plans.append)
    out = zarr.open_array(path, mode="r")
    np.testing.assert_allclose(out[:], expected, **close_to(expected))
    (plan,) = plans
    assert plan.n_batches > 1
    # a batch is a column of chunks, which are written once
    assert out.chunks == (min(N, MIB // 16 // plan.width), plan.width)
    assert not stored or plan.width % 436 == 0


@pytest.mark.parametrize("config", [ONE, STORED_SEVERAL], ids=["one batch", "several"])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_in_batches_are_those_of_sklearn(stores, known, config, weighted):
    X, y, w, b = known
    weight = np.random.default_rng(1).integers(0, 3, N) * 0.5 if weighted else None
    dataset = open_dataset(str(stores / "X.zarr"), str(stores / "y.zarr"), weight)
    plans = []
    model = model_of(stores, w, b, stored=True)
    made = score(model, dataset, config, on_plan=plans.append).evaluation
    assert (plans[0].n_batches > 1) == (config is STORED_SEVERAL)
    predicted = X.astype("f8") @ w.T + b
    how = {"sample_weight": weight, "multioutput": "raw_values"}
    # sums of N squares in another order
    np.testing.assert_allclose(made.r2, r2_score(y, predicted, **how), rtol=1e-10)
    np.testing.assert_allclose(made.rmse, root_mean_squared_error(y, predicted, **how), rtol=1e-11)
    some = np.cov(y[:, 7], predicted[:, 7], aweights=weight)
    correlation = some[0, 1] / np.sqrt(some[0, 0] * some[1, 1])
    assert made.pearson_r[7] == pytest.approx(correlation, rel=1e-11)


def test_rows_left_out_do_not_depend_on_the_batches(stores, known):
    X, y, w, b = known
    y = y.copy()
    y[3, 0], y[500, K - 1] = np.nan, np.inf
    write_zarr(stores / "y.zarr", y, chunks=(250, 400))
    model = model_of(stores, w, b, stored=True)
    kept = np.delete(np.arange(N), [3, 500])
    predicted = (X.astype("f8") @ w.T + b)[kept]
    expected = r2_score(y[kept], predicted, multioutput="raw_values")
    for config in (ONE, FitConfig(memory_limit=24 * MIB, n_threads=1)):
        made = score(model, both(stores, nan_policy="omit"), config).evaluation
        np.testing.assert_allclose(made.r2, expected, rtol=1e-10)
        assert (made.n_rows, made.rows_omitted) == (N - 2, 2)


def test_nan_in_a_later_batch_is_named_by_its_column(stores, known):
    _, y, w, b = known
    y = y.copy()
    y[500, K - 3] = np.nan
    write_zarr(stores / "y.zarr", y, chunks=(250, 400))
    with pytest.raises(InputError, match=rf"NaN in row 500, column {K - 3:}: chunk c/2/6 of"):
        score(model_of(stores, w, b, stored=True), both(stores), STORED_SEVERAL)


def test_squares_that_overflow_are_scored_in_batches(stores, known):
    X, y, w, b = known
    unit = 2.0**700
    write_zarr(stores / "y.zarr", y * unit, chunks=(250, 400))
    plain = score(model_of(stores, w, b, stored=False), open_dataset(X, y), ONE).evaluation
    model = model_of(stores, w * unit, b * unit, stored=True)
    huge = score(model, both(stores), STORED_SEVERAL).evaluation
    np.testing.assert_allclose(huge.r2, plain.r2, rtol=1e-10)
    np.testing.assert_allclose(huge.rmse, plain.rmse * unit, rtol=1e-10)


def test_residuals_of_a_target_read_its_weights_and_its_column_only(stores, known):
    X, y, w, b = known
    model = model_of(stores, w, b, stored=True)
    # the other chunks of y and of the weights are damaged
    for chunk in [*stores.glob("y.zarr/c/*/0"), *stores.glob("w.zarr/c/0/*")]:
        chunk.write_bytes(b"damaged")
    made = residuals(model, both(stores), STORED_SEVERAL, target=1_000).histogram
    predicted = X.astype("f8") @ w[1_000] + b[1_000]
    assert made.r2 == pytest.approx(r2_score(y[:, 1_000], predicted), rel=1e-10)
    assert made.counts.sum() == N


def test_rows_that_fit_are_read_once(stores, known, monkeypatch):
    _, _, w, b = known
    plans = []
    model = model_of(stores, w, b, stored=True)
    config = FitConfig(memory_limit=19 * MIB, n_threads=1)
    score(model, both(stores), config, on_plan=plans.append)
    assert plans[0].holds_rows


def test_interrupted_batches_are_resumed(stores, known, monkeypatch):
    X, _, w, b = known
    model = model_of(stores, w, b, stored=True)
    out, written = stores / "out.zarr", []
    real = zarr_writer.RowAppender.close

    def closed(appender):
        real(appender)
        written.append(appender)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zarr_writer.RowAppender, "close", closed)
        with pytest.raises(KeyboardInterrupt):
            predict_to(model, only_x(stores), out, STORED_SEVERAL)
    reads = []
    fill = type(model.stored)._fill

    def filled(stored, rows, start, reader):
        reads.append(start)
        fill(stored, rows, start, reader)

    monkeypatch.setattr(type(model.stored), "_fill", filled)
    predict_to(model, only_x(stores), out, STORED_SEVERAL)
    # the first batch is not predicted again
    assert len(written) == 1
    assert reads
    assert reads[0] > 0
    expected = X.astype("f8") @ w.T + b
    made = zarr.open_array(out, mode="r")[:]
    np.testing.assert_allclose(made, expected, **close_to(expected))


def test_weights_that_are_replaced_while_rows_are_read_are_an_error(stores, known, monkeypatch):
    _, _, w, b = known
    model = model_of(stores, w, b, stored=True)
    read = type(model.stored).reading

    def replaced(stored, most):
        model_of(stores, w + 1, b, stored=True)
        return read(stored, most)

    monkeypatch.setattr(type(model.stored), "reading", replaced)
    with pytest.raises((InputError, DataCorruptionError), match=r"another fit|changed"):
        predict_to(model, only_x(stores), stores / "out.zarr", STORED_SEVERAL)
    assert not (stores / "out.zarr").exists()


class _Unread:
    """An array that raises an error when it is read."""

    def __init__(self, *shape):
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, rows):
        raise AssertionError(rows)


def test_predictions_that_do_not_fit_are_refused_before_reading():
    dataset = open_dataset(_Unread(23_000, 2_048), needs_y=False)
    w = np.broadcast_to(0.0, (20_000, 2_048))
    with pytest.raises(MemoryLimitError) as caught:
        predict(Model(w, np.zeros(20_000), one_target=False), dataset, ONE)
    text = str(caught.value)
    assert "N = 23,000, D = 2,048, K = 20,000; no data was read" in text
    assert "predictions     3.4 GiB   23,000 × 20,000 × 8 bytes" in text  # noqa: RUF001
    assert 'pass out="PATH" to write them to disk block by block' in text


def test_an_estimator_predicts_scores_and_evaluates_by_stored_weights(stores, known):
    X, y, w, b = known
    model_of(stores, w, b, stored=True).save(stores / "model.json")
    import streamreg  # noqa: PLC0415

    model = streamreg.load(stores / "model.json").set_params(memory_limit="20 MiB", n_threads=1)
    assert isinstance(model, LinearRegression)
    expected = X.astype("f8") @ w.T + b
    np.testing.assert_allclose(model.predict(X[:5]), expected[:5], **close_to(expected))
    r2 = r2_score(y, expected, multioutput="raw_values")
    X_path, y_path = str(stores / "X.zarr"), str(stores / "y.zarr")
    found = model.score(X_path, y_path, multioutput="raw_values")
    np.testing.assert_allclose(found, r2, rtol=1e-10)
    assert model.score(X_path, y_path) == pytest.approx(r2.mean(), rel=1e-10)
    np.testing.assert_allclose(evaluate(model, X_path, y_path).r2, r2, rtol=1e-10)


def test_predictions_are_not_written_over_stored_weights(stores, known):
    _, _, w, b = known
    model = model_of(stores, w, b, stored=True)
    with pytest.raises(InputError, match="would overwrite the input"):
        predict_to(model, only_x(stores), stores / "w.zarr", ONE, overwrite=True)
    assert (model.weights_of(0, K) == w).all()
