"""Fits on a device, of a few epochs."""

from __future__ import annotations

import warnings

import numpy as np

from streamreg import LinearRegression


def fit(*data, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few epochs are too few
        settings = {"max_epochs": 4, "tol": 0.0, "device": "cuda"} | parameters
        return LinearRegression(**settings).fit(*data)


def bits(model):
    return model.coef_.tobytes(), np.array(model.intercept_).tobytes(), model.loss_history_
