"""Figures that follow from standard errors, beside SciPy's; and what a file may hold."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from streamreg.formatting import as_json
from streamreg.inference import tails
from streamreg.inference.result import COV_TYPES, Inference


def some(cov_type="nonrobust", k=1, p=3, **changes):
    rng = np.random.default_rng(0)
    is_robust = cov_type != "nonrobust"
    known = {
        "cov_type": cov_type,
        "terms": ("const", *(f"x{j}" for j in range(1, p))),
        "params": rng.standard_normal((k, p)),
        "bse": rng.uniform(0.1, 1, (k, p)),
        "nobs": 20,
        "rank": p,
        "has_intercept": True,
        "is_centred": True,
        "rss": rng.uniform(1, 2, k),
        "tss": rng.uniform(3, 4, k),
        "y_exponents": np.zeros(k, np.int32),
        "log_weight_sum": 0.5,
        "n_groups": 5 if cov_type == "cluster" else None,
        "wald": rng.uniform(1, 2, k) if is_robust else None,
        "covariance": np.eye(p),
    }
    return Inference(**known | changes)


@pytest.mark.parametrize("df", [1, 2, 5, 30, 1e3, 1e6])
def test_tails_of_t_are_scipys(df):
    t = np.array([0.0, 0.01, 0.5, 2.0, 8.0, 25.0, 29.9, 30.1, 37.0])
    expected = 2 * stats.t.sf(t, df)
    kept = expected > 1e-290
    np.testing.assert_allclose(tails.two_sided(t, df)[kept], expected[kept], rtol=1e-10)
    found = tails.log10_two_sided(t, df)
    np.testing.assert_allclose(found[kept], np.log10(expected[kept]), rtol=1e-10, atol=1e-12)


def test_tails_of_small_t_are_cauchys():
    # P = 1 - 2/π·arctan t with one degree of freedom, where SciPy's has 8 digits
    t = np.array([1e-12, 1e-8, 1e-4])
    np.testing.assert_allclose(tails.two_sided(t, 1), 1 - 2 / np.pi * np.arctan(t), rtol=1e-11)


@pytest.mark.parametrize("df", [3, 50, 1e5])
def test_logarithms_of_tails_go_on_where_p_is_0(df):
    # the logarithm of the density's integral, by SciPy's own asymptotic form
    for t in (40.0, 1e3, 1e150):
        found = float(tails.log10_two_sided(np.array(t), df))
        exact = np.log10(2) + stats.t.logsf(t, df) / np.log(10)
        if np.isfinite(exact) and exact > -290:
            np.testing.assert_allclose(found, exact, rtol=1e-10)
        # P falls as t^-df for large t
        further = float(tails.log10_two_sided(np.array(10 * t), df))
        if t**2 > 1e4 * df:
            np.testing.assert_allclose(found - further, df, rtol=1e-4)
        assert further < found


def test_normal_tails_are_scipys():
    z = np.array([0.0, 1.0, 5.0, 37.0, 100.0])
    np.testing.assert_allclose(tails.two_sided(z, None), 2 * stats.norm.sf(z), rtol=1e-12)
    expected = (stats.norm.logsf(z) + np.log(2)) / np.log(10)
    np.testing.assert_allclose(tails.log10_two_sided(z, None), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("f", [0.1, 1.0, 50.0, 1e4])
def test_tails_of_f_are_scipys(f):
    np.testing.assert_allclose(tails.f_tail(np.array(f), 4, 70), stats.f.sf(f, 4, 70), rtol=1e-10)


@pytest.mark.parametrize("cov_type", COV_TYPES)
@pytest.mark.parametrize("k", [1, 3])
def test_a_file_gives_back_every_number(cov_type, k):
    before = some(cov_type, k)
    after = Inference.from_dict(json.loads(json.dumps(as_json(before.to_dict()))))
    for field in fields(Inference):
        np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))


def test_nan_is_null_in_a_file():
    before = some(bse=np.array([[0.1, np.nan, 0.2]]))
    after = Inference.from_dict(json.loads(json.dumps(as_json(before.to_dict()))))
    np.testing.assert_array_equal(after.bse, before.bse)
    assert np.isnan(after.pvalues[0, 1])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_gives_numbers(data):
    known = some("cluster").to_dict()
    for name in data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3)):
        known[name] = data.draw(JUNK)
    try:
        loaded = Inference.from_dict(known)
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    with np.errstate(all="ignore"):
        loaded.to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"cov_type": "HC9"},
        {"terms": ["const", 1, "x2"]},
        {"params": [[1.0, 2.0]]},
        {"bse": [[1.0, -2.0, 0.5]]},
        {"bse": [[1.0, True, 0.5]]},
        {"bse": [[1.0, "2", 0.5]]},
        {"nobs": -1},
        {"nobs": 2.5},
        {"is_centred": 1},
        {"n_groups": 3},
        {"covariance": [[1.0]]},
        {"rss": [float("inf")]},
        {"is_determined": [True]},
        {"is_determined": [True, 1, False]},
        {"y_exponents": [0.5]},
        {"y_exponents": [1 << 40]},
    ],
)
def test_what_is_no_inference_is_refused(changes):
    with pytest.raises((TypeError, ValueError)):
        Inference.from_dict(some().to_dict() | changes)
    with pytest.raises(TypeError):
        Inference.from_dict([])


def test_without_degrees_of_freedom_nothing_is_claimed():
    inference = some(nobs=3, bse=np.full((1, 3), np.nan))
    for name in ("scale", "tvalues", "pvalues", "log10_pvalues", "rsquared_adj", "fvalue"):
        assert np.isnan(getattr(inference, name)).all(), name
    assert np.isnan(inference.conf_int()).all()


def test_a_covariance_that_is_not_kept_is_none():
    assert replace(some(), covariance=None).cov_params() is None
