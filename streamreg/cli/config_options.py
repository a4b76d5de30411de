"""The options of ``plan`` and ``fit``: the data and all parameters of the estimator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from streamreg.cli import options as o
from streamreg.cli import table_options as t
from streamreg.cli.cluster import connect
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError, Parameter, Remedy
from streamreg.sources.tables.paths import is_table

_DATA = {"data": o.Data, "x": o.X, "y": o.Y, "sample_weight": o.Weight, "groups": o.Groups}
_TABLE = t.COLUMNS | t.FORMAT
_MOST_PENALTIES = 10_000


def _option(kind: object, text: str, *names: str, default: bool | str = True) -> Any:  # noqa: ANN401
    return Annotated[kind, typer.Option(*names, help=text, show_default=default)]


# the order is that of --help
_PARAMETERS = {
    "solver": _option(
        str,
        "closed_form, qr, dual, gd or cg; auto is closed_form or dual, if one fits and is not far "
        "slower, and qr after it where digits ask for it; else cg.",
    ),
    "fit_intercept": _option(bool, "Whether to fit an intercept."),
    "l2": _option(
        str | None,
        "Penalty: adds l2/2·‖w‖² to the objective. With --cv several, as 0.1,1,10, or as "
        "FIRST:LAST:COUNT at equal ratios, such as 1e-8:1e2:25.",
        default="0; with --cv 25 penalties from the data",
    ),
    "cv": _option(
        str | None,
        "Choose the penalty by the errors of this number of folds, of consecutive rows, or of "
        "whole --groups; or by gcv, without folds.",
        default="no choice",
    ),
    "l2_per_target": _option(bool, "Of --cv: choose a penalty for each target."),
    "one_standard_error": _option(
        bool, "Of --cv: take the largest penalty within one standard error of the best."
    ),
    "cov_type": _option(
        str | None,
        "Standard errors, of closed_form and qr: nonrobust, HC0, HC1, HC2, HC3, or cluster with "
        "--groups. All but nonrobust read the rows once more.",
        default="none",
    ),
    "inference_for": _option(
        str | None,
        "Columns, by names or numbers with commas between them, whose standard errors cg works "
        "out where O(D²) memory does not fit.",
        default="all",
    ),
    "standardize": _option(bool, "Whether gd and cg work in centred, scaled coordinates."),
    "learning_rate": _option(str, "Of gd: a number, or auto for an exact line search."),
    "precondition": _option(
        str,
        "Of cg: a number of directions of a preconditioner, one pass and memory for fewer epochs; "
        "none; or auto, where memory is left and the fit turns out to need many epochs.",
    ),
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
    "decode_cf": o.DecodeCf,
    "nan_policy": o.NanPolicyOption,
    "device": _option(str, "cpu, or cuda: a GPU reduces the rows, with CuPy."),
    "device_memory_limit": _option(
        str | None, "Memory of the GPU that the fit may take.", default="half of what is free"
    ),
    "client": _option(
        str | None,
        "A Dask scheduler, such as tcp://127.0.0.1:8786, whose workers run the passes: "
        "--memory-limit is then of each worker, and --n-threads is refused.",
        "--scheduler",
    ),
    "checkpoint": _option(
        Path | None, "File where the fit saves its state; the same command resumes from it."
    ),
    "coef_out": _option(
        Path | None,
        "Zarr array to write the weights of many targets to, (K, D); the model refers to it.",
    ),
}


def _default(name: str) -> Any:  # noqa: ANN401
    # the default of l2 depends on --cv
    if name == "l2":
        return None
    return getattr(FitConfig, name, getattr(t.TableOptions, name, None))


def _penalties(l2: str | None, cv: str | None) -> dict[str, object]:
    """Return the parameters l2 and cv, as numbers where they are some."""
    values = None if l2 is None else _l2s(l2)
    if cv is None:
        if values is None:
            return {}
        if len(values) > 1:
            why = " is a list of penalties: pass "
            raise InputError(Parameter("l2", l2), why, Remedy("cv", 5), " too, or one number")
        return {"l2": values[0]}
    # a text that is no number is refused with the other parameters
    with suppress(ValueError):
        return {"cv": int(cv), "l2": values}
    return {"cv": cv, "l2": values}


def _l2s(text: str) -> list[object]:
    """Return the penalties of a list with commas, or of FIRST:LAST:COUNT."""
    first, *others = text.split(":")
    try:
        if len(others) == 2:  # noqa: PLR2004
            low, high, size = float(first), float(others[0]), int(others[1])
            if 0 < low < high < float("inf") and 1 < size <= _MOST_PENALTIES:
                return list(np.geomspace(low, high, size))
        elif not others:
            return [float(part) for part in text.split(",")]
    except ValueError:
        pass
    raise InputError(
        Parameter("l2", text),
        " must be a number; with ",
        Remedy("cv"),
        " also numbers with commas between them, or FIRST:LAST:COUNT with 0 < FIRST < LAST and "
        f"COUNT from 2 to {_MOST_PENALTIES:,}",
    )


def with_config_options(
    command: Callable[..., None],
    names: Collection[str] = _PARAMETERS,
    table_options: dict[str, Any] = _TABLE,
    opened: Callable[..., object] = o.dataset_of,
) -> Callable[..., None]:
    """Replace the first two parameters of a command, its data and ``config``, by the options.

    ``names`` are the parameters of the estimator that the command takes, ``table_options`` what it
    takes for tables; ``opened(config, *data)`` opens the data. A command with ``model_file`` reads
    a table by the schema of the model.
    """

    @wraps(command)
    def with_options(**options: Any) -> None:  # noqa: ANN401  (options have many types)
        data = [options.pop(name) for name in _DATA]
        parameters = {name: options.pop(name) for name in names}
        # a text that is no number is refused with the other parameters
        for name, convert in (("learning_rate", float), ("precondition", int)):
            with suppress(KeyError, ValueError):
                parameters[name] = convert(parameters[name])
        if "l2" in parameters:
            parameters |= _penalties(parameters.pop("l2"), parameters["cv"])
        if parameters.get("client") is not None:
            parameters["client"] = connect(parameters["client"])
        table = t.TableOptions.taken_from(options)
        config = FitConfig.parse(**parameters)
        if "model_file" not in options:
            table = table.dropping(drops=config.nan_policy == "omit" and is_table(data[0]))
        data[0] = table.opened(data[0], options.get("model_file"))
        command(opened(config, *data), config, **options)

    _, _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(name),
            annotation=annotation,
        )
        for name, annotation in (
            _DATA | table_options | {name: _PARAMETERS[name] for name in names}
        ).items()
    ]
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    # typer reads the signature and the annotations
    with_options.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in (*shared, *own)}
    return with_options
