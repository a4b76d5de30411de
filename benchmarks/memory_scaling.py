"""Measured and planned peak memory against D and against N; the plot also shows refused fits.

python benchmarks/memory_scaling.py [--quick]

Each fit runs in a new process, after all imports, with the least memory limit that its plan
accepts, so that the solver's need is measured and not the limit. A solver whose plan exceeds the
largest limit is refused before any data is read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    case_of_this_process,
    in_new_process,
    keep,
    label_logarithmic,
    peak_nbytes,
    picture,
    write_store,
)

from streamreg.formatting import format_nbytes

SOLVERS = ("closed_form", "gd", "cg")
_LARGEST_LIMIT = 2 << 30
_WIDE = 100_000


def run(case: dict[str, Any]) -> None:
    """Plan, fit with the least limit, and print the figures."""
    import streamreg
    from streamreg import LinearRegression, MemoryLimitError

    warnings.simplefilter("ignore")
    how = {"solver": case["solver"], "max_epochs": case["epochs"]}
    peak_nbytes()
    before = peak_nbytes()
    least = streamreg.plan(case["path"], **how).candidates[case["solver"]].needed_nbytes
    try:
        model = LinearRegression(memory_limit=min(least, _LARGEST_LIMIT), **how).fit(case["path"])
    except MemoryLimitError as error:
        print(json.dumps({"refused": str(error).splitlines()[0], "planned": least}))
        return
    planned = model.plan_.candidates[case["solver"]].peak_nbytes
    print(json.dumps({"planned": planned, "measured": peak_nbytes() - before}))


def row(
    folder: Path, solver: str, n_rows: int, n_features: int, *, epochs: int = 3
) -> dict[str, Any]:
    """Return one row: a fit of float32 data of this shape."""
    path = folder / f"{n_rows}-{n_features}.zarr"
    if not path.exists():
        write_store(path, n_rows, n_features, dtype="float32")
    pass_nbytes = n_rows * (4 * n_features + 8)
    case = {"solver": solver, "path": str(path), "epochs": epochs, "pass_nbytes": pass_nbytes}
    found = in_new_process(Path(__file__), case)
    if "failure" in found:
        sys.exit(f"{solver} of {n_rows:,} × {n_features:,}: {found['failure']}")  # noqa: RUF001
    figures = {key: found[key] / 2**20 for key in ("planned", "measured") if key in found}
    return {
        "solver": solver,
        "N": n_rows,
        "D": n_features,
        **{f"{key} MiB": value for key, value in figures.items()},
        "note": found.get("refused", ""),
    }


def slope(rows: list[dict[str, Any]], against: str) -> float:
    """Return b in peak = c·x^b, fitted to the larger half of the fits: 0 for a constant peak."""
    done = [each for each in rows if "measured MiB" in each]
    if len(done) < 3:  # noqa: PLR2004
        return float("nan")
    x = np.log([each[against] for each in done])
    y = np.log([each["measured MiB"] for each in done])
    # the peak of a small fit is mostly that of the process itself
    half = len(x) // 2
    return float(np.polyfit(x[half:], y[half:], 1)[0])


def main() -> None:
    """Measure D from 100 to 100,000, N over three decades, and 8 GB of 100,000 columns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    nbytes = (1 << 20) if quick else (256 << 20)
    widths = (100,) if quick else (100, 316, 1_000, 3_162, 10_000, 31_623, _WIDE)
    heights = (1_000,) if quick else (10_000, 100_000, 1_000_000, 16_000_000)
    by_width, by_height, wide = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for d in widths:
            by_width += [row(folder, solver, nbytes // (4 * d), d) for solver in SOLVERS]
        for n in heights:
            by_height += [row(folder, solver, n, 64) for solver in SOLVERS]
        if not quick:
            wide = [row(folder, "cg", 20_000, _WIDE, epochs=2)]
    keep("memory_scaling", [*by_width, *by_height, *wide], quick=quick)
    slopes = [
        {
            "solver": solver,
            **{
                f"peak grows as {label} to the": slope(
                    [each for each in rows if each["solver"] == solver], label
                )
                for label, rows in (("D", by_width), ("N", by_height))
            },
        }
        for solver in SOLVERS
    ]
    keep("memory_slopes", slopes, quick=quick)
    if not quick:
        _draw(by_width, by_height)


def _draw(by_width: list[dict[str, Any]], by_height: list[dict[str, Any]]) -> None:
    with picture("memory_scaling", columns=2) as panels:
        for axes, rows, label in zip(panels, (by_width, by_height), "DN", strict=True):
            for number, solver in enumerate(SOLVERS):
                mine = [each for each in rows if each["solver"] == solver]
                done = [each for each in mine if "measured MiB" in each]
                refused = [each for each in mine if "measured MiB" not in each]
                colour = f"C{number}"
                axes.plot(
                    [each[label] for each in mine],
                    [each["planned MiB"] for each in mine],
                    "--",
                    color=colour,
                    alpha=0.5,
                )
                axes.plot(
                    [each[label] for each in done],
                    [each["measured MiB"] for each in done],
                    "o-",
                    color=colour,
                    label=f"{solver}, measured (planned dashed)",
                )
                axes.plot(
                    [each[label] for each in refused],
                    [each["planned MiB"] for each in refused],
                    "x",
                    color=colour,
                    label=f"{solver}, refused" if refused else None,
                )
            axes.axhline(_LARGEST_LIMIT / 2**20, color="gray", lw=0.8)
            axes.annotate(
                f"limit {format_nbytes(_LARGEST_LIMIT)}",
                (0.02, _LARGEST_LIMIT / 2**20),
                xycoords=("axes fraction", "data"),
                va="bottom",
                fontsize=8,
                color="gray",
            )
            axes.set(xscale="log", yscale="log", ylabel="peak memory added, MiB")
            axes.set_xlabel("columns (D)" if label == "D" else "rows (N)")
            for axis in (axes.xaxis, axes.yaxis):
                label_logarithmic(axis)
        panels[0].legend(fontsize=7)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = case_of_this_process()
    main() if given is None else run(given)
