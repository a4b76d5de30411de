"""Options that several commands share; each has the name of the estimator's parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamreg.errors import InputError
from streamreg.sources.dataset import DataSet, NanPolicy, open_dataset

Data = Annotated[
    str | None,
    typer.Argument(metavar="DATA", help="A data set: a Zarr group with X and y. Or --x and --y."),
]
X = Annotated[str | None, typer.Option("--x", help="Path or URL of a Zarr array (N, D).")]
Y = Annotated[str | None, typer.Option("--y", help="Path or URL of a Zarr array (N,) or (N, K).")]
Weight = Annotated[
    str | None, typer.Option("--sample-weight", help="Path or URL of a Zarr array (N,).")
]
MissingChunks = Annotated[
    str, typer.Option(help="What an absent Zarr chunk means: error, or fill (the fill value).")
]
NanPolicyOption = Annotated[
    str, typer.Option("--nan-policy", help="raise, or omit: leave out rows with NaN or inf.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help='What the command may add to the process, such as "512 MiB".'),
]
NThreads = Annotated[int | None, typer.Option(help="Threads; all cores if not given.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
ModelFile = Annotated[Path, typer.Option("--model", help="A model file, .json or .npz.")]

SolverName = Annotated[str, typer.Option("--solver", help="auto, closed_form, gd or cg.")]
FitIntercept = Annotated[bool, typer.Option(help="Whether to fit an intercept.")]
L2 = Annotated[float, typer.Option("--l2", help="Penalty: adds l2/2·‖w‖² to the objective.")]
Standardize = Annotated[bool, typer.Option(help="gd and cg work in centred, scaled coordinates.")]
LearningRate = Annotated[str, typer.Option(help='Of gd: a number, or "auto" for line search.')]
MaxEpochs = Annotated[int, typer.Option(help="Passes over the data at most.")]
Tol = Annotated[float, typer.Option(help="gd: least relative fall of the loss; cg: of ‖∇f‖.")]
Init = Annotated[str, typer.Option(help="zeros or random.")]
RandomState = Annotated[int | None, typer.Option(help="Seed for --init random.")]
Device = Annotated[str, typer.Option(help="cpu.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster.", hidden=True)
]
Checkpoint = Annotated[Path | None, typer.Option(help="Of the fit.", hidden=True)]
Progress = Annotated[bool, typer.Option(help="Show progress on standard error.")]


def dataset_of(
    data: str | None,
    x: str | None,
    y: str | None,
    weight: str | None = None,
    *,
    missing_chunks: str = "error",
    nan_policy: str = "raise",
    needs_y: bool = True,
) -> DataSet:
    """Open what DATA, or --x and --y, name.

    Raises
    ------
    InputError
        Neither or both are given, or a choice is not one of its words.
    """
    if (data is None) == (x is None):
        raise InputError("name the data once: DATA, a data set, or --x PATH with --y PATH")
    if data is not None and y is not None:
        raise InputError(f"--y goes with --x; the data set {data} has its own y")
    if missing_chunks not in {"error", "fill"}:
        raise InputError(f"--missing-chunks {missing_chunks!r} must be error or fill")
    policies: dict[str, NanPolicy] = {"raise": "raise", "omit": "omit"}
    if nan_policy not in policies:
        raise InputError(f"--nan-policy {nan_policy!r} must be raise or omit")
    return open_dataset(
        data if x is None else x, y, weight,
        missing_chunks=missing_chunks, nan_policy=policies[nan_policy], needs_y=needs_y,
    )  # fmt: skip


def rate_of(text: str) -> float | str:
    """Return a learning rate: a number, or ``"auto"``."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f'--learning-rate {text!r} must be a number, or "auto"') from None
