"""Gradient descent and conjugate gradients: reports, stopping rules, divergence."""

from __future__ import annotations

import numpy as np
import pytest
from problems import Reduce, error, lstsq, solve, table

from streamreg.errors import DivergenceError
from streamreg.solvers.base import NO_ITERATE_STORE, Problem, Status
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import GradientDescent


def objective(X, y, w, b, weight=None, l2=0.0):
    """Return f, summed over targets, as it is documented."""
    s = np.ones(len(X)) if weight is None else weight
    y = y.reshape(len(X), -1)
    squares = ((X @ w + b - y) ** 2).sum(axis=1)
    return s @ squares / (2 * s.sum()) + l2 / 2 * np.sum(w**2)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("kind", ["closed_form", "cg", "gd", "gd with a rate"])
@pytest.mark.parametrize(
    ("k", "l2", "weights", "start"), [(1, 0.0, False, False), (3, 0.2, True, True)]
)
def test_losses_equal_the_documented_objective(
    standardize, fit_intercept, kind, k, l2, weights, start
):
    X, y = table(k=k)
    X = X + 2
    rng = np.random.default_rng(5)
    weight = rng.uniform(0.1, 4, len(X)) if weights else None
    init = rng.standard_normal((6, k)) if start else None
    shared = {"standardize": standardize, "init": init, "max_epochs": 60}
    solver = {
        "closed_form": ClosedForm(),
        "cg": ConjugateGradient(**shared),
        "gd": GradientDescent(**shared),
        "gd with a rate": GradientDescent(**shared, learning_rate=0.01),
    }[kind]
    solution, _ = solve(solver, X, y, weight, fit_intercept=fit_intercept, l2=l2)
    history = solution.loss_history
    assert len(history) == solution.n_epochs + 1
    w = np.zeros((6, k)) if init is None or kind == "closed_form" else init
    b = np.zeros(k)
    if fit_intercept and (standardize or kind == "closed_form"):
        # in centred coordinates b starts at the best value for w
        b = np.average(y.reshape(len(X), -1) - X @ w, axis=0, weights=weight)
    np.testing.assert_allclose(history[0], objective(X, y, w, b, weight, l2), rtol=1e-12)
    end = objective(X, y, solution.coefficients, solution.intercept, weight, l2)
    # the closed form computes the loss as a difference from the first
    np.testing.assert_allclose(history[-1], end, rtol=1e-12, atol=1e-14 * history[0])
    assert (np.diff(history) <= 0).all()


@pytest.mark.parametrize(
    "solver", [ConjugateGradient(tol=0), GradientDescent(tol=0, max_epochs=300)]
)
def test_losses_never_rise_down_to_the_last_digit(solver):
    for X, y in (table(), table(k=3), (table()[0], table()[0].sum(axis=1))):
        solution, _ = solve(solver, X + 100, y)
        assert (np.diff(solution.loss_history) <= 0).all()


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 2])
def test_the_raw_update_equals_the_textbook(fit_intercept, l2, k):
    X, y = table(k=k)
    rate, epochs = 0.05, 200
    solver = GradientDescent(standardize=False, learning_rate=rate, max_epochs=epochs, tol=0)
    solution, _ = solve(solver, X, y, fit_intercept=fit_intercept, l2=l2)
    w, b, y = np.zeros((6, k)), np.zeros(k), y.reshape(-1, k)
    for _ in range(solution.n_epochs):
        r = X @ w + b - y
        gradient, slope = X.T @ r / len(X) + l2 * w, r.mean(axis=0)
        w, b = w - rate * gradient, b - rate * slope * fit_intercept
    assert solution.n_epochs == epochs
    # sums have another order; the 200 updates contract rounding errors
    np.testing.assert_allclose(solution.coefficients, w, rtol=0, atol=1e-14)
    np.testing.assert_allclose(solution.intercept, b, rtol=0, atol=1e-14)


def spectrum(X, *, standardize, fit_intercept, l2):
    """Return the largest eigenvalue of ∇²f, from NumPy."""
    n = len(X)
    penalty = np.full(X.shape[1], l2)
    if standardize:
        mean = fit_intercept * X.mean(axis=0)
        size = np.sqrt(np.mean((X - mean) ** 2, axis=0) + l2)
        if not l2 and size.max() <= 4 * size.min():
            # columns of similar size are all divided by one number
            size = np.full_like(size, np.exp(np.mean(np.log(size))))
        X, penalty = (X - mean) / size, l2 / size**2
    if fit_intercept:
        X, penalty = np.column_stack([X, np.ones(n)]), np.append(penalty, 0)
    return np.linalg.eigvalsh(X.T @ X / n + np.diag(penalty))[-1]


def hessians():
    X, _ = table()
    yield "plain", X
    yield "far from zero", X + 3
    yield "badly scaled", X * 10.0 ** np.linspace(-3, 3, 6)
    yield "nearly dependent", np.column_stack([X, X[:, 0] + 0.01 * X[:, 1]])


HESSIANS = [pytest.param(X, id=name) for name, X in hessians()]


@pytest.mark.parametrize("X", HESSIANS)
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("noise", [0.0, 1.0, 1e3])
def test_divergence_names_the_largest_stable_rate(X, standardize, fit_intercept, l2, noise):
    rng = np.random.default_rng(2)
    y = X @ rng.standard_normal(X.shape[1]) + noise * rng.standard_normal(len(X))
    kind = {"fit_intercept": fit_intercept, "l2": l2}
    largest = 2 / spectrum(X, standardize=standardize, **kind)
    # one segment, because there are a thousand epochs
    kind["cuts"] = ()
    # one percent too large diverges slowly, and must be detected too
    for rate in (1.01 * largest, 1.5 * largest, 1e9 * largest, 1e300):
        with pytest.raises(DivergenceError, match="largest stable") as caught:
            solve(GradientDescent(standardize=standardize, learning_rate=rate), X, y, **kind)
        assert f"learning_rate={rate} is" in str(caught.value)
        assert 0.97 * largest < caught.value.largest_stable < largest
    named = caught.value.largest_stable
    for rate in (named, 0.999 * largest):
        solution, _ = solve(
            GradientDescent(standardize=standardize, learning_rate=rate), X, y, **kind
        )
        assert solution.loss_history[-1] <= solution.loss_history[0]


def test_values_too_large_for_raw_coordinates_raise():
    X, y = table()
    for solver in (
        ConjugateGradient(standardize=False),
        GradientDescent(standardize=False),
        GradientDescent(standardize=False, learning_rate=0.1),
    ):
        with pytest.raises(DivergenceError, match="pass standardize=True"):
            solve(solver, X * 1e200, y)


def ill_conditioned(kappa, n=3000, d=30):
    rng = np.random.default_rng(1)
    Q, _ = np.linalg.qr(rng.standard_normal((n, d)))
    V, _ = np.linalg.qr(rng.standard_normal((d, d)))
    X = (Q * np.logspace(0, -np.log10(kappa), d)) @ V.T * np.sqrt(n)
    return X, X @ rng.standard_normal(d) + 0.3 * rng.standard_normal(n)


@pytest.mark.parametrize("tol", [0.0, 1e-16])
@pytest.mark.parametrize("kappa", [3, 30, 300])
def test_a_tolerance_below_rounding_stops_the_fit_at_rounding(tol, kappa):
    X, y = ill_conditioned(kappa)
    near, _ = solve(ConjugateGradient(tol=1e-13), X, y)
    solution, _ = solve(ConjugateGradient(tol=tol), X, y)
    assert solution.status is Status.STALLED
    assert not solution.status.converged
    # not early, because all digits are correct, and not long after that
    w, deviation = lstsq(X, y)
    assert error(solution, w, deviation) < 1e-14 * kappa**2
    assert near.n_epochs <= solution.n_epochs < 1.5 * near.n_epochs + 10


@pytest.mark.parametrize("standardize", [True, False])
def test_steepest_descent_stops_at_rounding_too(standardize):
    X, y = table()
    solution, _ = solve(GradientDescent(standardize=standardize, tol=0), X, y)
    assert solution.status is Status.STALLED
    assert error(solution, *lstsq(X, y)) < 1e-12
    assert solution.n_epochs < 500


def test_a_loss_of_zero_is_an_exact_fit():
    X, _ = table()
    y = X @ np.arange(1.0, 7) + 1
    for solver in (GradientDescent(), ConjugateGradient(tol=0)):
        solution, _ = solve(solver, X, y)
        assert solution.status is Status.EXACT_FIT
        np.testing.assert_allclose(solution.coefficients[:, 0], np.arange(1.0, 7), rtol=1e-12)


def test_running_out_of_epochs_is_reported():
    X, y = ill_conditioned(300)
    for solver in (ConjugateGradient(max_epochs=3), GradientDescent(max_epochs=3)):
        solution, _ = solve(solver, X, y)
        assert solution.status is Status.OUT_OF_EPOCHS
        assert solution.n_epochs == 3
        assert "raise max_epochs" in solution.status.value


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
def test_cg_stops_when_the_gradient_is_tol_times_the_first(tol):
    X, y = ill_conditioned(30)
    records = []
    solution = ConjugateGradient(tol=tol).solve(
        Problem(30, 1), Reduce(X, y), records.append, NO_ITERATE_STORE
    )
    norms = [record.gradient_norm for record in records]
    # the last epoch measures the gradient; the check of the answer may ask for more before it
    met = next(at for at, norm in enumerate(norms) if norm <= tol)
    assert norms[-1] <= tol
    assert met + 2 <= len(norms) <= 19
    assert [record.loss for record in records] == solution.loss_history[:-1]
    # NumPy computes the same gradient
    Z = (X - X.mean(axis=0)) / np.exp(np.mean(np.log(X.std(axis=0))))
    r = X @ solution.coefficients[:, 0] + solution.intercept - y
    relative = np.linalg.norm(Z.T @ r) / np.linalg.norm(Z.T @ (y - y.mean()))
    assert relative <= 1.1 * tol


def test_targets_solved_together_equal_targets_solved_alone():
    X, y = ill_conditioned(30)
    rng = np.random.default_rng(3)
    # a constant target, and targets that need different numbers of epochs
    Y = np.column_stack([X[:, 0] * 0 + 3, y, X @ rng.standard_normal(30), 1e-9 * y])
    together, reduce = solve(ConjugateGradient(tol=1e-12), X, Y)
    assert together.status is Status.SMALL_GRADIENT
    for k in range(4):
        alone, _ = solve(ConjugateGradient(tol=1e-12), X, Y[:, k])
        size = np.max(np.abs(alone.coefficients))
        np.testing.assert_allclose(
            together.coefficients[:, k], alone.coefficients[:, 0], atol=1e-11 * size
        )
    # K targets do not cost K passes
    assert len(reduce.asked) == together.n_epochs + 1


def test_cg_whose_check_is_not_met_is_not_converged():
    X, y = ill_conditioned(300)
    # y is in the span of the columns of largest variance: its gradient is small at once
    values, vectors = np.linalg.eigh(np.cov(X.T))
    y = (X @ vectors[:, -1]) / np.sqrt(values[-1]) + 1e-3 * y
    solution, _ = solve(ConjugateGradient(tol=0.1, max_epochs=1), X, y)
    assert solution.status is Status.UNCHECKED
    assert not solution.status.converged
    # with more epochs it goes on until the check is met
    solution, _ = solve(ConjugateGradient(tol=0.1), X, y)
    assert solution.status is Status.SMALL_GRADIENT
    assert error(solution, *lstsq(X, y)) < 1e-9


@pytest.mark.parametrize("tol", [1e-4, 1e-8])
def test_cg_is_converged_only_after_a_pass_that_measures_the_gradient(tol):
    X, y = ill_conditioned(30)
    needed = solve(ConjugateGradient(tol=tol), X, y)[0].n_epochs
    solution, _ = solve(ConjugateGradient(tol=tol, max_epochs=needed - 1), X, y)
    assert solution.status is Status.UNCONFIRMED
    assert not solution.status.converged


@pytest.mark.parametrize(("d", "most"), [(20, 28), (400, 150)])
def test_cg_with_and_without_kept_directions_finds_nearly_equal_columns(d, most):
    # only directions of up to 361 columns are kept
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3 * d, d))
    X[:, 1] = X[:, 0] + 1e-3 * X[:, 1]
    y = X @ rng.standard_normal(d) + rng.standard_normal(len(X))
    solution, reduce = solve(ConjugateGradient(), X, y)
    assert solution.status is Status.SMALL_GRADIENT
    # the difference of the two columns is a thousandth of them, so that a small gradient hides it
    assert error(solution, *lstsq(X, y)) < 1e-3
    assert len(reduce.asked) <= most


def factors(n, d):
    """Return a table of 8 strong factors, and targets: one that they explain, others of noise."""
    rng = np.random.default_rng(11)
    X = rng.standard_normal((n, 8)) @ rng.standard_normal((8, d)) + 0.5 * rng.standard_normal(
        (n, d)
    )
    Y = rng.standard_normal((n, 8))
    Y[:, 0] += X @ rng.standard_normal(d)
    return X, Y


@pytest.mark.parametrize("d", range(3, 12))
def test_cg_with_equal_columns_converges_and_names_them(d):
    # the known weights of the check may be nearly equal too
    for n, seed in ((30, 0), (300, 1), (2000, 2)):
        X, y = table(n=n, d=d, seed=seed)
        X[:, 2] = X[:, 0]
        solution, _ = solve(ConjugateGradient(), X, y)
        assert solution.status is Status.SMALL_GRADIENT
        (warning,) = solution.warnings
        assert "columns 0, 2 are multiples" in str(warning)
        assert error(solution, *lstsq(X, y)) < 1e-6


def test_cg_without_kept_directions_takes_no_more_epochs_for_several_targets():
    X, Y = factors(800, 362)
    alone = [solve(ConjugateGradient(), X, Y[:, k])[0].n_epochs for k in (0, 1)]
    for k in (3, 4, 8):
        together, _ = solve(ConjugateGradient(), X, Y[:, :k])
        assert together.status is Status.SMALL_GRADIENT
        assert error(together, *lstsq(X, Y[:, :k])) < 1e-4
        assert together.n_epochs <= 1.2 * max(alone)


@pytest.mark.parametrize("d", [60, 362])
def test_a_looser_tolerance_costs_cg_no_more_epochs_and_keeps_some_digits(d):
    X, Y = factors(800, d)
    epochs = []
    for tol in (1e-2, 1e-8):
        solution, _ = solve(ConjugateGradient(tol=tol), X, Y[:, 0])
        assert solution.status is Status.SMALL_GRADIENT
        assert error(solution, *lstsq(X, Y[:, 0])) < 1e-2
        epochs.append(solution.n_epochs)
    assert epochs[0] <= epochs[1]


@pytest.mark.parametrize("kind", [ConjugateGradient, GradientDescent])
def test_a_fit_that_starts_at_the_answer_stops_at_once(kind):
    X, y = table()
    answer, _ = solve(kind(tol=1e-10), X, y)
    again, _ = solve(kind(tol=1e-8, init=answer.coefficients), X, y)
    assert again.status.converged
    assert again.n_epochs <= 1
    np.testing.assert_allclose(again.coefficients, answer.coefficients, rtol=1e-4)


def test_cg_checks_a_start_whose_gradient_is_small():
    X, y = table(d=4)
    X[:, 3] = X[:, 0] + 1e-5 * X[:, 3]
    w, deviation = lstsq(X, y)
    # predictions hardly differ: the gradient at this start is below tol
    start = w + 1e-2 * np.array([[1.0], [0], [0], [-1]])
    solution, _ = solve(ConjugateGradient(init=start, tol=1e-6), X, y)
    assert solution.status is Status.SMALL_GRADIENT
    assert error(solution, w, deviation) < 1e-8


@pytest.mark.parametrize("n", [15, 30])
def test_cg_with_a_penalty_is_checked_with_fewer_rows_than_columns(n):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 30)) * np.geomspace(1, 1e-3, n)[:, None]
    y = rng.standard_normal(n)
    solution, _ = solve(ConjugateGradient(tol=1e-4), X, y, l2=1e-9)
    root = np.sqrt(n * 1e-9)
    padded = np.vstack([X - X.mean(axis=0), root * np.eye(30)])
    w = np.linalg.lstsq(padded, np.append(y - y.mean(), np.zeros(30)), rcond=None)[0]
    assert solution.status is Status.SMALL_GRADIENT
    np.testing.assert_allclose(solution.coefficients[:, 0], w, atol=1e-6 * np.abs(w).max())


def test_y_independent_of_x_is_detected_before_the_first_epoch():
    X = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    # a product of two columns is orthogonal to all columns
    for solver in (ConjugateGradient(), GradientDescent()):
        solution, _ = solve(solver, X, X[:, 0] * X[:, 1])
        assert solution.n_epochs == 0
        assert not solution.coefficients.any()
        assert solution.status.converged


def test_a_step_too_short_to_lower_the_loss_gets_a_warning():
    X, y = table()
    solution, _ = solve(GradientDescent(learning_rate=1e-9), X, y)
    assert solution.status is Status.SMALL_DECREASE
    (warning,) = solution.warnings
    assert "this is no minimum" in warning
    good, _ = solve(GradientDescent(learning_rate=0.3), X, y)
    assert not good.warnings
