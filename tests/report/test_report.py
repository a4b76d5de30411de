"""What a report says, read from the page as it is written."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from streamreg import LinearRegression
from streamreg.model import Model
from streamreg.report.report import Report


class Page(HTMLParser):
    """The tables of a page: the texts and the exact values of each row, by its heading."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.rows, self.row = set(), {}, {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        attributes = dict(attributes)
        if tag == "tr":
            self.row = []
            self.cells = []
        elif tag == "data":
            self.row.append(float(attributes["value"]))

    def handle_data(self, text):
        if text.strip() and getattr(self, "cells", None) is not None:
            self.cells.append(text.strip())

    def handle_endtag(self, tag):
        if tag == "tr" and self.cells:
            name, *self.texts_of_row = self.cells
            self.texts[name], self.rows[name] = self.texts_of_row, self.row


@pytest.fixture(scope="module")
def text(written):
    return written["longley"].read_text("utf-8")


def test_coefficients_and_errors_are_those_certified_by_nist(text, longley, certified):
    rows = Page(text).rows
    names = ["intercept", *longley.model.feature_names]
    found = np.array([rows[name][:6] for name in names])
    values, errors = (np.array(certified[name]) for name in ("coefficients", "std_errors"))
    np.testing.assert_allclose(found[:, 0], values, rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], errors, rtol=1e-12)
    np.testing.assert_allclose(found[:, 2], values / errors, rtol=1e-12)
    np.testing.assert_allclose(found[:, 3], 2 * stats.t.sf(abs(values / errors), 9), rtol=1e-9)
    half = stats.t.ppf(0.975, 9) * errors
    np.testing.assert_allclose(found[:, 4], values - half, rtol=1e-9)
    np.testing.assert_allclose(found[:, 5], values + half, rtol=1e-9)


def test_the_table_of_the_fit_has_the_certified_values(text, longley, certified):
    page = Page(text)
    for name in ("R² of the fit", "R² on DATA"):
        assert page.rows[name] == pytest.approx([certified["r_squared"]], rel=1e-12)
    rmse = np.sqrt(certified["rss"] / 16)
    assert page.rows["RMSE on DATA"] == pytest.approx([rmse], rel=1e-12)
    assert page.rows["F"] == pytest.approx([float(certified["F_str"])], rel=1e-12)
    assert page.rows["Rows fitted"] == page.rows["Rows of DATA"] == [16]
    assert page.rows["Degrees of freedom"] == [9]
    assert page.texts["Solver"] == ["qr"]
    assert page.rows["Epochs"] == [longley.model.details["n_iter"]]


def test_figures_say_what_they_show(text):
    labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', text)
    assert [label.split(":")[0].split(" with")[0] for label in labels] == [
        "Coefficients of 6 columns",
        "Loss after each epoch",
        "Memory that the fit added to the process",
        "Residuals against fitted values, as rows in each cell",
        "Histogram of residuals, beside a normal distribution of the same mean and deviation",
    ]


def test_a_page_refers_to_nothing_outside_itself(text):
    assert "script" not in Page(text).tags
    addresses = re.findall(r'(?:href|src|data)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_same_model_gives_the_same_page(text, longley):
    assert longley.html() == text


def test_names_and_details_of_any_kind_are_shown_as_text(written):
    text = written["hostile"].read_text("utf-8")
    page = Page(text)
    assert not page.tags & {"script", "b", "i"}
    assert page.texts["Solver"] == ["{'a': 1}"]
    assert "$x^2$" in page.rows
    assert "<b>t</b>" not in text
    assert "&lt;b&gt;w&lt;/b&gt;" in text
    assert {"Epochs", "Condition number κ", "Rows fitted"}.isdisjoint(page.rows)


def test_a_long_table_says_what_it_leaves_out(written):
    text = written["hostile"].read_text("utf-8")
    assert "501 smaller ones are left out. The model file holds all." in text
    assert "1,460 smaller columns are left out of the figure." in text
    # of 1,500 coefficients from 1e8 down, the last 501 are the smallest, but for chance
    assert "5" in Page(text).rows
    assert "1490" not in Page(text).rows


def test_a_model_of_an_earlier_version_has_a_report():
    text = Report(Model(np.array([[1.0, 0.0]]), np.zeros(1)), title="t", origin="o").html()
    assert Page(text).rows["x0"] == [1.0]
    for missing in ("no losses", "no memory figures", "Residuals need rows"):
        assert missing in text


def test_of_several_targets_one_is_shown():
    weights = np.array([[1.0, 2.0], [3.0, 4.0]])
    model = Model(weights, np.array([5.0, 6.0]), False, None, ("p", "q"))
    page = Page(Report(model, title="t", origin="o", target=1).html())
    assert [page.rows[name] for name in ("intercept", "x0", "x1")] == [[6.0], [3.0], [4.0]]
    assert page.texts["Target"] == ["q, of 2 targets"]


def test_robust_errors_are_tested_with_z_and_say_how_they_were_made(longley):
    known = replace(longley.model.inference, cov_type="HC1", wald=np.array([2e9]))
    text = replace(longley, model=replace(longley.model, inference=known)).html()
    assert "P&gt;|z|" in text
    assert "robust to unequal variances (HC1)" in text


def test_a_coefficient_that_the_data_do_not_determine_is_left_empty(longley):
    known, bse = longley.model.inference, longley.model.inference.bse.copy()
    bse[0, 2] = np.nan
    known = replace(known, bse=bse, is_determined=np.arange(7) != 2)
    model = replace(longley.model, inference=known)
    page = Page(replace(longley, model=model).html())
    assert np.isnan(page.rows["GNP"][:6]).all()
    assert np.isfinite(page.rows["year"][:6]).all()


@pytest.mark.parametrize("cov_type", ["nonrobust", "HC1"])
@pytest.mark.parametrize("y_of", ["columns", "3"])
def test_an_exact_fit_has_a_report(y_of, cov_type):
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = X @ [1, 2, 3] if y_of == "columns" else np.full(60, 3.0)
    model = LinearRegression(solver="qr", cov_type=cov_type).fit(X, y)._model()
    page = Report(model, "exact", "").html()
    assert "essentially perfect" in page
    # no exponent of 32 digits
    assert not re.search(r"1e-\d{6}", page)
