"""``streamreg ingest`` and ``streamreg info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamreg.cli import show
from streamreg.cli import table_options as t
from streamreg.cli.jobs import is_statistics
from streamreg.cli.options import (
    Data,
    DecodeCf,
    Json,
    MissingChunks,
    Overwrite,
    Progress,
    X,
    Y,
    dataset_of,
)
from streamreg.cli.statistics import describe_statistics
from streamreg.config.fit_config import FitConfig
from streamreg.engines.partition import Blocks
from streamreg.formatting import count, format_nbytes
from streamreg.kernels.library import describe_kernels
from streamreg.progress import progress_of
from streamreg.statistics.file import StoredStatistics

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource


def ingest_table(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="A file of CSV, Parquet or Arrow, or libsvm text, which may be packed; a folder "
            "of tables, a glob, or a pipe.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The data set to write, a new folder.")
    ],
    target: t.Target = None,
    one_hot: t.OneHot = None,
    hash: t.Hash = None,  # noqa: A002  (as in read_table)
    text: t.Text = None,
    analyzer: t.Analyzer = "word",
    ngrams: t.Ngrams = "1",
    ignore: t.Ignore = None,
    keep: t.Keep = None,
    weight: t.TableWeight = None,
    drop_missing: t.DropMissing = False,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A data set that was ingested, or a model: columns, order, levels and target are "
            "taken from there.",
        ),
    ] = None,
    unknown_levels: t.UnknownLevels = "error",
    delimiter: t.Delimiter = None,
    decimal: t.Decimal = ".",
    encoding: t.Encoding = None,
    missing: t.Missing = None,
    first_column: t.FirstColumn = None,
    n_features: t.NFeatures = None,
    overwrite: Overwrite = False,
    progress: Progress = True,
    json: Json = False,
) -> None:
    """Write a table or libsvm text as a data set, in pieces, with a checksum in every chunk."""
    from streamreg.ingest.convert import ingest  # noqa: PLC0415  (it imports pyarrow)

    report = ingest(
        table,
        out,
        target=target,
        one_hot=one_hot,
        hash=hash,
        text=text,
        analyzer=analyzer,
        ngrams=ngrams,
        ignore=ignore,
        keep=keep,
        weight=weight,
        drop_missing=drop_missing,
        like=like,
        unknown_levels=unknown_levels,
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        missing=missing or None,
        first_column=first_column,
        n_features=n_features,
        overwrite=overwrite,
        progress=progress_of(progress, "ingest"),
    )
    n_rows = report.rows_read - report.rows_dropped
    if json:
        show.write_json(vars(report) | {"path": str(report.path), "rows": n_rows})
        return
    dropped = f" ({report.rows_dropped:,} with missing values left out)"
    show.write(
        f"{report.path}: {count(n_rows, 'row')}{dropped if report.rows_dropped else ''}, "
        f"{count(report.n_features, 'feature')}, target "
        f"{', '.join(report.target_names) or 'none'}"
    )


def info(
    data: Data = None,
    x: X = None,
    y: Y = None,
    missing_chunks: MissingChunks = "error",
    decode_cf: DecodeCf = True,
    json: Json = False,
) -> None:
    """Show shapes, chunks, codecs and checksums, and advice on the layout; or what a file holds."""
    if is_statistics(data):
        describe_statistics(StoredStatistics(str(data)), json=json)
        return
    config = FitConfig.parse(missing_chunks=missing_chunks, decode_cf=decode_cf)
    dataset = dataset_of(config, data, x, y, needs_y=None)
    rows = [_describe(source) for source in dataset.sources()]
    largest = Blocks.of(dataset.X.grid, dataset.X.row_nbytes).max_rows
    advice = dataset.X.layout_advice(largest * dataset.X.row_nbytes)
    if json:
        known = {"feature_names": dataset.feature_names, "target_names": dataset.target_names}
        show.write_json({"arrays": rows, "advice": advice, "kernels": describe_kernels()} | known)
        return
    headings = ("array", "shape", "dtype", "chunks", "chunk size", "codecs", "checksum")
    show.write_table(headings, [[str(row[heading]) for heading in headings] for row in rows])
    for row in rows:
        if row["attributes"]:
            listed = ", ".join(f"{name} = {value}" for name, value in row["attributes"].items())
            show.write(f"attributes of {row['array']}: {listed}")
    if dataset.feature_names:
        show.write_names("features", dataset.feature_names)
    if dataset.target_names:
        show.write(f"targets: {', '.join(dataset.target_names)}")
    show.write(f"kernels: {describe_kernels()}")
    for line in advice:
        show.write(f"advice: {line}")


def _describe(source: RowSource) -> dict[str, Any]:
    unknown = dict.fromkeys(("chunks", "chunk size", "codecs", "checksum"), "")
    return {
        "array": source.name,
        "shape": source.shape,
        "dtype": str(source.dtype),
        "size": format_nbytes(source.pass_nbytes),
        "attributes": dict(source.attributes),
        **unknown,
        **source.describe(),
    }
