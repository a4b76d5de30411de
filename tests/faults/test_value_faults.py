"""Refused values (rows V of the table of faults), and refused parameters and limits (rows C)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lab import ROWS, D, Faults, Lab, N, X, Y, assert_error
from sklearn.exceptions import ConvergenceWarning

import streamreg
from streamreg import InputError, LinearRegression
from streamreg.errors import DataCorruptionError, DivergenceError, MemoryLimitError

pytestmark = pytest.mark.timeout(10)

NOISY = Y + np.random.default_rng(1).normal(size=N)


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def changed(values, where, new):
    """Return a copy of ``values`` in which ``values[where]`` is ``new``."""
    copy = np.array(values, dtype=float)
    copy[where] = new
    return copy


def fit(X=X, y=NOISY, weight=None, **parameters):
    return LinearRegression(**parameters).fit(X, y, weight)


FAULTS = Faults()


@FAULTS.row(
    "V1 in X", InputError, r"X\.zarr has NaN in row 723, column 2: chunk c/7/0", "contains 2 such",
    reads=True,
)  # fmt: skip
def _(lab):
    path = lab.store(changed(X, ([723, 790], [2, 0]), np.nan))
    return lambda: fit(path)


@FAULTS.row("V1 in y", InputError, r"y has NaN in row 1,002, column 0", 'nan_policy="omit"')
def _(_lab):
    return lambda: fit(y=changed(Y, -1, np.nan))


@FAULTS.row("V1 all rows", InputError, "left to fit: of 1,003 rows, all hold NaN or inf")
def _(_lab):
    return lambda: fit(changed(X, np.s_[:, 1], np.nan), nan_policy="omit")


@FAULTS.row("V1 in a row to predict", InputError, "X has NaN in row 5, column 3")
def _(_lab):
    model = fit()
    return lambda: model.predict(changed(X, (5, 3), np.nan))


@FAULTS.row("V2 in X", InputError, r"X\.zarr has inf in row 0, column 0: chunk c/0/0", reads=True)
def _(lab):
    path = lab.store(changed(X, (0, 0), np.inf))
    return lambda: fit(path, solver="cg")


@FAULTS.row("V2 in y", InputError, "y has inf in row 400, column 0")
def _(_lab):
    return lambda: fit(y=changed(Y, 400, -np.inf), solver="gd")


@FAULTS.row(
    "V3", DataCorruptionError, r"chunk c/3/0 of .*X\.zarr", "missing", 'missing_chunks="fill"',
    reads=True,
)  # fmt: skip
def _(lab):
    path = lab.store(fill_value=np.nan)
    (path / "c" / "3" / "0").unlink()
    return lambda: fit(path)


for row, value in (("V17 negative", -0.5), ("V17 NaN", np.nan), ("V17 inf", np.inf)):

    @FAULTS.row(row, InputError, "sample_weight is .* in row 17", "finite and not negative")
    def _(_lab, value=value):
        return lambda: fit(weight=changed(np.ones(N), 17, value))


@FAULTS.row("V17 all zero", InputError, "no row of X is left to fit", "all have zero weight")
def _(_lab):
    return lambda: fit(weight=np.zeros(N), solver="cg")


@FAULTS.row(
    "V17 all zero, integers", InputError, "no row of X is left to fit", "all have zero weight"
)
def _(_lab):
    return lambda: fit(weight=np.zeros(N, int))


@FAULTS.row(
    "V17 all zero or NaN",
    InputError,
    "of 1,003 rows, 3 left out for NaN or inf",
    "all others have zero weight",
)
def _(_lab):
    weight = changed(np.zeros(N), [1, 2, 3], 1)
    return lambda: fit(changed(X, ([1, 2, 3], 0), np.nan), weight=weight, nan_policy="omit")


for name, rate in (("nan", np.nan), ("inf", np.inf), ("0", 0), ("-1", -1), ("word", "fast")):

    @FAULTS.row(f"C1 {name}", InputError, r"learning_rate=.* must be a number above 0")
    def _(_lab, rate=rate):
        return lambda: fit(solver="gd", learning_rate=rate)


for name, rate in (("1% too large", 2.02), ("ten times", 20.0), ("1e300", 1e300)):

    @FAULTS.row(f"C2 {name}", DivergenceError, "learning_rate=", "largest stable one is about")
    def _(_lab, rate=rate):
        Z = np.linalg.qr(X - X.mean(axis=0))[0] * np.sqrt(N)
        # the Hessian is the identity: 2 is the largest stable rate
        return lambda: fit(Z, solver="gd", learning_rate=rate, standardize=False)


for name, value in (
    ("max_epochs", 0), ("max_epochs", 2.5), ("max_epochs", np.nan), ("max_epochs", np.inf),
    ("max_epochs", "many"), ("tol", -1e-3), ("tol", 1.0), ("tol", np.nan), ("tol", "small"),
    ("l2", -1.0), ("l2", np.inf), ("l2", np.nan), ("l2", "some"), ("n_threads", 0),
    ("n_threads", 1.5), ("solver", "magic"), ("nan_policy", "drop"), ("missing_chunks", "zero"),
    ("init", "ones"), ("init", [1.0, 2.0]), ("init", [np.nan] * D), ("init", ["a"] * D),
    ("device", "tpu"),
):  # fmt: skip

    @FAULTS.row(f"C3 {name}={value}", InputError, f"^{name}")
    def _(_lab, name=name, value=value):
        return lambda: fit(**{"solver": "cg", name: value})


@FAULTS.row("C3 random_state", InputError, "random_state='dice' cannot seed a generator")
def _(_lab):
    return lambda: fit(init="random", random_state="dice")


@FAULTS.row(
    "C4", MemoryLimitError, "cg needs .* but memory_limit is 100.0 KiB", "Raise memory_limit"
)
def _(lab):
    path = lab.store()
    return lambda: fit(path, solver="cg", memory_limit="100 KiB")


@FAULTS.row("C5", MemoryLimitError, "closed_form needs 74", "no data was read", 'use solver="cg"')
def _(lab):
    path = lab.declared(shape=(20_000, 100_000), chunks=(10, 100_000))
    return lambda: fit(path, np.zeros(20_000), solver="closed_form", memory_limit="2 GiB")


for text in ("4 GBB", "much", "-1 GiB", "0", ""):

    @FAULTS.row(f"C6 {text!r}", InputError, f"memory_limit={text!r}")
    def _(_lab, text=text):
        return lambda: fit(memory_limit=text)


@FAULTS.row("C8 width", InputError, "X has 3 features, but LinearRegression is expecting 4")
def _(_lab):
    model = fit()
    return lambda: model.predict(X[:, :3])


@FAULTS.row("C8 width on disk", InputError, "X has 3 features, but LinearRegression is expecting 4")
def _(lab):
    model, path = fit(), lab.store(X[:, :3])
    return lambda: model.predict(path, out=lab.folder / "yhat.zarr")


@FAULTS.row("C8 dtype", InputError, "complex|Complex")
def _(_lab):
    model = fit()
    return lambda: model.predict(X.astype(complex))


@FAULTS.row("C8 names", InputError, "feature names should match", "unseen at fit time", "- z")
def _(_lab):
    model = fit(pd.DataFrame(X, columns=list("abcd")))
    return lambda: model.predict(pd.DataFrame(X, columns=list("abcz")))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_fault_raises_its_error(fault, lab, chunks_opened):
    assert_error(fault, lab, chunks_opened)


def test_c2_the_learning_rate_that_the_error_offers_is_stable():
    with pytest.raises(DivergenceError) as caught:
        fit(solver="gd", learning_rate=1e6)
    assert fit(solver="gd", learning_rate=caught.value.largest_stable).converged_


def test_c4_c5_each_offered_remedy_fits(lab):
    path = lab.store(np.tile(X, (1, 300)), chunks=(ROWS, 1200))
    with pytest.raises(MemoryLimitError) as caught:
        fit(path, solver="closed_form", memory_limit="16 MiB")
    offered = str(caught.value).rpartition("Raise memory_limit to ")[2].partition(",")[0]
    raised = streamreg.plan(path, NOISY, solver="closed_form", memory_limit=offered)
    assert raised.candidates["closed_form"].fits
    plan = streamreg.plan(path, NOISY, solver="cg", memory_limit="16 MiB")
    assert plan.candidates["cg"].fits == ('use solver="cg"' in str(caught.value))


@pytest.mark.parametrize("solver", ["cg", "gd"])
def test_c9_a_fit_that_does_not_converge_warns(solver):
    with pytest.warns(ConvergenceWarning, match=f"{solver} did not converge in 1 epoch\\."):
        model = fit(solver=solver, max_epochs=1, tol=1e-14)
    assert not model.converged_
    assert "raise max_epochs" in model.status_
