"""Standard errors by the estimator: attributes, tables, groups, and what is refused."""

from __future__ import annotations

import sys
import warnings

import maketables
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import statsmodels.api as sm
import zarr
from sklearn.base import clone
from statsmodels.datasets import longley

import streamreg
from streamreg import LinearRegression
from streamreg.errors import DataWarning, InputError, MemoryLimitError

ATTRIBUTES = (
    *("bse_", "tvalues_", "pvalues_", "rsquared_", "rsquared_adj_", "fvalue_", "f_pvalue_"),
    *("llf_", "aic_", "bic_", "scale_", "nobs_", "df_resid_", "df_model_"),
)
METHODS = ("conf_int", "cov_params", "summary", "tidy")


@pytest.fixture(scope="module")
def frame():
    data = longley.load_pandas()
    return data.exog.reset_index(drop=True), data.endog.to_numpy()


@pytest.fixture(scope="module")
def fitted(frame):
    return LinearRegression(solver="qr", cov_type="HC1").fit(*frame)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3))
    return X, X @ [1.0, 2.0, 0.0] + rng.standard_normal(120), rng.integers(0, 12, 120)


def test_without_cov_type_there_are_no_such_attributes(frame):
    model = LinearRegression().fit(*frame)
    for name in ATTRIBUTES:
        assert not hasattr(model, name)
    for name in METHODS:
        with pytest.raises(AttributeError, match='pass cov_type="nonrobust"'):
            getattr(model, name)()
    assert not hasattr(LinearRegression(cov_type="HC1"), "bse_")


def test_a_second_fit_without_cov_type_removes_them(rows):
    X, y, _ = rows
    model = LinearRegression(cov_type="nonrobust").fit(X, y)
    assert hasattr(model, "bse_")
    assert not hasattr(model.set_params(cov_type=None).fit(X, y), "bse_")


def test_figures_of_one_target_are_floats(fitted):
    assert fitted.bse_.shape == (7,)
    assert fitted.conf_int().shape == (7, 2)
    assert fitted.cov_params().shape == (7, 7)
    assert type(fitted.rsquared_) is float
    assert fitted.nobs_ == 16
    assert fitted.df_resid_ == 9


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_loaded_model_has_the_same_figures(fitted, tmp_path, suffix):
    fitted.save(tmp_path / f"model{suffix}")
    loaded = streamreg.load(tmp_path / f"model{suffix}")
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))
    assert str(loaded.summary()) == str(fitted.summary())
    np.testing.assert_array_equal(loaded.cov_params(), fitted.cov_params())


def test_a_clone_has_the_parameters():
    model = clone(LinearRegression(cov_type="HC1", inference_for=["a"]))
    assert (model.cov_type, model.inference_for) == ("HC1", ["a"])


def test_a_summary_shows_what_users_of_statsmodels_look_for(fitted, frame):
    text = str(fitted.summary())
    expected = sm.OLS(frame[1], sm.add_constant(frame[0])).fit(cov_type="HC1")
    for term, coefficient in zip(["const", *frame[0]], expected.params, strict=True):
        line = next(line for line in text.splitlines() if line.split()[:1] == [term])
        number = float(line.split()[1])
        np.testing.assert_allclose(number, coefficient, rtol=1e-3, atol=1e-4)
    for words in ("No. Observations:", "R-squared:", "[0.025", "P>|z|", "log10 P", "HC1"):
        assert words in text
    assert "n/(n - k)" in text
    assert "normal distribution" in text
    assert max(map(len, text.splitlines())) <= 100
    html = fitted.summary()._repr_html_()
    assert html.startswith("<pre>")
    assert "GNPDEFL" in html
    assert fitted.summary().to_dict()["nobs"] == 16
    assert "[0.05" in str(fitted.summary(alpha=0.1))


def test_the_summary_says_the_conventions_of_clusters(rows):
    X, y, groups = rows
    text = str(LinearRegression(cov_type="cluster").fit(X, y, groups=groups).summary())
    assert "clustered by 12 groups" in text
    assert "G/(G - 1) · (n - 1)/(n - k)" in text
    assert "t with 11 degrees of freedom" in text


def test_tidy_has_brooms_names(fitted, frame):
    tidy = fitted.tidy()
    names = ["term", "estimate", "std.error", "statistic", "p.value", "conf.low", "conf.high"]
    assert list(tidy.columns) == names
    assert list(tidy["term"]) == ["(Intercept)", *frame[0]]
    np.testing.assert_array_equal(tidy["estimate"], np.append(fitted.intercept_, fitted.coef_))
    np.testing.assert_array_equal(tidy["std.error"], fitted.bse_)
    np.testing.assert_array_equal(tidy[["conf.low", "conf.high"]], fitted.conf_int())


def test_tidy_of_several_targets_names_them(rows):
    X, y, _ = rows
    model = LinearRegression(cov_type="nonrobust").fit(X, np.column_stack([y, X[:, 0] - y]))
    tidy = model.tidy()
    assert list(tidy["response"]) == ["y0"] * 4 + ["y1"] * 4
    np.testing.assert_array_equal(tidy["p.value"], model.pvalues_.ravel())
    assert str(model.summary()).count("Dep. Variable:") == 2
    assert "Least squares: y1" in str(model.summary())


def test_columns_without_names_are_counted_from_0_as_in_messages(rows):
    X, y, _ = rows
    columns = np.column_stack([X[:, :2], np.ones(len(X))])
    model = LinearRegression(solver="cg", cov_type="nonrobust", inference_for=[1])
    with pytest.warns(DataWarning, match="column 2 is constant"):
        model.fit(columns, y)
    assert list(model.tidy()["term"]) == ["(Intercept)", "x0", "x1", "x2"]
    assert np.flatnonzero(np.isfinite(model.bse_)).tolist() == [0, 2]


def test_weights_of_product_1_are_weights(rows):
    X, y, _ = rows
    weight = np.where(np.arange(len(X)) % 2, 0.5, 2.0)[: len(X) // 2 * 2]
    n = len(weight)
    model = LinearRegression(cov_type="nonrobust").fit(X[:n], y[:n], weight)
    assert "WLS" in str(model.summary())


def test_groups_may_be_a_frame_of_one_column(rows):
    X, y, _ = rows
    groups = np.arange(len(X)) // 7
    known = LinearRegression(cov_type="cluster").fit(X, y, groups=groups)
    model = LinearRegression(cov_type="cluster").fit(X, y, groups=pd.DataFrame({"g": groups}))
    np.testing.assert_array_equal(model.bse_, known.bse_)
    with pytest.raises(InputError, match="groups have 2 columns"):
        LinearRegression(cov_type="cluster").fit(
            X, y, groups=pd.DataFrame({"g": groups, "h": groups})
        )


def test_a_refusal_after_groups_says_that_they_were_read(rows):
    X, y, _ = rows
    with pytest.raises(MemoryLimitError, match="only groups were read"):
        LinearRegression(cov_type="cluster", memory_limit="100 KiB").fit(
            X, y, groups=np.arange(len(X)) // 7
        )


def test_a_column_without_a_name_is_not_the_intercept(rows):
    X, y, _ = rows
    frame = pd.DataFrame(X[:, :2], columns=["", "b"])
    tidy = LinearRegression(cov_type="nonrobust", fit_intercept=False).fit(frame, y).tidy()
    assert list(tidy["term"]) == ["", "b"]


def test_tidy_without_pandas_says_so(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        fitted.tidy()


def test_maketables_makes_a_table_of_it(fitted, frame):
    table = maketables.ETable(fitted).make(type="tex")
    assert "GNPDEFL" in table
    assert "16" in table
    frame_of = fitted.__maketables_coef_table__
    np.testing.assert_array_equal(frame_of["se"], fitted.bse_)
    assert not hasattr(LinearRegression().fit(*frame), "__maketables_coef_table__")


# what the data do not determine


def test_a_column_twice_and_a_constant_have_nan_and_the_others_their_errors(rows):
    X, y, _ = rows
    columns = np.column_stack([X, 2 * X[:, 0], np.full(len(X), 7.0)])
    expected = sm.OLS(y, sm.add_constant(X)).fit()
    for cov_type in ("nonrobust", "HC1", "HC3"):
        for solver in ("closed_form", "qr"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                model = LinearRegression(cov_type=cov_type, solver=solver).fit(columns, y)
            robust = (
                expected.get_robustcov_results(cov_type) if cov_type != "nonrobust" else expected
            )
            # the intercept, and columns 1 and 2
            np.testing.assert_allclose(model.bse_[[0, 2, 3]], robust.bse[[0, 2, 3]], rtol=1e-8)
            assert np.isnan(model.bse_[[1, 4, 5]]).all()
            assert np.isnan(model.conf_int()[[1, 4, 5]]).all()
            assert np.isnan(model.tidy()["estimate"][[1, 4, 5]]).all()
            assert (model.df_model_, model.df_resid_) == (3, len(X) - 4)
            np.testing.assert_allclose(model.rsquared_, expected.rsquared, rtol=1e-10)
            assert "do not determine" in str(model.summary())


def test_an_intercept_that_columns_hide_is_not_determined(rows):
    X, y, _ = rows
    # the second column is the first one and 1
    columns = np.column_stack([X[:, 0], X[:, 0] + 1])
    with pytest.warns(DataWarning, match="depend"):
        model = LinearRegression(cov_type="nonrobust").fit(columns, y)
    assert np.isnan(model.bse_).all()
    assert model.df_model_ == 1


def test_fewer_rows_than_columns_give_nan():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model = LinearRegression(cov_type="HC1").fit(rng.standard_normal((4, 6)), np.arange(4.0))
    assert np.isnan(model.bse_).all()
    assert model.df_resid_ == 0
    assert np.isnan(model.scale_)
    assert "no more rows than coefficients" in str(model.summary())


def test_values_of_1e200_have_errors_in_their_units(rows):
    X, y, _ = rows
    plain = LinearRegression(cov_type="HC1").fit(X, y)
    for cov_type in ("nonrobust", "HC1", "HC3"):
        plain = LinearRegression(cov_type=cov_type).fit(X, y)
        large = LinearRegression(cov_type=cov_type).fit(X * 2.0**650, y * 2.0**-20)
        np.testing.assert_allclose(large.bse_[1:], plain.bse_[1:] * 2.0**-670, rtol=1e-12)
        np.testing.assert_allclose(large.tvalues_, plain.tvalues_, rtol=1e-10)


# groups


def labels(groups):
    return np.array([f"g{g}" for g in groups])


@pytest.mark.parametrize(
    "as_given",
    [
        np.asarray,
        np.sort,
        lambda g: g.astype(float),
        lambda g: g.tolist(),
        labels,
        lambda g: labels(g).astype(object),
        lambda g: labels(g).tolist(),
        lambda g: pd.Series(labels(g), index=range(5, 125)),
        lambda g: pd.Series(labels(g)).astype("category"),
        lambda g: pd.DataFrame({"g": g}),
        lambda g: pytest.importorskip("polars").Series(labels(g)),
        lambda g: pytest.importorskip("polars").DataFrame({"g": labels(g)}),
        lambda g: pa.array(labels(g).tolist()),
        lambda g: pa.table({"g": labels(g).tolist()}).column(0),
        lambda g: np.datetime64("2026-11-30") + g.astype(int),
        lambda g: g + 2**60,
        lambda g: np.repeat([5, 1, 9, 3], 30)[: len(g)],
    ],
)
def test_groups_may_be_of_any_kind(rows, as_given):
    X, y, groups = rows
    given = as_given(groups)
    model = LinearRegression(cov_type="cluster").fit(X, y, groups=given)
    codes = pd.factorize(np.ravel(given))[0]
    expected = sm.OLS(y, sm.add_constant(X)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    np.testing.assert_allclose(model.bse_, expected.bse, rtol=1e-10)


def test_groups_are_read_from_a_file_in_chunks_of_their_own(rows, tmp_path):
    X, y, groups = rows
    for name, values, chunk in (("X", X, 17), ("y", y, 50), ("g", np.sort(groups), 23)):
        zarr.create_array(tmp_path / name, data=values, chunks=(chunk, *values.shape[1:]))
    paths = [str(tmp_path / name) for name in ("X", "y")]
    model = LinearRegression(cov_type="cluster").fit(*paths, groups=str(tmp_path / "g"))
    expected = LinearRegression(cov_type="cluster").fit(X, y, groups=np.sort(groups))
    np.testing.assert_allclose(model.bse_, expected.bse_, rtol=1e-12)


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        (np.zeros(120), "one group"),
        (np.full(120, np.nan), "NaN in row 0"),
        (np.arange(119), "119 rows"),
        (["a", None] * 60, "no value in row 1"),
        ([[], []] * 60, "groups"),
    ],
)
def test_groups_that_are_none_are_refused(rows, groups, match):
    X, y, _ = rows
    with pytest.raises(InputError, match=match):
        LinearRegression(cov_type="cluster").fit(X, y, groups=groups)


def test_numbers_of_labels_are_counted_and_refused_before_they_are_made(rows):
    X, y, groups = rows
    given = labels(groups).tolist()
    model = LinearRegression(cov_type="cluster").fit(X, y, groups=given)
    terms = {each.what: each.nbytes for each in model.plan_.candidates["closed_form"].terms}
    assert terms["groups"] == 4 * len(given)
    with pytest.raises(MemoryLimitError, match="are labels, whose numbers need 480 bytes"):
        LinearRegression(cov_type="cluster", memory_limit=100).fit(X, y, groups=given)


# what is refused


@pytest.mark.parametrize(
    ("parameters", "groups", "match"),
    [
        ({"cov_type": "HC4"}, False, "choose 'nonrobust'"),
        ({"cov_type": "cluster"}, False, "needs groups"),
        ({"cov_type": "HC1"}, True, 'by cov_type="cluster" only'),
        ({}, True, 'by cov_type="cluster" only'),
        ({"cov_type": "HC1", "l2": 0.1}, False, r"pass l2=0\.0"),
        ({"cov_type": "HC1", "solver": "gd"}, False, 'pass solver="qr"'),
        ({"cov_type": "HC1", "device": "cuda"}, False, 'pass device="cpu"'),
        ({"inference_for": [0]}, False, 'pass cov_type="nonrobust"'),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_remedy(rows, parameters, groups, match):
    X, y, g = rows
    with pytest.raises(InputError, match=match):
        LinearRegression(**parameters).fit(X, y, groups=g if groups else None)


def test_robust_errors_of_several_targets_are_refused(rows):
    X, y, _ = rows
    with pytest.raises(InputError, match='pass cov_type="nonrobust"'):
        LinearRegression(cov_type="HC1").fit(X, np.column_stack([y, y]))


@pytest.mark.parametrize("alpha", [0, 1, -0.5, "a"])
def test_alpha_is_a_share(fitted, alpha):
    with pytest.raises(InputError, match="alpha"):
        fitted.conf_int(alpha)


def test_what_does_not_fit_is_refused_before_x_is_read():
    class Unread:
        shape, dtype, ndim = (100, 30_000), np.dtype(float), 2

        def __getitem__(self, _):
            raise AssertionError("read")

    with pytest.raises(MemoryLimitError, match="no data was read"):
        LinearRegression(cov_type="HC1", memory_limit="1 GiB").fit(Unread(), np.arange(100.0))


def test_groups_that_are_not_sorted_are_refused_if_their_sums_do_not_fit():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40_000, 100))
    groups = rng.permutation(40_000) % 30_000
    sorted_plan = LinearRegression(cov_type="cluster", memory_limit="24 MiB")
    with pytest.raises(MemoryLimitError, match="sort the rows by groups"):
        sorted_plan.fit(X, X[:, 0], groups=groups)
    order = np.argsort(groups)
    y = X[order, 0] + rng.standard_normal(40_000)
    assert np.isfinite(sorted_plan.fit(X[order], y, groups=groups[order]).bse_).all()
