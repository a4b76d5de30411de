"""Parameters of wrong types and values: the error names the parameter in one sentence."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

import streamreg
from streamreg import InputError, LinearRegression, LinearRegressionCV
from streamreg.config.fit_config import FitConfig

X, Y = np.eye(5, 2), np.arange(5.0)
ODD = {
    "array": np.ones(2),
    "array of one": np.ones(()),
    "frame": pd.DataFrame({"a": [1, 2]}),
    "complex": 1j,
    "object": object(),
    "list": [1],
    "huge": 10**400,
}
NUMBERS = ("l2", "learning_rate", "tol", "max_epochs", "n_threads")
CHOICES = ("solver", "missing_chunks", "nan_policy", "device")
FLAGS = ("fit_intercept", "standardize", "decode_cf")
REFUSED = [
    *((name, value) for name in (*NUMBERS, *CHOICES, *FLAGS, "client") for value in ODD.values()),
    *((name, value) for name in (*NUMBERS, *CHOICES) for value in ("x", True, -1.0)),
    *((name, None) for name in (*NUMBERS[:-1], *CHOICES, *FLAGS)),
    *((name, value) for name in FLAGS for value in ("False", 1)),
    *(("memory_limit", ODD[kind]) for kind in ("array", "frame", "complex", "list")),
    ("n_threads", 10**9),
    ("client", "tcp://127.0.0.1:8786"),
    ("memory_limit", "9" * 5000),
    ("init", np.float64(3.0)),
    ("init", 10**400),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_wrong_value_is_an_input_error_that_names_the_parameter(name, value):
    with pytest.raises(InputError, match=f"^{name}[= ]") as caught:
        LinearRegression(**{"solver": "gd", name: value}).fit(X, Y)
    assert len(str(caught.value)) < 300
    assert "np.float64" not in str(caught.value)
    if name != "init":
        with pytest.raises(InputError, match=f"^{name}="):
            streamreg.plan(X, Y, **{name: value})


@pytest.mark.parametrize(
    "name", ["n_threads", "memory_limit", "nan_policy", "missing_chunks", "decode_cf"]
)
@pytest.mark.parametrize("method", ["predict", "score"])
def test_predict_and_score_check_their_parameters(name, method):
    model = LinearRegression().fit(X, Y).set_params(**{name: np.ones(2)})
    with pytest.raises(InputError, match=f"^{name}="):
        model.predict(X) if method == "predict" else model.score(X, Y)


def test_the_estimators_have_the_parameters_and_defaults_of_fit_config():
    derived = {"l2s", "l2_of_targets"}  # of l2
    defaults = {each.name: each.default for each in fields(FitConfig) if each.name not in derived}
    shared = LinearRegression().get_params()
    assert shared.pop("progress") is False
    chosen_only = {"cv", "l2_per_target", "one_standard_error"}
    assert shared == {name: defaults[name] for name in defaults.keys() - chosen_only}
    chosen = LinearRegressionCV().get_params()
    assert chosen == {**defaults, "l2": None, "cv": "gcv", "progress": False}


@pytest.mark.parametrize("value", [np.ones(2), "yes", None, 1])
def test_progress_is_a_flag_or_a_callable(value):
    with pytest.raises(InputError, match=r"^progress=.* True, False or a callable"):
        LinearRegression(progress=value).fit(X, Y)


@pytest.mark.parametrize(
    "given",
    [
        {"max_epochs": 20.0},
        {"l2": np.float32(0.5)},
        {"solver": np.str_("cg")},
        {"fit_intercept": np.True_},
        {"n_threads": np.int64(1)},
        {"memory_limit": np.float32(2**30)},
    ],
)
def test_numpy_scalars_are_accepted(given):
    LinearRegression(**given).fit(X, Y)


@pytest.mark.parametrize("path", [3, None, b"model.json", ["model.json"], "a\0.json", "a" * 5000])
def test_other_values_than_paths_are_refused(path):
    model = LinearRegression().fit(X, Y)
    with pytest.raises(InputError, match=r"^path[= ]"):
        streamreg.load(path)
    with pytest.raises(InputError, match=r"^path[= ]"):
        model.save(path)
    if path is not None:
        with pytest.raises(InputError, match=r"^out[= ]"):
            model.predict(X, out=path)
