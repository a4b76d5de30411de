"""What benchmarks share: stores to read, timing, processes, results."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Dask imports the package of this name if there is one, and would find benchmarks/sparse.py
sys.modules.setdefault("sparse", None)  # type: ignore[arg-type]

RESULTS = Path(__file__).parent / "results"
CODECS: dict[str, Any] = {
    "none": None,
    "zstd": zarr.codecs.ZstdCodec(level=1),
    "blosc-lz4": zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"),
}


def write_store(
    folder: Path,
    n_rows: int,
    n_features: int,
    *,
    dtype: str = "float64",
    codec: str = "none",
    chunk_nbytes: int = 8 << 20,
) -> Path:
    """Write a data set: X (normal deviates rounded to hundredths) and y = Xw + noise."""
    row_nbytes = n_features * np.dtype(dtype).itemsize
    chunk = min(n_rows, max(1, chunk_nbytes // row_nbytes))
    group = zarr.create_group(folder)
    X = group.create_array(
        "X",
        shape=(n_rows, n_features),
        chunks=(chunk, n_features),
        dtype=dtype,
        compressors=CODECS[codec],
    )
    y = group.create_array("y", shape=(n_rows,), dtype="f8", chunks=(n_rows,), compressors=None)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(n_features) / np.sqrt(n_features)
    targets = np.empty(n_rows)
    for start in range(0, n_rows, chunk):
        rows = min(chunk, n_rows - start)
        block = rng.standard_normal((rows, n_features), dtype=np.float32).round(2)
        X[start : start + rows] = block
        targets[start : start + rows] = block @ weights + rng.standard_normal(rows)
    y[:] = targets
    return folder


def turn_about(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each work in each round; a round runs all works in turn."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: Mapping[str, list[float]], of: str, to: str) -> float:
    """Return the median over rounds of the time of ``of`` divided by that of ``to``."""
    return statistics.median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def in_new_process(script: Path, case: Mapping[str, Any], **environment: str) -> dict[str, Any]:
    """Run ``script`` for a case and return the JSON document that it prints last.

    If the process fails, the document has only ``failure``: the last line of its standard error.
    """
    variables = {**os.environ, "STREAMREG_BENCHMARK_CASE": json.dumps(case), **environment}
    done = subprocess.run(
        [sys.executable, script], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {"failure": done.stderr.strip().splitlines()[-1] if done.stderr else "died"}
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def case_of_this_process() -> dict[str, Any] | None:
    """Return the case that this process must run; ``None`` in the process that starts others."""
    text = os.environ.get("STREAMREG_BENCHMARK_CASE")
    return None if text is None else json.loads(text)


def peak_nbytes() -> int:
    """Return the peak memory of this process, in bytes, since the last call.

    Not ``ru_maxrss``, which begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return int(peak.split()[1]) * 1024


def machine() -> dict[str, Any]:
    """Return the date, the machine and the library versions of a measurement."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "date": date.today().isoformat(),  # noqa: DTZ011  (only the day is needed)
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": zarr.__version__,
        "blas": [info["internal_api"] for info in threadpool_info() if info["user_api"] == "blas"],
        "cache": "warm",
    }


def keep(name: str, rows: Sequence[Mapping[str, Any]], *, quick: bool) -> Path | None:
    """Print the rows as a table; save them as JSON with the machine, unless ``quick``."""
    table = Table(title=name)
    headings = list(dict.fromkeys(key for row in rows for key in row))
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(_cell(row.get(heading, "")) for heading in headings))
    Console(width=160).print(table)
    if quick:
        return None
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=1) + "\n")
    return path


@contextmanager
def picture(name: str, columns: int) -> Iterator[Sequence[Axes]]:
    """Yield axes side by side; the figure is saved as SVG beside the JSON of the same name."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(5 * columns, 3.6), layout="constrained")
    about = machine()
    yield list(np.atleast_1d(axes))
    figure.suptitle(f"{about['processor']}, {about['cores']} cores, {about['date']}", fontsize=9)
    figure.savefig(RESULTS / f"{name}.svg")
    plt.close(figure)


def plain(number: float) -> str:
    """Return three significant digits without an exponent: ``"3,160"``, ``"0.0316"``."""
    rounded = float(f"{number:.3g}")
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    text = f"{rounded:,.{max(0, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def label_logarithmic(axis: Axis) -> None:
    """Label 1, 2 and 5 times each power of ten, or only the powers if there are many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0)  # noqa: PLR2004
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    # small numbers, such as an error of 1e-13, keep their exponent
    return plain(value) if value == 0 or abs(value) >= 1e-4 else f"{value:.1e}"  # noqa: PLR2004
