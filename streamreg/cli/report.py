"""``streamreg report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import streamreg
from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.cli.table_options import TableOptions
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError
from streamreg.model import Model
from streamreg.output.atomic import require_folder
from streamreg.predict.scores import residuals
from streamreg.progress import progress_of

if TYPE_CHECKING:
    from streamreg.report.report import Report

_SUFFIXES = {".html", ".htm"}


def report(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    data: o.Data = None,
    x: o.X = None,
    y: o.Y = None,
    sample_weight: o.Weight = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Of several targets the one to show: a name or number.", show_default="the first"
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    memory_limit: o.MemoryLimit = None,
    n_threads: o.NThreads = None,
    missing_chunks: o.MissingChunks = "error",
    decode_cf: o.DecodeCf = True,
    nan_policy: o.NanPolicyOption = "raise",
    progress: o.Progress = True,
    json: o.Json = False,
) -> None:
    """Write a page about a model: tables and figures; with DATA, of residuals too, in one pass."""
    Report = _report_class()
    _require_writable(out, overwrite=overwrite)
    config = FitConfig.parse(
        memory_limit=memory_limit,
        n_threads=n_threads,
        missing_chunks=missing_chunks,
        decode_cf=decode_cf,
        nan_policy=nan_policy,
    )
    model = Model.load(model_file)
    number = _number_of(target, model)
    found, origin = None, f"Model {model_file}"
    if any(each is not None for each in (data, x, y, sample_weight)):
        opened = TableOptions().opened(data, model)
        dataset = o.dataset_of(config, opened, x, y, sample_weight)
        shown = progress_of(progress, "report")
        found = residuals(model, dataset, config, shown, target=number)
        origin += f", rows of {x if data is None else data}"
        for message in found.warnings:
            show.warn(message)
    Report(
        model,
        title=f"Linear regression, {model_file.name}",
        origin=f"{origin}. streamreg {streamreg.__version__}",
        residuals=found,
        target=number,
    ).write(out)
    if not json:
        show.write(f"report written to {out}")
    elif found is None:
        show.write_json({"path": str(out)})
    else:
        known, omitted = found.histogram, found.n_omitted
        measures = {"r2": known.r2, "rmse": known.rmse}
        show.write_json({"path": str(out), **measures, "rows_omitted": omitted})


def _report_class() -> type[Report]:
    try:
        from streamreg.report.report import Report  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InputError(f'report needs {error.name}: pip install "streamreg[plot]"') from error
    return Report


def _require_writable(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before any pass."""
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--out {out} must end in .html")
    require_folder(out, f"--out {out}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists; pass --overwrite to replace it")


def _number_of(target: str | None, model: Model) -> int:
    """Return the number of the target that is called so."""
    names = model.target_names or ()
    if target is None:
        return 0
    if target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < model.n_targets:
        return int(target)
    known = ", ".join(map(repr, names[:8])) or f"0 to {model.n_targets - 1}"
    raise InputError(f"--target {target} is not a target of the model; it has {known}")
