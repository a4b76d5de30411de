import json
from pathlib import Path

import numpy as np
import pytest

from streamreg import LinearRegression
from streamreg.config.fit_config import FitConfig
from streamreg.inference.result import Inference
from streamreg.model import Model
from streamreg.predict.scores import residuals
from streamreg.report.report import Report

NIST = Path(__file__).parents[1] / "data" / "nist"
NAMES = ("deflator", "GNP", "unemployed", "armed forces", "population", "year")


@pytest.fixture(scope="session")
def certified():
    """Return the certified values of Longley's regression."""
    return json.loads((NIST / "Longley.json").read_text())["certified"]


@pytest.fixture(scope="session")
def longley(tmp_path_factory, certified):
    """Return a report of Longley's data, with the certified standard errors."""
    y, *columns = np.loadtxt(NIST / "Longley.csv", delimiter=",", skiprows=1).T
    X = np.column_stack(columns)
    path = tmp_path_factory.mktemp("longley") / "model.json"
    LinearRegression(solver="qr").fit(X, y).save(path)
    loaded = Model.load(path)
    known = Inference(
        cov_type="nonrobust",
        terms=("const", *NAMES),
        params=np.concatenate([loaded.intercept, loaded.coefficients[0]])[None],
        bse=np.array([certified["std_errors"]]),
        nobs=16,
        rank=7,
        has_intercept=True,
        is_centred=True,
        rss=np.array([certified["rss"]]),
        tss=np.array([np.sum((y - y.mean()) ** 2)]),
        y_exponents=np.zeros(1, np.int32),
    )
    weights = loaded.coefficients, loaded.intercept
    model = Model(*weights, True, NAMES, None, loaded.details, known)
    config = FitConfig()
    return Report(
        model,
        title="Longley",
        origin="Model model.json",
        residuals=residuals(model, config.open_dataset(X, y), config),
    )


@pytest.fixture(scope="session")
def hostile():
    """Return a report whose names and details are markup, or nothing that a fit writes."""
    d = 1500
    names = [
        "<script>x()</script>",
        "$x^2$",
        'a "b" & <b>',
        "列の名",
        "w" * 300,
        "\ud800",
        "a\nb\0",
    ]
    rng = np.random.default_rng(0)
    details = {
        "solver": {"a": 1},
        "status": "<i>no</i>",
        "converged": 1,
        "loss_history": [1e300, None, 3.0, "x"],
        "warnings": ["<b>w</b>", 3],
        "digits": [None] * d,
        "condition": True,
        "peak_memory": "12",
        "planned_peak": 10**400,
        "n_iter": [],
        "l2": [[]],
        "l2s": [1, 10**400],
        "cv_scores": {"a": [1, "x"]},
    }
    model = Model(
        rng.standard_normal((1, d)) * np.logspace(8, -8, d),
        np.ones(1),
        True,
        (*names, *map(str, range(d - len(names)))),
        ("<b>y</b>",),
        details,
    )
    return Report(model, title="<b>t</b>", origin="<script>o()</script>")


@pytest.fixture(scope="session")
def written(longley, hostile, tmp_path_factory):
    """Return the files of both reports."""
    folder, reports = tmp_path_factory.mktemp("pages"), {"longley": longley, "hostile": hostile}
    for name, report in reports.items():
        report.write(folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in reports}
