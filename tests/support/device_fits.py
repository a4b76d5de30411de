"""Fits of a few epochs on a GPU."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from streamreg import LinearRegression
from streamreg.gpu import backend


def fit(*data, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few epochs do not converge
        settings = {"max_epochs": 4, "tol": 0.0, "device": "cuda"} | parameters
        return LinearRegression(**settings).fit(*data)


def bits(model):
    return model.coef_.tobytes(), np.array(model.intercept_).tobytes(), model.loss_history_


def set_gpu_partition(monkeypatch, *, block_nbytes, **constants):
    """Let a pass on a GPU have small blocks and segments."""
    policy = replace(
        backend.GPU_PARTITION,
        block_nbytes=block_nbytes,
        piece_nbytes=block_nbytes,
        **constants,
    )
    monkeypatch.setattr(backend, "GPU_PARTITION", policy)
