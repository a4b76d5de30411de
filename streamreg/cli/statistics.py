"""``streamreg gather`` and ``streamreg merge``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.cli.config_options import with_config_options
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError, MemoryLimitError, Remedy
from streamreg.formatting import count, format_nbytes
from streamreg.machine import memory_limit_or_default
from streamreg.progress import progress_of
from streamreg.sources.dataset import Dataset
from streamreg.statistics.file import SUFFIX, StoredStatistics, save_gathered
from streamreg.statistics.gather import gather as gather_rows

if TYPE_CHECKING:
    from streamreg.statistics.gathered import Gathered

Out = Annotated[Path, typer.Option(help="The file of statistics to write, .npz.")]


@partial(
    with_config_options,
    names=(
        "memory_limit",
        "n_threads",
        "missing_chunks",
        "decode_cf",
        "nan_policy",
        "device",
        "device_memory_limit",
        "client",
    ),
)
def gather(
    dataset: Dataset,
    config: FitConfig,
    out: Out,
    kind: Annotated[
        Literal["gram", "qr"],
        typer.Option(help="XᵀX; or the triangular factor R, which keeps more digits."),
    ] = "gram",
    overwrite: o.Overwrite = False,
    progress: o.Progress = True,
    json: o.Json = False,
) -> None:
    """Read a data set once and keep its statistics, from which fit needs no rows."""
    o.require_output(out, (SUFFIX,), overwrite=overwrite)
    outcome = gather_rows(dataset, config, kind, progress_of(progress, "gather"))
    save_gathered(outcome.gathered, out)
    for message in outcome.warnings:
        show.warn(message)
    _write(outcome.gathered, out, json=json)


def merge(
    pieces: Annotated[
        list[Path],
        typer.Argument(metavar="PIECES", help="Files of statistics, in the order of their rows."),
    ],
    out: Out,
    overwrite: o.Overwrite = False,
    memory_limit: o.MemoryLimit = None,
    json: o.Json = False,
) -> None:
    """Merge statistics of different rows; the pieces stay as they are."""
    o.require_output(out, (SUFFIX,), overwrite=overwrite)
    config = FitConfig.parse(memory_limit=memory_limit)
    stored = [StoredStatistics(path) for path in pieces]
    _require_mergeable(stored, memory_limit_or_default(config.memory_limit))
    merged = stored[0].load(config.memory_limit)
    for piece in stored[1:]:
        merged = merged.followed_by(piece.load(config.memory_limit))
    save_gathered(merged, out)
    _write(merged, out, json=json)


def describe_statistics(stored: StoredStatistics, *, json: bool) -> None:
    """Show what a file of statistics is of; its sums are not read."""
    about = stored.about
    if json:
        show.write_json(about.to_json())
        return
    show.write(
        f"statistics of kind {about.kind}: {count(about.n_counted, 'row')}, "
        f"{count(about.n_features, 'feature')}, {count(about.n_targets, 'target')}, "
        f"{format_nbytes(about.statistic.state_nbytes)}"
    )
    if about.n_omitted:
        show.write(f"{count(about.n_omitted, 'row')} left out for NaN or inf")
    if about.is_weighted:
        show.write(f"sum of weights: {about.weight_sum:.9g}")
    for what, names in (("features", about.feature_names), ("targets", about.target_names)):
        if names:
            show.write_names(what, names)
    for piece in about.pieces:
        show.write(f"made of {piece.source}: {count(piece.n_rows, 'row')}")


def _require_mergeable(stored: list[StoredStatistics], limit: int) -> None:
    """Refuse pieces of other columns, and those that do not fit, before their sums are read."""
    about = stored[0].about
    for piece in stored[1:]:
        try:
            about = about.followed_by(piece.about)
        except InputError as error:
            error.add_note(f"the second is {piece.path}, the first all before it")
            raise
    needed = min(2, len(stored)) * about.statistic.state_nbytes
    if needed > limit:
        raise MemoryLimitError(
            f"merge needs {format_nbytes(needed, up=True)}, two states, but ",
            Remedy("memory_limit"),
            f" is {format_nbytes(limit)}; no sums were read",
        )


def _write(gathered: Gathered, out: Path, *, json: bool) -> None:
    about = gathered.about
    if json:
        show.write_json(about.to_json() | {"path": str(out)})
        return
    show.write(
        f"{out}: statistics of {count(about.n_counted, 'row')}, "
        f"{count(about.n_features, 'feature')}, {count(about.n_targets, 'target')}"
    )
