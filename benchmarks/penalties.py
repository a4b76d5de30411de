"""Many penalties by streamreg: time beside one closed form, and memory beside the plan.

python benchmarks/penalties.py [--quick]

Folds: 50 penalties on a store of 1 GiB, uncompressed float64, from the page cache. Every round
fits all kinds in turn; the ratio is the median over rounds. 10,000 columns: 17 penalties by GCV in
2 GiB, once, in a new process; its memory is the peak that it adds after its imports.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    case_of_this_process,
    in_new_process,
    keep,
    peak_nbytes,
    ratio,
    turn_about,
    write_store,
)

_GRID = np.geomspace(1e-6, 1e2, 50)
_FEW = np.geomspace(1e-3, 1e3, 17)
_ROUNDS = 5


def folds(path: str, n_features: int, rounds: int) -> list[dict[str, Any]]:
    """Return the times of folds and GCV, as multiples of that of one closed form."""
    from sklearn.model_selection import KFold

    from streamreg import LinearRegression, LinearRegressionCV

    kinds = {
        "5 folds of consecutive rows": 5,
        "5 folds, shuffled": KFold(5, shuffle=True, random_state=0),
        "GCV": "gcv",
    }
    closed_form = "one closed form"
    works = {closed_form: lambda: LinearRegression(solver="closed_form", l2=1e-3).fit(path)}
    for kind, cv in kinds.items():
        works[kind] = lambda cv=cv: LinearRegressionCV(l2=_GRID, cv=cv).fit(path)
    seconds = turn_about(works, rounds)
    return [
        {
            "what": f"{kind}, 50 penalties, D = {n_features:,}",
            "seconds": float(np.median(seconds[kind])),
            "of one closed form": ratio(seconds, kind, closed_form),
        }
        for kind in kinds
    ]


def run(case: dict[str, Any]) -> None:
    """Fit 17 penalties once, in this process, and print the figures."""
    from streamreg import LinearRegressionCV

    model = LinearRegressionCV(l2=_FEW, cv="gcv", memory_limit=case["limit"])
    peak_nbytes()
    before = peak_nbytes()
    began = time.perf_counter()
    model.fit(case["path"])
    seconds, added = time.perf_counter() - began, peak_nbytes() - before
    print(json.dumps({"seconds": seconds, "added": added, "planned": model.planned_peak_}))


def main() -> None:
    """Run all cases, one at a time."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for n_features in (20, 40) if quick else (128, 512):
            folder = Path(name) / f"{n_features}.zarr"
            path = write_store(folder, (1 << (16 if quick else 30)) // (8 * n_features), n_features)
            rows += folds(str(path), n_features, 1 if quick else _ROUNDS)
        shape, limit = ((600, 500), "64 MiB") if quick else ((12_000, 10_000), "2 GiB")
        path = write_store(Path(name) / "wide.zarr", *shape, dtype="float32")
        found = in_new_process(Path(__file__), {"path": str(path), "limit": limit})
        if "failure" in found:
            sys.exit(found["failure"])
        rows.append(
            {
                "what": f"GCV, 17 penalties, {shape[0]:,} × {shape[1]:,} float32, limit {limit}",  # noqa: RUF001
                "seconds": found["seconds"],
                "added MiB": found["added"] / 2**20,
                "planned MiB": found["planned"] / 2**20,
            }
        )
    keep("penalties", rows, quick=quick)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = case_of_this_process()
    main() if given is None else run(given)
