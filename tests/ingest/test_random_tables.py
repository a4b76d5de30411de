"""However a table is written and read, the fit is the same, or the same refusal."""

import warnings
from contextlib import suppress
from csv import QUOTE_NONNUMERIC
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import csv, feather, parquet

import streamreg
from streamreg.errors import InputError
from streamreg.ingest.convert import ingest

N = 40
TEXTS = ["a", "NA", "x,y", 'quo"te', "ünï", "07", "", " b ", "línea\nzwei", "nan", "1.5", "-9"]
NAMES = ["x", "größe", "a b", 'na"me', "c,d", "1", "Unnamed", "idx=1", "\u4f60", "x;y"]
MONDAY = datetime(2020, 1, 6)  # noqa: DTZ001  (a table's times have no zone)
# kinds of levels: four values of each
LEVELS = {
    "integers": [3, 1, 10, 0],
    "floats": [0.5, 2.0, -1.0, 10.25],
    "truths": [True, False, True, True],
    "dates": [(MONDAY + timedelta(days=k)).date() for k in range(4)],
    "midnights": [MONDAY + timedelta(days=k) for k in range(4)],
    "times": [MONDAY + timedelta(hours=7 * k) for k in range(4)],
}
ENCODINGS = {"utf-16": "utf-16", "latin": "latin-1", "mark": "utf-8-sig"}


class Drawn(NamedTuple):
    """A table of Arrow, what ``read_table`` is told of it, and which files are ingested too."""

    table: pa.Table
    options: dict[str, Any]
    ingested: int  # every fourth file, from this one on


@st.composite
def tables(draw):
    """Draw numbers with gaps, levels, perhaps weights, and perhaps a date that is no level."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=3, max_size=5, unique=True))
    columns = {}
    for name in names[:-1]:
        kind = draw(st.sampled_from(["float", "float", "integer", "truth"]))
        if kind == "float":
            values = rng.normal(size=N) * 10.0 ** draw(st.integers(-3, 3))
        else:
            values = rng.integers(0, 2 if kind == "truth" else 1000, N)
        values = values.astype(bool).tolist() if kind == "truth" else values.tolist()
        gaps = draw(st.sets(st.integers(0, N - 1), max_size=3))
        columns[name] = [None if row in gaps else values[row] for row in range(N)]
    kind = draw(st.sampled_from(["text", "text", "category", *LEVELS]))
    levels = LEVELS.get(kind) or draw(
        st.lists(st.sampled_from(TEXTS), min_size=2, max_size=4, unique=True)
    )
    gaps = draw(st.sets(st.integers(0, N - 1), max_size=2))
    column = pa.array([None if row in gaps else levels[row % len(levels)] for row in range(N)])
    columns[names[-1]] = column.dictionary_encode() if kind == "category" else column
    columns["target"] = rng.normal(size=N).tolist()
    options = {"target": ["target"], "one_hot": [names[-1]]}
    if draw(st.booleans()):
        columns["w"] = rng.uniform(0.5, 2, N).tolist()
        options["weight"] = "w"
    if draw(st.integers(0, 7)) == 0:
        columns["day"] = pd.date_range("2020", periods=N).date.tolist()
    options["drop_missing"] = draw(st.integers(0, 5)) > 0
    return Drawn(pa.table(columns), options, draw(st.integers(0, 3)))


def write(table, folder):
    """Write the table by pyarrow, pandas and polars; yield paths, and the format of texts."""
    parquet.write_table(table, folder / "t.parquet", row_group_size=17)
    feather.write_feather(table, folder / "t.arrow", chunksize=17)
    plain = pa.table({name: decoded(column) for name, column in zip(*parts(table), strict=True)})
    csv.write_csv(plain, folder / "t.csv")
    frame = table.to_pandas()
    frame.to_parquet(folder / "pandas.parquet")
    frame.to_feather(folder / "pandas.arrow")
    # the text NA, which polars and pandas do not quote, is a level
    marks = {"missing": []}
    formats = {"t.parquet": {}, "t.arrow": {}, "pandas.parquet": {}, "pandas.arrow": {}}
    formats["t.csv"] = marks
    # pandas writes the empty text as it writes a missing value
    if not any("" in column for column in plain.to_pydict().values()):
        formats["pandas.csv"] = marks
        frame.to_csv(folder / "pandas.csv", index=False)
        formats["european.csv"] = marks | {"delimiter": ";", "decimal": ","}
        frame.to_csv(folder / "european.csv", index=False, sep=";", decimal=",")
        if not any(column.null_count for column in table.columns):
            formats["quoted.csv"] = marks
            frame.to_csv(folder / "quoted.csv", index=False, quoting=QUOTE_NONNUMERIC)
    text = (folder / "t.csv").read_text(encoding="utf-8")
    for name, encoding in ENCODINGS.items():
        with suppress(UnicodeEncodeError):  # latin-1 has not all letters
            (folder / f"{name}.csv").write_bytes(text.encode(encoding))
            formats[f"{name}.csv"] = marks | ({"encoding": encoding} if name == "latin" else {})
    polars = pl.from_arrow(table)
    polars.write_csv(folder / "polars.csv")
    polars.write_parquet(folder / "polars.parquet")
    polars.write_ipc(folder / "polars.arrow")
    formats |= {"polars.parquet": {}, "polars.arrow": {}, "polars.csv": marks}
    return {folder / name: text_format for name, text_format in formats.items()}


def parts(table):
    return table.column_names, table.columns


def decoded(column):
    is_category = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_category else column


class Coefficients(NamedTuple):
    """Weights by the names of their columns."""

    weights: dict[str, float]


def outcome(fit):
    """Return coefficients by name, or the kind of refusal."""
    try:
        model = fit()
    except InputError as error:
        kinds = {"lacks values": "missing", "has NaN": "missing", "not numbers": "no numbers"}
        return next((kind for text, kind in kinds.items() if text in str(error)), str(error))
    return Coefficients(dict(zip(model.feature_names_in_, model.coef_, strict=True)))


def outcomes(drawn, folder):
    """Return the outcome of each way from the table to a fit."""
    fit = streamreg.LinearRegression().fit
    table, options, ingested = drawn
    frames = {"pyarrow": table, "pandas": table.to_pandas(), "polars": pl.from_arrow(table)}
    found = {
        name: outcome(lambda f=frame: fit(streamreg.read_table(f, **options)))
        for name, frame in frames.items()
    }
    for number, (path, how) in enumerate(write(table, folder).items()):
        found[path.name] = outcome(
            lambda p=path, h=how: fit(streamreg.read_table(p, **options, **h))
        )
        if number % 4 != ingested:
            continue
        out = path.with_suffix(f"{path.suffix}.zarr")
        found[f"ingested {path.name}"] = outcome(
            lambda p=path, o=out, h=how: fit(str(ingest(p, o, **options, **h).path))
        )
    return found


def design(drawn):
    """Return the columns by name, the target and the weights, of rows without a gap."""
    table, options, _ = drawn
    (levelled,) = options["one_hot"]
    frame = pa.table({n: decoded(c) for n, c in zip(*parts(table), strict=True)}).to_pandas()
    frame = frame.dropna()
    weight = frame.pop("w") if "weight" in options else np.ones(len(frame))
    levels = frame.pop(levelled)
    target = frame.pop("target")
    order = sorted(levels.unique())
    with suppress(ValueError, TypeError):
        order.sort(key=float)
    columns = dict(frame.astype(float).items())
    return [*columns.values(), *((levels == level) * 1.0 for level in order[1:])], target, weight


def expected(drawn):
    """Return the weights of NumPy's least squares, and the deviations of their columns."""
    columns, target, weight = design(drawn)
    root = np.sqrt(weight)
    X = np.column_stack([np.ones(len(target)), *columns]) * np.asarray(root)[:, None]
    scale = np.abs(X).max(axis=0)
    weights = np.linalg.lstsq(X / scale, target * root, rcond=None)[0] / scale
    return weights[1:], np.std(np.column_stack(columns), axis=0)


@settings(
    max_examples=8,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables())
def test_a_fit_does_not_depend_on_how_a_table_is_written_and_read(tmp_path_factory, drawn):
    with warnings.catch_warnings():
        # rows that are left out
        warnings.simplefilter("ignore", streamreg.DataWarning)
        found = outcomes(drawn, tmp_path_factory.mktemp("random"))
    first = found["pyarrow"]
    if not isinstance(first, Coefficients):
        assert set(found.values()) == {first}
        assert first == ("no numbers" if "day" in drawn.table.column_names else "missing")
        return
    known, deviations = expected(drawn)
    # the weights of columns of one deviation
    size = np.abs(known * deviations).max()
    weights = np.array([*first.weights.values()])
    # scikit-learn and NumPy lose digits in columns of unequal size
    assert weights * deviations == pytest.approx(known * deviations, rel=1e-9, abs=1e-9 * size)
    for how, one in found.items():
        assert isinstance(one, Coefficients), (how, one)
        assert list(one.weights) == list(first.weights), how
        other = np.array([*one.weights.values()])
        # files have other row groups, so that sums are of another order
        assert np.abs(other - weights) * deviations == pytest.approx(0, abs=1e-12 * size), how
