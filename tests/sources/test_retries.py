"""Reads that fail for a moment are retried, and only those."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import zarr

from streamreg import LinearRegression
from streamreg.errors import DataCorruptionError
from streamreg.sources import retries


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    paused = []
    monkeypatch.setattr(retries.time, "sleep", paused.append)
    return paused


def failing(times, error):
    """Return a function that fails ``times`` times, then returns how often it was called."""
    calls = []

    def read():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return len(calls)

    return read


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, ""), OSError(errno.ESTALE, ""), ConnectionResetError()]
)
def test_a_momentary_failure_is_retried(error, no_pauses):
    assert retries.retried(failing(3, error)) == 4
    assert no_pauses == [0.1, 0.4, 1.6]
    with pytest.raises(type(error)):
        retries.retried(failing(4, error))


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, ""), FileNotFoundError(errno.ENOENT, ""), ValueError()]
)
def test_a_lasting_failure_is_not_retried(error, no_pauses):
    with pytest.raises(type(error)):
        retries.retried(failing(1, error))
    assert no_pauses == []


@pytest.mark.parametrize("compressors", [None, "auto"])
def test_a_fit_is_bitwise_identical_after_two_failed_reads(tmp_path, monkeypatch, compressors):
    X = np.random.default_rng(0).standard_normal((1000, 3))
    zarr.create_array(tmp_path / "X", data=X, chunks=(100, 3), compressors=compressors)
    expected = LinearRegression().fit(tmp_path / "X", X[:, 0]).coef_
    real, n_failures = os.preadv, [2]

    def preadv(*given):
        if n_failures[0]:
            n_failures[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*given)

    monkeypatch.setattr(os, "preadv", preadv)
    assert LinearRegression().fit(tmp_path / "X", X[:, 0]).coef_.tobytes() == expected.tobytes()
    n_failures[0] = 100
    with pytest.raises(DataCorruptionError, match=r"chunk c/0/0 of .*cannot be read: Input/output"):
        LinearRegression().fit(tmp_path / "X", X[:, 0])
