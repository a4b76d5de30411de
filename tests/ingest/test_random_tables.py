"""However a table is written and read, the fit is the same, or the same refusal."""

import warnings
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import csv, feather, parquet

import streamreg
from streamreg.errors import InputError
from streamreg.ingest.convert import ingest
from streamreg.sources.tables.text_format import TextFormat

N = 24
TEXTS = ["a", "NA", "x,y", 'quo"te', "ünï", "07", "", " b ", "línea\nzwei", "nan", "1.5"]
NAMES = ["x", "größe", "a b", 'na"me', "c,d", "1", "Unnamed", "idx=1", "\u4f60"]


@st.composite
def tables(draw):
    """Draw numbers with gaps, levels, and perhaps a column of dates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True))
    columns = {}
    for name in names[:-1]:
        exponent = draw(st.integers(-3, 3))
        values = rng.normal(size=N) * 10.0**exponent
        if exponent > 0:  # rounded smaller values would all be 0
            values = np.round(values)
        gaps = draw(st.sets(st.integers(0, N - 1), max_size=3))
        columns[name] = [None if row in gaps else float(values[row]) for row in range(N)]
    levels = draw(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=4, unique=True))
    gaps = draw(st.sets(st.integers(0, N - 1), max_size=2))
    texts = [None if row in gaps else levels[row % len(levels)] for row in range(N)]
    columns[names[-1]] = texts
    if draw(st.integers(0, 4)) == 0:
        columns["day"] = pd.date_range("2020", periods=N).date.tolist()
    columns["target"] = rng.normal(size=N).tolist()
    return pa.table(columns), names[-1]


def write(table, folder):
    """Yield the table as files of three kinds, by as many programs as can write it."""
    parquet.write_table(table, folder / "t.parquet", row_group_size=10)
    feather.write_feather(table, folder / "t.arrow", chunksize=10)
    csv.write_csv(table, folder / "t.csv")
    table.to_pandas().to_parquet(folder / "pandas.parquet")
    files = ["t.parquet", "t.arrow", "t.csv", "pandas.parquet"]
    if not any("" in column for column in table.to_pydict().values()):
        # pandas writes the empty text as it writes a missing value
        table.to_pandas().to_csv(folder / "pandas.csv", index=False)
        files.append("pandas.csv")
    try:
        import polars as pl  # noqa: PLC0415  (not among the extras)
    except ImportError:
        return [folder / name for name in files]
    frame = pl.from_arrow(table)
    frame.write_csv(folder / "polars.csv")
    frame.write_parquet(folder / "polars.parquet")
    frame.write_ipc(folder / "polars.arrow")
    return [folder / name for name in [*files, "polars.csv", "polars.parquet", "polars.arrow"]]


def outcome(work):
    """Return coefficients by name, or the kind of refusal."""
    try:
        model = work()
    except InputError as error:
        return "lacks values" if "lacks values" in str(error) else "refused"
    return dict(zip(model.feature_names_in_, model.coef_, strict=True))


def expected(table, levelled):
    frame = table.to_pandas().dropna()
    X = frame.drop(columns=[levelled, "target"])
    order = sorted(frame[levelled].unique())
    with suppress(ValueError):
        order.sort(key=float)
    for level in order[1:]:
        X[f"{levelled}={level}"] = (frame[levelled] == level).astype(float)
    # scaled, because scikit-learn's LinearRegression loses columns that are 1e6 times smaller
    columns = np.column_stack([np.ones(len(X)), X])
    scale = np.abs(columns).max(axis=0)
    weights = np.linalg.lstsq(columns / scale, frame["target"], rcond=None)[0] / scale
    return dict(zip(X.columns, weights[1:], strict=True))


@settings(
    max_examples=5,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables())
def test_a_fit_does_not_depend_on_how_a_table_is_written_and_read(tmp_path_factory, drawn):
    table, levelled = drawn
    folder = tmp_path_factory.mktemp("random")
    options = {"target": ["target"], "one_hot": [levelled], "drop_missing": True}
    fit = streamreg.LinearRegression().fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = {"frame": outcome(lambda: fit(streamreg.read_table(table, **options)))}
        pandas = table.to_pandas()
        outcomes["pandas"] = outcome(lambda: fit(streamreg.read_table(pandas, **options)))
        for number, path in enumerate(write(table, folder)):
            # polars and pandas do not quote the text NA
            marks = {"missing": []} if path.suffix == ".csv" else {}
            outcomes[path.name] = outcome(
                lambda p=path, m=marks: fit(streamreg.read_table(p, **options, **m))
            )
            out, text_format = folder / f"{number}.zarr", TextFormat.parse(**marks)
            outcomes[f"ingested {path.name}"] = outcome(
                lambda p=path, o=out, t=text_format: fit(
                    str(ingest(p, o, **options, text_format=t).path)
                )
            )
    if "day" in table.column_names:
        assert set(outcomes.values()) == {"refused"}
        return
    known = expected(table, levelled)
    for how, found in outcomes.items():
        assert set(found) == set(known), how
        scale = max(map(abs, known.values()))
        for name, value in found.items():
            assert value == pytest.approx(known[name], rel=1e-9, abs=1e-12 * scale), (how, name)
