"""``streamreg demo``: the main job from end to end, on data larger than its memory limit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import psutil
import typer

from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.errors import InputError, Remedy, StreamregError
from streamreg.formatting import format_nbytes
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# with these tolerances the weights of cg agree with the closed form's to nine digits, gd's to four
_TOLERANCES = {"closed_form": 1e-8, "gd": 1e-9, "cg": 1e-11}
_WIDE_ROWS, _WIDE_FEATURES = 20_000, 100_000
_INTERCEPT = 10.0
_ROWS_A_FEATURE = 10
_REFUSED = 3
_FITTED_OR_REFUSED = (0, 4, _REFUSED)  # 4 is not converged


def demo(
    rows: Annotated[int, typer.Option(help="Rows of X, at least ten a feature.", min=10)] = 524_288,
    features: Annotated[int, typer.Option(help="Columns of X.", min=1)] = 256,
    memory_limit: Annotated[
        str, typer.Option(help="Memory that each fit may add to the process.")
    ] = "256 MiB",
    n_threads: o.NThreads = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the files in this new folder.")
    ] = None,
    progress: o.Progress = True,
) -> None:
    """Generate data larger than a memory limit; plan, fit with each solver, predict and score."""
    if rows < _ROWS_A_FEATURE * features:
        raise InputError(
            f"--rows {rows:,} are too few for --features {features:,}: with fewer than "
            f"{_ROWS_A_FEATURE} rows a feature the solvers need not agree to the digits shown"
        )
    limit, nbytes = parse_nbytes(memory_limit), 8 * rows * features
    options = ["--memory-limit", memory_limit]
    options += [] if n_threads is None else ["--n-threads", str(n_threads)]
    shown = [] if progress else ["--no-progress"]
    if keep is not None:
        keep.mkdir()
    # not in the system's folder of temporary files, which may be in memory
    temporary = TemporaryDirectory(prefix="streamreg-demo-", dir=".") if keep is None else None
    with temporary or nullcontext(str(keep)) as folder:
        path = f"{folder}/data.zarr"
        size = format_nbytes(nbytes)
        show.write(f"1. Data: X ({rows:,}, {features:,}) float64, {size}, at {path}")
        began = time.perf_counter()
        true_weights, deviations = _generate(path, rows, features)
        show.write(
            f"   written in {time.perf_counter() - began:.1f} s; the memory limit is "
            f"{format_nbytes(limit)}, {limit / nbytes:.2f} times the data\n"
        )
        show.write("2. Plan, from metadata alone")
        _run("plan", path, *options)
        show.write("   passes of gd and cg are typical numbers, which these data may not need\n")

        show.write("3. Fit, by every solver that fits, each in a process of its own")
        fits, table = {}, []
        for solver, tolerance in _TOLERANCES.items():
            began, model = time.perf_counter(), f"{folder}/{solver}.json"
            own = ["--solver", solver, "--tol", str(tolerance), "--out", model, "--json"]
            code, document = _run("fit", path, *own, *options, *shown, accepted=_FITTED_OR_REFUSED)
            if code == _REFUSED:
                continue
            fits[model] = found = json.loads(document)
            first = next(iter(fits.values()))["coef"]
            errors = [
                np.max(np.abs(found["coef"] - other) * deviations)
                / np.max(np.abs(true_weights * deviations))
                for other in (np.array(first), true_weights)
            ]
            sizes = found["peak_memory"], found["planned_peak"], limit
            seconds = time.perf_counter() - began
            row = [solver, str(found["n_iter"]), f"{seconds:.1f} s"]
            table.append([*row, *(f"{error:.1e}" for error in errors), *map(format_nbytes, sizes)])
        show.write_table(
            ("solver", "epochs", "time", "from first", "from truth", "peak", "planned", "limit"),
            table,
        )
        show.write(
            "   time includes the start of Python. Distances compare weights times deviations"
        )
        show.write("   with those of the first row, and with the true ones, which noise hides\n")

        show.write("4. Predict to disk, and score")
        model = next(iter(fits))
        _run(
            "predict",
            path,
            "--model",
            model,
            "--out",
            f"{folder}/predictions.zarr",
            *options,
            *shown,
        )
        _run("score", path, "--model", model, *options, *shown)

        show.write(f"\n5. Refusal: the closed form at D = {_WIDE_FEATURES:,}, nothing read")
        wide = f"{folder}/wide.zarr"
        with new_group(wide, overwrite=False) as group:
            create_array(group, "X", (_WIDE_ROWS, _WIDE_FEATURES))
            create_array(group, "y", (_WIDE_ROWS,))
        own = ["--solver", "closed_form", "--memory-limit", memory_limit]
        _, refusal = _run("fit", wide, *own, accepted=(_REFUSED,), stderr=subprocess.STDOUT)
        show.write(refusal)
    show.write(f"{'Removed' if keep is None else 'Kept'}: {folder}")


def _generate(path: str, rows: int, features: int) -> tuple[Float64, Float64]:
    """Write correlated columns of different units, and y = Xw + b + noise.

    Returns w, and the standard deviations of the columns, up to a constant.
    """
    rng = np.random.default_rng(20_240_229)
    deviations = np.geomspace(0.01, 100.0, features)
    weights = rng.standard_normal(features) / deviations
    names = {"feature_names": [f"x{j}" for j in range(features)]}
    with new_group(path, names, overwrite=False) as group:
        X = create_array(group, "X", (rows, features))
        X_rows, y_rows = RowAppender(X), RowAppender(create_array(group, "y", (rows,)))
        for start in range(0, rows, X.chunks[0]):
            n_rows = min(X.chunks[0], rows - start)
            block = rng.standard_normal((n_rows, features))
            # any two columns have a correlation of 0.2
            block += 0.5 * rng.standard_normal((n_rows, 1))
            block *= deviations
            X_rows.append(block)
            y_rows.append(block @ weights + _INTERCEPT + rng.standard_normal(n_rows))
        X_rows.close()
        y_rows.close()
    return weights, deviations


def _run(
    *arguments: str, accepted: tuple[int, ...] = (0,), stderr: int | None = None
) -> tuple[int, str]:
    """Run a command of streamreg in a process of its own, and return its exit code and output.

    Each process is measured from the same start. Output is shown if 0 is the only accepted code.
    """
    stdout = None if accepted == (0,) else subprocess.PIPE
    command = [sys.executable, "-m", "streamreg", *arguments]
    try:
        # in its own process group, because this process ends it on Ctrl-C
        process = subprocess.Popen(  # noqa: S603  (this program)
            command, stdout=stdout, stderr=stderr, text=True, process_group=0
        )
        output, _ = process.communicate()
    except BaseException:
        # not process.terminate(), because the interrupt may come before Popen returns
        for child in psutil.Process().children():
            child.terminate()
            child.wait()
        raise
    if process.returncode < 0:
        raise StreamregError(
            f"the process of {arguments[0]} was killed, by the system if it was out of memory; "
            "pass a lower ",
            Remedy("memory_limit"),
            ", or free memory",
        )
    if process.returncode not in accepted:
        raise typer.Exit(process.returncode)
    return process.returncode, output
