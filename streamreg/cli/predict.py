"""``streamreg predict`` and ``streamreg score``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.cli import table_options as t
from streamreg.cli.config_options import with_config_options
from streamreg.config.fit_config import FitConfig
from streamreg.formatting import count
from streamreg.model import Model
from streamreg.predict import predictions, scores
from streamreg.predict.batches import Batches
from streamreg.progress import progress_of
from streamreg.sources.dataset import Dataset, NanPolicy

_MEASURES = ("r2", "rmse", "pearson_r")
# of more targets only the mean is shown
_MOST_TARGETS = 20


def _say_batches(batches: Batches) -> None:
    if batches.summary:
        show.say(batches.summary)


def predict(
    model_file: o.ModelFile,
    out: Annotated[
        Path,
        typer.Option(
            help="What to write: a Zarr array, a new folder; or a table, .parquet or .csv."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A data set, a Zarr group with X; or a table, read by the schema of the model. "
            "Or --x.",
        ),
    ] = None,
    x: o.X = None,
    unknown_levels: t.UnknownLevels = "error",
    delimiter: t.Delimiter = None,
    decimal: t.Decimal = ".",
    encoding: t.Encoding = None,
    missing: t.Missing = None,
    first_column: t.FirstColumn = None,
    overwrite: o.Overwrite = False,
    memory_limit: o.MemoryLimit = None,
    n_threads: o.NThreads = None,
    missing_chunks: o.MissingChunks = "error",
    decode_cf: o.DecodeCf = True,
    nan_policy: Annotated[
        NanPolicy, typer.Option(help="Refuse NaN and inf, or predict NaN for such rows.")
    ] = "raise",
    progress: o.Progress = True,
    json: o.Json = False,
) -> None:
    """Write predictions to disk, block by block; they appear whole or not at all."""
    config = FitConfig.parse(
        memory_limit=memory_limit,
        n_threads=n_threads,
        missing_chunks=missing_chunks,
        decode_cf=decode_cf,
        nan_policy=nan_policy,
    )
    model = Model.load(model_file)
    table = t.TableOptions(
        unknown_levels=unknown_levels,
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        missing=missing,
        first_column=first_column,
    )
    opened = table.opened(data, model, needs_y=False)
    dataset = o.dataset_of(config, opened, x, needs_y=False)
    path = predictions.predict_to(
        model,
        dataset,
        out,
        config,
        progress_of(progress, "predict"),
        overwrite=overwrite,
        inputs=[path for path in (data, x) if path is not None],
        on_plan=_say_batches,
    )
    if json:
        show.write_json({"path": str(path), "rows": dataset.n_rows})
    else:
        show.write(f"{count(dataset.n_rows, 'prediction')} written to {out}")


@partial(
    with_config_options,
    names=("memory_limit", "n_threads", "missing_chunks", "decode_cf", "nan_policy"),
    table_options={"target": t.Target, "unknown_levels": t.UnknownLevels} | t.FORMAT,
)
def score(
    dataset: Dataset,
    config: FitConfig,
    model_file: o.ModelFile,
    progress: o.Progress = True,
    json: o.Json = False,
) -> None:
    """Show R², RMSE and the correlation of a model's predictions with y; streamed.

    R² of several targets is their mean; --json holds that of each.
    """
    model = Model.load(model_file)
    scored = scores.score(model, dataset, config, progress_of(progress, "score"), _say_batches)
    for message in scored.warnings:
        show.warn(message)
    found = scored.evaluation
    r2 = float(np.mean(found.r2))
    if json:
        by_target = {f"{name}_by_target": getattr(found, name) for name in _MEASURES}
        rows = {"n_rows": found.n_rows, "rows_omitted": found.rows_omitted}
        show.write_json({"r2": r2} | by_target | rows)
        return
    show.write(f"R² {r2:.9g}")
    if len(found.r2) == 1:
        show.write(f"RMSE {found.rmse[0]:.9g}\nPearson r {found.pearson_r[0]:.9g}")
    elif len(found.r2) <= _MOST_TARGETS:
        names = model.target_names or [f"y{k}" for k in range(len(found.r2))]
        targets = zip(names, found.r2, found.rmse, found.pearson_r, strict=True)
        shown = ([name, *(f"{value:.6g}" for value in values)] for name, *values in targets)
        show.write_table(["target", "R²", "RMSE", "Pearson r"], shown)
