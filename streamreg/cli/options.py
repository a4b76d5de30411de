"""Options that several commands share: data, memory and output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError
from streamreg.output.atomic import require_folder
from streamreg.sources.dataset import Dataset, NanPolicy
from streamreg.sources.kinds import open_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.sources.tables.table import Table

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A data set, a Zarr group with X and y; or a table, such as a .csv or .parquet file, "
        "with --target; or, to fit, plan and info, a file of statistics. Or --x and --y.",
    ),
]
X = Annotated[str | None, typer.Option("--x", help="Path or URL of a Zarr array (N, D).")]
Y = Annotated[str | None, typer.Option("--y", help="Path or URL of a Zarr array (N,) or (N, K).")]
Weight = Annotated[
    str | None, typer.Option("--sample-weight", help="Path or URL of a Zarr array (N,).")
]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Of --cov-type cluster, or --cv: path or URL of a Zarr array (N,) of numbers.",
    ),
]
MissingChunks = Annotated[
    Literal["error", "fill"],
    typer.Option(help="What an absent chunk means: an error, or its fill value."),
]
DecodeCf = Annotated[
    bool,
    typer.Option(
        help="Decode arrays that carry CF attributes, such as scale_factor and _FillValue."
    ),
]
NanPolicyOption = Annotated[
    NanPolicy, typer.Option("--nan-policy", help="Refuse NaN and inf, or leave such rows out.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        help='Memory that the command may add to the process, such as "512 MiB".',
        show_default="half of what is available",
    ),
]
NThreads = Annotated[
    int | None,
    typer.Option(help="Threads that read and compute.", show_default="all cores"),
]
Json = Annotated[bool, typer.Option("--json", help="Show the result as one JSON document.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
ModelFile = Annotated[Path, typer.Option("--model", help="A model file, .json or .npz.")]

Progress = Annotated[bool, typer.Option(help="Show progress on standard error.")]


def dataset_of(
    config: FitConfig,
    data: str | Table | None,
    x: str | None,
    y: str | None = None,
    weight: str | None = None,
    groups: str | None = None,
    *,
    needs_y: bool | None = True,
) -> Dataset:
    """Open DATA, or --x and --y; DATA may be X alone, with --y.

    With ``needs_y=None`` X may have no y.
    """
    if (data is None) == (x is None):
        raise InputError("name the data once: either DATA or --x PATH with --y PATH")
    if isinstance(data, str) and open_group(data) is None:
        data, x = None, data
    if needs_y is None:
        needs_y = x is None or bool(y)
    if data is not None and y is not None:
        raise InputError(f"--y goes with --x; the data set {data} has its own y")
    return config.open_dataset(data if x is None else x, y, weight, groups, needs_y=needs_y)


def require_output(out: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a path that no file can be written to, before any pass."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out} must end in {' or '.join(suffixes)}")
    require_folder(out, f"--out {out}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists; pass --overwrite to replace it")
