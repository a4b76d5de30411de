"""Values that other packages get wrong: fitted, some with a warning (rows V of README.md)."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from lab import D, N, X, Y
from problems import lstsq

from streamreg import DataWarning, LinearRegression

pytestmark = pytest.mark.timeout(10)

# errors of predictions and weights, in deviations of y, at tol=1e-10
SOLVERS = {"closed_form": 1e-9, "cg": 1e-9, "gd": 1e-4}
NOISY = Y + np.random.default_rng(1).normal(size=N)


def at(values, where, what):
    """Return a copy with one value, or several, changed."""
    changed = np.array(values, dtype=float)
    changed[where] = what
    return changed


@dataclass(frozen=True)
class Case:
    """A row of the table: the data to fit, the expected weights and the expected warning."""

    row: str
    X: Any
    y: Any
    weight: Any = None
    # the same problem in a form that lstsq can solve; its weights times ``unit`` are expected
    plain: tuple[np.ndarray, np.ndarray] | None = None
    unit: Any = 1.0
    # pattern of the one warning; empty means none
    says: str = ""
    # the same for cg and gd, if it differs
    says_by_descent: str | None = None
    # and for cg alone
    says_by_cg: str | None = None
    parameters: tuple[tuple[str, Any], ...] = ()


def cases():
    holes = at(X, ([3, 500, 1001], [0, 3, 2]), [np.nan, np.inf, -np.inf])
    finite = np.isfinite(holes).all(axis=1)
    yield Case("V1 V2 omitted", holes, NOISY, plain=(X[finite], NOISY[finite]),
               says="3 of 1,003 rows hold NaN or inf and were left out",
               parameters=(("nan_policy", "omit"),))  # fmt: skip
    huge, tiny = 2.0**664, 2.0**-664
    yield Case("V4", X * huge, NOISY, plain=(X, NOISY), unit=1 / huge)
    yield Case("V4 in y", X, NOISY * huge, plain=(X, NOISY), unit=huge)
    yield Case("V5", X * tiny, NOISY, plain=(X, NOISY), unit=1 / tiny)
    yield Case("V5 in y", X, NOISY * tiny, plain=(X, NOISY), unit=tiny)
    yield Case("V4 V5 together", X * [huge, tiny, 1, 1], NOISY, plain=(X, NOISY),
               unit=1 / np.array([huge, tiny, 1, 1]))  # fmt: skip
    wide = np.random.default_rng(2).normal(size=(200_000, D)).astype("f4") + np.float32(50)
    yield Case("V6", wide, wide @ np.ones(D, "f4") + np.sin(np.arange(200_000)))
    yield Case("V7", X + 1e8, NOISY)
    yield Case("V7 in y", X, NOISY + 1e8)
    yield Case("V8", at(X, np.s_[:, 1], 7.3), NOISY, says="column 1 is constant")
    yield Case("V9", at(X, np.s_[:, 1], 0), NOISY, says="column 1 is constant")
    yield Case("V10 duplicates", np.column_stack([X, X[:, 2]]), NOISY,
               says="column 2 depends linearly|column 4 depends linearly",
               says_by_descent="columns 2, 4 are multiples of each other")  # fmt: skip
    yield Case("V10 collinear", np.column_stack([X, X[:, 0] - X[:, 1]]), NOISY,
               says="depends linearly on the others", says_by_descent="",
               says_by_cg="columns 0, 1, 4 depend on each other linearly")  # fmt: skip
    yield Case("V12", X[:3] / X[:3].std(axis=0), NOISY[:3], says="depend linearly",
               says_by_descent="3 rows cannot determine the weights of 4 columns")  # fmt: skip
    yield Case("V13", X[:4] / X[:4].std(axis=0), NOISY[:4], says="depends linearly",
               says_by_descent="4 rows cannot determine the weights of 4 columns")  # fmt: skip
    yield Case("V14", X, np.full(N, 2.5), plain=(X, np.zeros(N)))
    outlier, unit = at(X, (7, 1), 1e300), np.array([1, 2.0**-996, 1, 1])
    yield Case("V15", outlier, NOISY, plain=(outlier * unit, NOISY), unit=unit,
               says="spread of column 1.*Is it an outlier")  # fmt: skip
    outlier = at(NOISY, 7, 1e300)
    yield Case("V15 in y", X, outlier, plain=(X, outlier * 2.0**-996), unit=2.0**996,
               says="spread of y.*Is it an outlier")  # fmt: skip
    subnormal = X * 2.0**-1040
    yield Case("V16", subnormal, NOISY * 2.0**-500, plain=(subnormal * 2.0**1000 * 2.0**40, NOISY),
               unit=2.0**540)  # fmt: skip
    counts = np.arange(N) % 3
    yield Case("V17 zero weights", X, NOISY, counts,
               plain=(np.repeat(X, counts, axis=0), np.repeat(NOISY, counts)))  # fmt: skip
    yield Case("V18", np.repeat(np.where(X > 1, -0.0, X), 2, axis=0), np.repeat(NOISY, 2))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.row)
def test_fit_agrees_with_lstsq_and_warns_as_expected(case, solver):
    parameters = {"solver": solver, "tol": 1e-10, **dict(case.parameters)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearRegression(**parameters).fit(case.X, case.y, case.weight)
    expected = case.says if solver == "closed_form" else case.says_by_descent
    if solver == "cg" and case.says_by_cg:
        expected = case.says_by_cg
    expected = case.says if expected is None else expected
    assert all(issubclass(warning.category, DataWarning) for warning in caught)
    assert len(caught) == bool(expected)
    for warning in caught:
        assert re.search(expected, str(warning.message))
    plain_X, plain_y = case.plain or (np.asarray(case.X, float), case.y)
    w, deviation = lstsq(plain_X, plain_y)
    ours = model.coef_ / case.unit
    moved = plain_X - plain_X.mean(axis=0)
    size = np.std(plain_y) or 1.0
    np.testing.assert_allclose(moved @ ours, moved @ w[:, 0], atol=10 * SOLVERS[solver] * size)
    if np.linalg.matrix_rank(moved / np.where(deviation > 0, deviation, 1)) == moved.shape[1]:
        np.testing.assert_allclose(
            ours * deviation, w[:, 0] * deviation, atol=SOLVERS[solver] * size
        )


def test_v11_nearly_dependent_columns_are_named_with_their_condition():
    near = np.column_stack([X, X[:, 0] + 1e-5 * np.random.default_rng(3).normal(size=N)])
    with pytest.warns(
        DataWarning, match=r"nearly dependent, column [04].*condition number is [1-9]e\+05"
    ):
        model = LinearRegression(solver="closed_form").fit(near, NOISY)
    w, deviation = lstsq(near, NOISY)
    # the warning says that about ten digits or more are right
    off = np.max(np.abs(model.coef_ - w[:, 0]) * deviation)
    assert off < 1e-9 * np.max(np.abs(w[:, 0]) * deviation)


def test_v14_r2_of_a_constant_y_is_nan_with_a_warning():
    model = LinearRegression().fit(X, np.full(N, 2.5))
    with pytest.warns(DataWarning, match="R² is not defined where y is constant"):
        assert np.isnan(model.score(X, np.full(N, 2.5)))
