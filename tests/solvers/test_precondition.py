"""The preconditioner of conjugate gradients: fewer epochs to the same weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

import streamreg
from streamreg import InputError, LinearRegression
from streamreg.errors import DataWarning

# columns beyond those for which all directions are kept
D = 380


def factors(n=600, d=D, k=12, seed=0, least=0.1):
    """Return columns that k factors make correlated, and y."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, k)) @ rng.standard_normal((k, d))
    X += rng.standard_normal((n, d)) * rng.uniform(least, 1, d) + 3
    return X, X @ rng.standard_normal(d) / 10 + rng.standard_normal(n)


def fit(X, y, weight=None, **parameters):
    # on one thread, because two wait for each other in each of many short passes
    return LinearRegression(solver="cg", **{"n_threads": 1, **parameters}).fit(X, y, weight)


def ridge(X, y, weight=None, l2=0.0, **parameters):
    total = len(X) if weight is None else weight.sum()
    return Ridge(alpha=l2 * total, solver="cholesky", **parameters).fit(X, y, weight)


@pytest.fixture(scope="module")
def data():
    return factors()


@pytest.fixture(scope="module")
def plain(data):
    return fit(*data, precondition=None)


@pytest.mark.parametrize("precondition", [16, "auto"])
def test_a_preconditioned_fit_takes_a_fraction_of_the_epochs_to_the_same_weights(
    data, plain, precondition
):
    X, y = data
    found = fit(X, y, precondition=precondition)
    expected = ridge(X, y).coef_
    # tol=1e-8 leaves 1e-8 of the gradient, times the squared condition number, 1e3
    np.testing.assert_allclose(found.coef_, expected, atol=1e-5 * np.abs(expected).max())
    assert found.converged_
    assert found.n_iter_ < 0.6 * plain.n_iter_


@pytest.mark.parametrize("case", ["weights", "l2", "targets", "no intercept", "raw", "sparse"])
def test_a_preconditioned_fit_has_the_weights_of_scikit_learn(data, case):
    X, y = data
    parameters = {"precondition": 200 if case == "sparse" else 16, "tol": 1e-11}
    own = {}
    weight = None
    if case == "weights":
        weight = np.random.default_rng(1).uniform(0.2, 3, len(X))
    elif case == "l2":
        own = {"l2": 0.05}
    elif case == "targets":
        y = np.stack([y, X[:, 3] ** 2, -y], axis=1)
    elif case == "no intercept":
        own = {"fit_intercept": False}
    elif case == "raw":
        parameters["standardize"] = False
    elif case == "sparse":
        X, y = topics()
    rows = scipy.sparse.csr_array(X) if case == "sparse" else X
    found = fit(rows, y, weight, **parameters, **own)
    expected = ridge(X, y, weight, **own)
    # 1e-11 of the gradient, times squared condition numbers up to 1e5 of columns far from 0
    atol = 1e-6 * np.abs(expected.coef_).max()
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=atol)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, atol=1e-3)
    assert found.converged_


def test_a_narrow_table_needs_no_preconditioner_and_the_fit_says_so(data):
    X, y = data
    X = X[:, :40]
    with pytest.warns(DataWarning, match="precondition=20 would save no epochs of 40 columns"):
        found = fit(X, y, precondition=20)
    assert found.coef_.tobytes() == fit(X, y, precondition=None).coef_.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(X, y, precondition="auto")


def test_more_directions_than_columns_are_all_columns(data):
    X, y = data
    found = fit(X, y, precondition=1000)
    expected = ridge(X, y).coef_
    # tol=1e-8 leaves 1e-8 of the gradient, times the squared condition number, 1e3
    np.testing.assert_allclose(found.coef_, expected, atol=1e-5 * np.abs(expected).max())
    assert found.n_iter_ <= 20


def test_dependent_and_constant_columns_are_still_named(data):
    X, y = data
    X = X.copy()
    X[:, 7] = 2.0
    X[:, 5] = X[:, 2] + X[:, 3]
    with pytest.warns(DataWarning) as caught:
        fit(X, y, precondition=16)
    messages = " ".join(str(each.message) for each in caught)
    assert "column 7" in messages
    assert "columns 2, 3, 5" in messages


def test_auto_changes_no_bit_of_a_fit_of_few_epochs():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, D))
    y = X @ rng.standard_normal(D) + rng.standard_normal(4000)
    found, plain = fit(X, y, precondition="auto"), fit(X, y, precondition=None)
    assert found.coef_.tobytes() == plain.coef_.tobytes()
    assert found.n_iter_ == plain.n_iter_ < 30


def test_a_preconditioner_that_saves_little_is_left_out_and_named():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, D))
    y = X @ rng.standard_normal(D) + rng.standard_normal(len(X))
    with pytest.warns(DataWarning, match="precondition=4 would save few epochs"):
        found = fit(X, y, precondition=4)
    assert found.n_iter_ <= fit(X, y, precondition=None).n_iter_ + 5


@pytest.mark.parametrize("rows", [np.array, scipy.sparse.csr_array])
def test_a_fit_of_few_epochs_runs_no_pass_of_a_preconditioner_and_says_so(rows):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8000, D)) * rng.binomial(1, 0.3, (8000, D))
    y = X @ rng.standard_normal(D) + rng.standard_normal(len(X))
    with pytest.warns(DataWarning, match="precondition=64 was left out, because few epochs"):
        found = fit(rows(X), y, precondition=64)
    assert found.coef_.tobytes() == fit(rows(X), y, precondition=None).coef_.tobytes()


def test_the_bits_do_not_depend_on_threads_and_limit(data):
    X, y = data
    one, two = (
        fit(X, y, precondition=16, n_threads=n, memory_limit=limit)
        for n, limit in ((1, "64 MiB"), (2, "1 GiB"))
    )
    assert one.coef_.tobytes() == two.coef_.tobytes()


def topics(n=2500):
    """Return words that follow Zipf's law, some because of others, as 0 and 1; and y."""
    rng = np.random.default_rng(1)
    drawn = rng.random((n, D)) < np.minimum(0.9, 3 / np.arange(1, D + 1))
    caused = drawn @ (rng.random((D, D)) < 4 / D) & (rng.random((n, 1)) < 0.5)
    X = (drawn | caused) * 1.0
    return X, X @ rng.standard_normal(D) + rng.standard_normal(n)


def texts(n=1000, d=1000):
    """Return counts of words in five phrases a row; words and phrases follow Zipf's law; and y."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, d + 1)
    phrases = rng.choice(d, (d // 2, 4), p=shares / shares.sum())
    drawn = rng.choice(d // 2, (n, 5), p=shares[: d // 2] / shares[: d // 2].sum())
    columns = phrases[drawn].ravel()
    X = scipy.sparse.csr_array((np.ones(20 * n), columns, np.arange(n + 1) * 20))
    X = X[:, rng.permutation(np.unique(columns))]  # without columns of zeros
    return X, X @ rng.standard_normal(X.shape[1]) + rng.standard_normal(n)


@pytest.mark.parametrize("precondition", [20, 64, 256])
@pytest.mark.parametrize("powers", [0, 2, 100])
def test_sparse_columns_of_any_unit_take_no_more_epochs_than_without(precondition, powers):
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, D + 1) ** 0.8
    X = rng.binomial(1, shares, (800, D)) * (1 + rng.random((800, D)))
    y = X @ rng.standard_normal(D) + rng.standard_normal(len(X))
    X = scipy.sparse.csr_array(X * 10.0 ** rng.integers(-powers, powers + 1, D))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found, without = fit(X, y, precondition=precondition), fit(X, y, precondition=None)
    assert found.converged_
    assert found.n_iter_ <= 1.1 * without.n_iter_
    # tol=1e-8 of the gradient, times the condition number of the scaled columns, below 100
    expected = without.predict(X)
    np.testing.assert_allclose(found.predict(X), expected, atol=1e-6 * np.ptp(expected))


def test_chosen_sparse_columns_that_depend_on_each_other_have_no_preconditioner():
    X, y = topics()
    X[:, 5] = X[:, 2]
    X = scipy.sparse.csr_array(X)
    with pytest.warns(DataWarning) as caught:
        found, plain = (fit(X, y, precondition=k) for k in (200, None))
    assert any("depend on each other, or are" in str(each.message) for each in caught)
    assert found.converged_
    assert plain.n_iter_ <= found.n_iter_ <= plain.n_iter_ + 1


def test_sparse_rows_in_the_units_of_the_user_have_no_preconditioner():
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((600, D), density=0.1, rng=rng, format="csr")
    y = rng.standard_normal(600)
    raw = {"standardize": False, "tol": 1e-4}
    with pytest.warns(DataWarning, match="because of standardize=False"):
        found = fit(X, y, precondition=64, **raw)
    assert found.coef_.tobytes() == fit(X, y, precondition=None, **raw).coef_.tobytes()


def test_units_of_sparse_columns_do_not_change_the_epochs_of_a_preconditioned_fit():
    X, y = topics()
    scaled = X * 10.0 ** np.random.default_rng(0).integers(-9, 10, D)
    plain, expected, found = (
        fit(scipy.sparse.csr_array(rows), y, precondition=k)
        for rows, k in ((X, None), (X, 200), (scaled, 200))
    )
    assert abs(found.n_iter_ - expected.n_iter_) <= 2
    assert found.n_iter_ < 0.8 * plain.n_iter_


def test_sparse_columns_of_equal_frequency_have_no_preconditioner(data):
    X, y = scipy.sparse.csr_array(data[0]), data[1]
    with pytest.warns(DataWarning, match="are not much more frequent than others"):
        found = fit(X, y, precondition=64, tol=1e-6)
    assert found.coef_.tobytes() == fit(X, y, precondition=None, tol=1e-6).coef_.tobytes()


@pytest.mark.parametrize("precondition", [128, "auto"])
def test_frequent_columns_of_sparse_rows_precondition_a_ridge(precondition):
    X, y = texts()
    found = fit(X, y, l2=1e-3, precondition=precondition)
    plain = fit(X, y, l2=1e-3, precondition=None)
    expected = ridge(X.toarray(), y, l2=1e-3).coef_
    # tol=1e-8 leaves 1e-8 of the gradient, times the squared condition number, 1e3
    np.testing.assert_allclose(found.coef_, expected, atol=1e-5 * np.abs(expected).max())
    assert found.n_iter_ < 0.7 * plain.n_iter_


@pytest.mark.parametrize("precondition", [16, "auto"])
@pytest.mark.parametrize("epoch", [1, 12])
def test_an_interrupted_fit_is_resumed_to_the_same_bits(data, tmp_path, precondition, epoch):
    X, y = data

    def stop(record):
        if record.epoch == epoch:
            raise InterruptedError

    shared = {"precondition": precondition, "checkpoint": tmp_path / "fit.ckpt"}
    with pytest.raises(InterruptedError):
        fit(X, y, **shared, progress=stop)
    resumed = fit(X, y, **shared)
    assert resumed.coef_.tobytes() == fit(X, y, precondition=precondition).coef_.tobytes()


@pytest.mark.parametrize("epoch", [2, 12])
def test_an_interrupted_fit_of_sparse_rows_is_resumed_to_the_same_bits(tmp_path, epoch):
    X, y = topics()
    X = scipy.sparse.csr_array(X)

    def stop(record):
        if record.epoch == epoch:
            raise InterruptedError

    shared = {"precondition": 200, "tol": 1e-4}
    with pytest.raises(InterruptedError):
        fit(X, y, **shared, checkpoint=tmp_path / "fit.ckpt", progress=stop)
    resumed = fit(X, y, **shared, checkpoint=tmp_path / "fit.ckpt")
    expected = fit(X, y, **shared)
    assert resumed.coef_.tobytes() == expected.coef_.tobytes()
    assert expected.n_iter_ < fit(X, y, precondition=None, tol=1e-4).n_iter_


def test_a_checkpoint_of_another_preconditioner_is_refused(data, tmp_path):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        shared = {"max_epochs": 3, "checkpoint": tmp_path / "fit.ckpt"}
        fit(X, y, **shared, precondition=16)
        with pytest.raises(streamreg.CheckpointError, match="precondition was 16 and is 17"):
            fit(X, y, **shared, precondition=17)


@pytest.mark.parametrize("value", [0, -3, 2.5, "few", True])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match="precondition="):
        fit(np.eye(3), np.ones(3), precondition=value)


def test_a_gpu_refuses_directions_before_it_is_looked_for():
    with pytest.raises(InputError, match='device="cpu"'):
        fit(np.eye(3), np.ones(3), precondition=8, device="cuda")
