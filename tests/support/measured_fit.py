"""One fit or prediction in its own process, and the memory that it adds: for test_peak_memory.py.

The arguments are one JSON document; the result is another, on standard output.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr


def main() -> None:
    case = json.loads(sys.argv[1])
    tasks = {
        "fit": _fit,
        "public_fit": _public_fit,
        "gather": _gather,
        "solve": _solve,
        "predict_many": _predict_many,
        "score_many": _predict_many,
    }
    rows = _load(case["kind"], case["path"], case["weighted"])
    print(json.dumps(tasks.get(case["task"], _predict)(*rows, case)))


def _load(kind: str, path: str, weighted: bool) -> tuple[Any, Any, Any]:  # noqa: FBT001
    weight = np.load(f"{path}/weight.npy", mmap_mode="r") if weighted else None
    if kind == "zarr":
        return f"{path}/X", f"{path}/y", weight
    if kind == "dask":
        import dask.array  # noqa: PLC0415  (users have imported it too)

        return dask.array.from_zarr(f"{path}/X"), dask.array.from_zarr(f"{path}/y"), weight
    if kind == "hdf5":
        import h5py  # noqa: PLC0415  (users have imported it too)

        file = h5py.File(f"{path}/data.h5")
        return file["X"], file["y"], weight
    mode = "r" if kind == "memmap" else None
    return np.load(f"{path}/X.npy", mmap_mode=mode), np.load(f"{path}/y.npy"), weight


def _fit(X: Any, y: Any, weight: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg.config.fit_config import FitConfig  # noqa: PLC0415
    from streamreg.fitting.fit import fit_dataset  # noqa: PLC0415
    from streamreg.sources.open import open_dataset  # noqa: PLC0415

    groups = None
    if case["settings"].get("cov_type") == "cluster":
        # sorted, of 1.5 rows on average; or in any order, 100 of them
        rows = np.arange(X.shape[0] if hasattr(X, "shape") else zarr.open_array(X).shape[0])
        groups = rows % 100 if case["nan_policy"] == "omit" else rows * 2 // 3
        if case["labelled"]:
            groups = groups.astype(str).tolist()
    if case["settings"].get("cv") == "shuffled":
        from sklearn.model_selection import KFold  # noqa: PLC0415

        case["settings"]["cv"] = KFold(5, shuffle=True, random_state=0)
    dataset = open_dataset(X, y, weight, groups, nan_policy=case["nan_policy"])
    settings = FitConfig.parse(**case["settings"])
    before = _begin()
    result = fit_dataset(dataset, settings)
    return {
        "measured": _nbytes("VmHWM") - before,
        "reported": result.peak_nbytes,
        "planned": result.planned_nbytes,
        "limit": result.plan.memory_limit,
        "cache": result.plan.candidates[result.plan.chosen].cache_nbytes,
    }


def _gather(X: Any, y: Any, weight: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg.config.fit_config import FitConfig  # noqa: PLC0415
    from streamreg.sources.open import open_dataset  # noqa: PLC0415
    from streamreg.statistics.gather import gather  # noqa: PLC0415

    dataset = open_dataset(X, y, weight, nan_policy=case["nan_policy"])
    settings = dict(case["settings"])
    kind = settings.pop("statistics")
    config = FitConfig.parse(**settings)
    before = _begin()
    outcome = gather(dataset, config, kind)
    return {
        "measured": _nbytes("VmHWM") - before,
        "reported": outcome.peak_nbytes,
        "planned": outcome.plan.candidates[outcome.plan.chosen].peak_nbytes,
        "limit": outcome.plan.memory_limit,
    }


def _solve(X: Any, y: Any, weight: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg import Statistics  # noqa: PLC0415

    settings = dict(case["settings"])
    statistics = Statistics.of(X, y, weight, kind=settings.pop("statistics"))
    return _public_fit(statistics, None, None, case | {"settings": settings})


def _public_fit(X: Any, y: Any, weight: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg import LinearRegression  # noqa: PLC0415

    model = LinearRegression(**case["settings"])
    before = _begin()
    model.fit(X, y, weight)
    return {
        "measured": _nbytes("VmHWM") - before,
        "reported": model.peak_memory_,
        "planned": model.plan_.candidates[model.plan_.chosen].peak_nbytes,
        "limit": model.plan_.memory_limit,
    }


def _predict(X: Any, y: Any, _: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg.config.fit_config import FitConfig  # noqa: PLC0415
    from streamreg.errors import MemoryLimitError  # noqa: PLC0415
    from streamreg.model import Model  # noqa: PLC0415
    from streamreg.predict import predictions, scores  # noqa: PLC0415
    from streamreg.sources.open import open_dataset  # noqa: PLC0415
    from streamreg.validate import parse_nbytes  # noqa: PLC0415

    is_score = case["task"] in {"score", "residuals"}
    dataset = open_dataset(X, y if is_score else None, needs_y=is_score)
    model = Model(np.ones((1, dataset.n_features)), np.zeros(1))
    out = [f"{case['path']}-{case['task']}.zarr"] if case["task"] == "predict_to" else []
    module = scores if is_score else predictions
    run = partial(getattr(module, case["task"]), model, dataset, *out)
    try:
        run(FitConfig(memory_limit=1))
    except MemoryLimitError as refusal:
        limit = parse_nbytes(re.search(r"Raise memory_limit to ([\d.]+ \w+)", str(refusal))[1])
    before = _begin()
    run(FitConfig(memory_limit=limit))
    return {"measured": _nbytes("VmHWM") - before, "limit": limit}


def _predict_many(X: Any, y: Any, _: Any, case: dict[str, Any]) -> dict[str, Any]:
    from streamreg.config.fit_config import FitConfig  # noqa: PLC0415
    from streamreg.model import Model  # noqa: PLC0415
    from streamreg.output.stored_coefficients import StoredCoefficients  # noqa: PLC0415
    from streamreg.planning.terms import peak  # noqa: PLC0415
    from streamreg.predict.predictions import predict_to  # noqa: PLC0415
    from streamreg.predict.scores import score  # noqa: PLC0415
    from streamreg.sources.open import open_dataset  # noqa: PLC0415

    stored = StoredCoefficients(f"{case['path']}/w")
    model = Model(stored, np.zeros(len(stored)), one_target=False)
    is_score = case["task"] == "score_many"
    dataset = open_dataset(X, y if is_score else None, needs_y=is_score)
    config, plans = FitConfig.parse(**case["settings"]), []
    before = _begin()
    if is_score:
        score(model, dataset, config, on_plan=plans.append)
    else:
        predict_to(model, dataset, f"{case['path']}/out", config, on_plan=plans.append)
    return {
        "measured": _nbytes("VmHWM") - before,
        "planned": peak(plans[0].terms),
        "limit": config.memory_limit,
        "batches": plans[0].n_batches,
    }


def _begin() -> int:
    """Return the bytes in memory, and reset the peak."""
    assert zarr.__version__  # zarr is imported in every case
    # not every container allows it; then the peak of the imports may hide some of what a fit adds
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _nbytes("VmRSS")


def _nbytes(name: str) -> int:
    # not ru_maxrss: a process inherits that of the one which started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
