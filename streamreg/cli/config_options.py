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

_DATA = {"data": o.Data, "x": o.X, "y": o.Y, "sample_weight": o.Weight}


def _option(kind: object, text: str, *names: str, default: bool | str = True) -> Any:  # noqa: ANN401
    return Annotated[kind, typer.Option(*names, help=text, show_default=default)]


# the order is that of --help
_PARAMETERS = {
    "solver": _option(
        str,
        "closed_form, gd or cg; auto is closed_form if it fits and is not far slower, else cg.",
    ),
    "fit_intercept": _option(bool, "Whether to fit an intercept."),
    "l2": _option(float, "Penalty: adds l2/2·‖w‖² to the objective."),
    "standardize": _option(bool, "Whether gd and cg work in centred, scaled coordinates."),
    "learning_rate": _option(str, "Of gd: a number, or auto for an exact line search."),
    "max_epochs": _option(int, "Epochs at most, each a pass over all rows."),
    "tol": _option(
        float,
        "gd stops when an epoch lowers the loss by less than this fraction of it, "
        "cg when ‖∇f‖ is this fraction of ‖∇f‖ at the start.",
    ),
    "init": _option(str, "Weights that gd and cg start from: zeros or random."),
    "random_state": _option(int | None, "Seed of --init random.", default="a new one each time"),
    "memory_limit": o.MemoryLimit,
    "n_threads": o.NThreads,
    "missing_chunks": o.MissingChunks,
    "nan_policy": o.NanPolicyOption,
    "device": _option(str, "cpu, or cuda: a GPU reduces the rows, with CuPy."),
    "device_memory_limit": _option(
        str | None, "Memory of the GPU that the fit may take.", default="half of what is free"
    ),
    "client": _option(
        str | None,
        "A Dask scheduler, such as tcp://127.0.0.1:8786, whose workers run the passes.",
        "--scheduler",
    ),
    "checkpoint": _option(
        Path | None, "File where the fit saves its state; the same command resumes from it."
    ),
}


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the first two parameters of a command, ``dataset`` and ``config``, by the options."""

    @wraps(command)
    def with_options(**options: Any) -> None:  # noqa: ANN401  (options have many types)
        data = [options.pop(name) for name in _DATA]
        parameters = {name: options.pop(name) for name in _PARAMETERS}
        parameters["learning_rate"] = _rate(parameters["learning_rate"])
        if parameters["client"] is not None:
            parameters["client"] = connect(parameters["client"])
        config = FitConfig.parse(**parameters)
        command(o.dataset_of(config, *data), config, **options)

    _, _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=getattr(FitConfig, name, None),
            annotation=annotation,
        )
        for name, annotation in (_DATA | _PARAMETERS).items()
    ]
    # typer reads the signature and the annotations
    with_options.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in (*shared, *own)}
    return with_options


def _rate(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(f'--learning-rate {text!r} must be a number, or "auto"') from None
