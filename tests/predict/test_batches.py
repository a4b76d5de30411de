"""Batches of targets at full size, planned from metadata alone: no array has a chunk."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import zarr

from streamreg.config.fit_config import FitConfig
from streamreg.errors import MemoryLimitError
from streamreg.formatting import GIB, MIB
from streamreg.model import Model
from streamreg.output.stored_coefficients import IDENTITY, StoredCoefficients
from streamreg.planning.terms import peak
from streamreg.predict.predictions import predict_to
from streamreg.predict.scores import score
from streamreg.sources.open import open_dataset

N, D, K = 23_000, 8_192, 94_251


class _PlannedError(Exception):
    pass


def model_at(path, k=K, d=D):
    """Return a model whose weights are an array without chunks, of 128 targets each."""
    zarr.create_array(
        path, shape=(k, d), dtype="f8", chunks=(128, d), attributes={IDENTITY: "none"}
    )
    return Model(StoredCoefficients(path), np.zeros(k), one_target=False)


def planned(folder, task, memory_limit, *, n=N):
    model = model_at(folder / "w")
    zarr.create_array(folder / "X", shape=(n, D), dtype="f4", chunks=(256, D))
    zarr.create_array(folder / "y", shape=(n, K), dtype="f4", chunks=(1_000, 1_000))
    plans = []

    def stop(plan):
        plans.append(plan)
        raise _PlannedError

    config = FitConfig(memory_limit=memory_limit, n_threads=4)
    X, y = str(folder / "X"), str(folder / "y") if task == "score" else None
    dataset = open_dataset(X, y, needs_y=task == "score")
    run = partial(score, model, dataset)
    if task == "predict":
        run = partial(predict_to, model, dataset, folder / "out")
    with pytest.raises(_PlannedError):
        run(config, on_plan=stop)
    (plan,) = plans
    assert peak(plan.terms) <= memory_limit
    widths = [targets.stop - targets.start for targets in plan]
    assert sum(widths) == K
    assert {*widths[:-1]} <= {plan.width}
    return plan


@pytest.mark.parametrize("task", ["predict", "score"])
def test_the_encoding_case_takes_few_batches_of_whole_chunks_in_2_gib(tmp_path, task):
    # 0.7 GiB of rows, and 5.8 GiB of weights
    plan = planned(tmp_path, task, 2 * GIB)
    assert plan.n_batches <= 6
    # whole chunks of y, or of weights
    assert plan.width % (1_000 if task == "score" else 128) == 0
    assert plan.n_threads == 4
    assert plan.summary.endswith(f"X is read {plan.n_batches} times, and stored weights once")


@pytest.mark.parametrize("task", ["predict", "score"])
def test_rows_that_do_not_fit_are_read_for_each_batch(tmp_path, task):
    plan = planned(tmp_path, task, 4 * GIB, n=1_000_000)
    assert not plan.holds_rows
    assert f"X is read {plan.n_batches} times" in plan.summary


def test_all_targets_are_one_batch_where_they_fit(tmp_path):
    plan = planned(tmp_path, "score", 12 * GIB)
    assert (plan.n_batches, plan.summary) == (1, "")


def test_a_table_of_targets_that_do_not_fit_is_refused_with_what_works(tmp_path):
    model = model_at(tmp_path / "w", 2_000, 2_000)
    zarr.create_array(tmp_path / "X", shape=(10_000, 2_000), dtype="f4", chunks=(1_000, 2_000))
    dataset = open_dataset(str(tmp_path / "X"), needs_y=False)
    config = FitConfig(memory_limit=72 * MIB)
    with pytest.raises(MemoryLimitError, match=r'pass out="PATH\.zarr" to write them'):
        predict_to(model, dataset, tmp_path / "out.parquet", config)
    assert not (tmp_path / "out.parquet").exists()
