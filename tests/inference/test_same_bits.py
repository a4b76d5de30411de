"""Standard errors are a function of the data and their chunks: never of threads, nor of memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr

import streamreg
from streamreg import LinearRegression
from streamreg.checkpoint import file as checkpoint_file
from streamreg.engines.partition import PartitionPolicy
from streamreg.errors import CheckpointError
from streamreg.planning.threads_backend import ThreadsBackend
from streamreg.sources.block_reader import BlockReader

COV_TYPES = ("nonrobust", "HC1", "HC3", "cluster", "cluster in any order")


# a pass has some ten segments
POLICY = PartitionPolicy(block_nbytes=1 << 18, piece_nbytes=1 << 18, least_segment_nbytes=1 << 18)


@pytest.fixture(autouse=True)
def _many_segments(monkeypatch):
    monkeypatch.setattr(ThreadsBackend, "policy", POLICY)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Rows of 4 MiB in chunks, with weights."""
    rng = np.random.default_rng(0)
    n = 50_000
    X = rng.standard_normal((n, 8)) + 5
    X[:, 1] = X[:, 0] + 1e-4 * X[:, 1]
    arrays = {
        "X": X,
        "y": X @ np.arange(8.0) + rng.standard_normal(n),
        "w": rng.uniform(0, 2, n).round(1),
        "g": np.arange(n) // 9,
        "h": rng.integers(0, 50, n),
    }
    folder = tmp_path_factory.mktemp("rows")
    for name, values in arrays.items():
        chunks = (3_000 if name == "X" else 7_001, *values.shape[1:])
        zarr.create_array(folder / name, data=values, chunks=chunks)
    return {name: str(folder / name) for name in arrays}


def fit(stored, kind, **parameters):
    cov_type, *_ = kind.split()
    groups = {"cluster": stored["g"], "cluster in any order": stored["h"]}.get(kind)
    model = LinearRegression(**{"solver": "qr", "cov_type": cov_type, **parameters})
    return model.fit(stored["X"], stored["y"], stored["w"], groups=groups)


def bits(model):
    i = model._inference
    wald = None if i.wald is None else i.wald.tobytes()
    return i.bse.tobytes(), i.covariance.tobytes(), i.rss.tobytes(), i.log_weight_sum, wald, i.nobs


@pytest.mark.parametrize("kind", COV_TYPES[1:])
def test_threads_and_memory_change_no_bit(stored, kind):
    first = fit(stored, kind, n_threads=1)
    needed = first.plan_.candidates["qr"].needed_nbytes
    for way in ({"n_threads": 2}, {"n_threads": 3}, {"n_threads": 1, "memory_limit": needed}):
        assert bits(fit(stored, kind, **way)) == bits(first)


@pytest.mark.cluster
@pytest.mark.parametrize("kind", COV_TYPES[2:])
def test_a_cluster_gives_the_same_bits(stored, kind, client_here):
    assert bits(fit(stored, kind, client=client_here)) == bits(fit(stored, kind))


@pytest.mark.parametrize("kind", ["HC3", "cluster"])
def test_a_state_that_threads_share_gives_the_same_bits(stored, kind, monkeypatch):
    separate = fit(stored, kind)
    monkeypatch.setattr(ThreadsBackend, "policy", replace(POLICY, large_state_nbytes=64))
    found = [fit(stored, kind, n_threads=n) for n in (1, 2, 4)]
    assert bits(found[0]) == bits(found[1]) == bits(found[2])
    # nearly dependent columns: rounding of R is multiplied by 1e4
    np.testing.assert_allclose(found[0].bse_, separate.bse_, rtol=1e-9)


class StopError(Exception):
    """Stops a fit before its end."""


@pytest.mark.parametrize("kind", COV_TYPES[2:])
@pytest.mark.parametrize("after", [0.75, 0.95])
def test_a_resumed_fit_gives_the_same_bits(stored, kind, after, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_file, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_file, "_LEAST_MULTIPLE", 0)
    read, count = BlockReader.read, [0]

    def counting(self, *arguments, **options):
        count[0] += 1
        if count[0] == stop_at:
            raise StopError
        return read(self, *arguments, **options)

    monkeypatch.setattr(BlockReader, "read", counting)
    stop_at = None
    # without a cache each pass reads each block
    plan = fit(stored, kind, n_threads=1, checkpoint=tmp_path / "b").plan_
    how = {"n_threads": 1, "memory_limit": plan.candidates["qr"].needed_nbytes}
    count[0] = 0
    whole = fit(stored, kind, checkpoint=tmp_path / "c", **how)
    stop_at, n_reads, count[0] = int(after * count[0]), count[0], 0
    with pytest.raises(StopError):
        fit(stored, kind, checkpoint=tmp_path / "a", **how)
    stop_at, count[0] = None, 0
    resumed = fit(stored, kind, checkpoint=tmp_path / "a", **how)
    assert bits(resumed) == bits(whole)
    assert count[0] <= (1 - after) * n_reads + 12
    with pytest.raises(CheckpointError, match="cov_type was"):
        fit(stored, "nonrobust", checkpoint=tmp_path / "a")


def test_a_plan_counts_the_pass_and_its_state(stored):
    plans = [
        streamreg.plan(stored["X"], stored["y"], cov_type=cov_type).candidates["closed_form"]
        for cov_type in (None, "nonrobust", "HC1", "cluster")
    ]
    assert [plan.passes for plan in plans] == [1, 1, 2, 2]
    assert "cg" not in streamreg.plan(stored["X"], stored["y"], cov_type="HC1").candidates
