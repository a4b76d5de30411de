"""The options of ``plan`` and ``fit``: the data and all parameters of the estimator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamreg.cli import options as o
from streamreg.cli.cluster import connect
from streamreg.config import FitConfig
from streamreg.errors import InputError
from streamreg.sources.dataset import Dataset


def dataset_and_config(
    data: o.Data = None,
    x: o.X = None,
    y: o.Y = None,
    sample_weight: o.Weight = None,
    solver: Annotated[
        str,
        typer.Option(help="closed_form, gd or cg; auto is closed_form if that fits, else cg."),
    ] = "auto",
    fit_intercept: Annotated[bool, typer.Option(help="Whether to fit an intercept.")] = True,
    l2: Annotated[
        float, typer.Option("--l2", help="Penalty: adds l2/2·‖w‖² to the objective.")
    ] = 0.0,
    standardize: Annotated[
        bool, typer.Option(help="Whether gd and cg work in centred, scaled coordinates.")
    ] = True,
    learning_rate: Annotated[
        str, typer.Option(help="Of gd: a number, or auto for an exact line search.")
    ] = "auto",
    max_epochs: Annotated[
        int, typer.Option(help="Epochs at most, each a pass over all rows.")
    ] = 1000,
    tol: Annotated[
        float,
        typer.Option(
            help="gd stops when an epoch lowers the loss by less than this fraction of it, "
            "cg when ‖∇f‖ is this fraction of ‖∇f‖ at the start."
        ),
    ] = 1e-8,
    init: Annotated[
        str, typer.Option(help="Weights that gd and cg start from: zeros or random.")
    ] = "zeros",
    random_state: Annotated[
        int | None, typer.Option(help="Seed of --init random.", show_default="a new one each time")
    ] = None,
    memory_limit: o.MemoryLimit = None,
    n_threads: o.NThreads = None,
    missing_chunks: o.MissingChunks = "error",
    nan_policy: o.NanPolicyOption = "raise",
    device: Annotated[
        str, typer.Option(help="cpu, or cuda: a GPU reduces the rows, with CuPy.")
    ] = "cpu",
    device_memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory of the GPU that the fit may take.", show_default="half of what is free"
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Dask scheduler, such as tcp://127.0.0.1:8786, whose workers run the passes."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File where the fit saves its state; the same command resumes from it."),
    ] = None,
) -> tuple[Dataset, FitConfig]:
    """Parse the options; its parameters are their declarations."""
    config = FitConfig.parse(
        solver=solver,
        fit_intercept=fit_intercept,
        l2=l2,
        standardize=standardize,
        learning_rate=_rate(learning_rate),
        max_epochs=max_epochs,
        tol=tol,
        init=init,
        random_state=random_state,
        memory_limit=memory_limit,
        n_threads=n_threads,
        device=device,
        device_memory_limit=device_memory_limit,
        client=None if scheduler is None else connect(scheduler),
        checkpoint=checkpoint,
        missing_chunks=missing_chunks,
        nan_policy=nan_policy,
    )
    dataset = o.dataset_of(
        data, x, y, sample_weight, missing_chunks=missing_chunks, nan_policy=nan_policy
    )
    return dataset, config


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the first two parameters of a command, ``dataset`` and ``config``, by the options."""
    shared = inspect.signature(dataset_and_config, eval_str=True).parameters
    _, _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @wraps(command)
    def with_options(**options: Any) -> None:  # noqa: ANN401  (options have many types)
        dataset, config = dataset_and_config(**{name: options.pop(name) for name in shared})
        command(dataset, config, **options)

    parameters = [*shared.values(), *own]
    # typer reads the signature and the annotations
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


def _rate(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(f'--learning-rate {text!r} must be a number, or "auto"') from None
