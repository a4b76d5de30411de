"""Parquet files: however row groups and pages are cut, the numbers are the same and are planned."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import streamreg
from streamreg.sources.tables.parquet_pages import page_sizes

N, D = 150_000, 40
X = np.random.default_rng(0).normal(size=(N, D))
TABLE = pa.table({f"x{j}": X[:, j] for j in range(D)} | {"y": X @ np.arange(D)})

LAYOUTS = {
    "one row group": {"row_group_size": N},
    "read whole": {"row_group_size": 20_000},
    "smaller than a block": {"row_group_size": 999},
    "large pages": {"data_page_size": 1 << 22, "max_rows_per_page": N, "use_dictionary": False},
    "old pages": {"data_page_version": "2.0", "compression": "zstd"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_change_no_bit_and_the_plan_holds(layout, tmp_path):
    parquet.write_table(TABLE, tmp_path / "t.parquet", **LAYOUTS[layout])
    table = streamreg.read_table(tmp_path / "t.parquet", target="y")
    bits = []
    for n_threads in (1, 2, 3):
        model = streamreg.LinearRegression(n_threads=n_threads, solver="closed_form").fit(table)
        assert model.peak_memory_ <= model.plan_.candidates["closed_form"].peak_nbytes
        bits.append(model.coef_.tobytes())
    assert len(set(bits)) == 1
    np.testing.assert_allclose(model.coef_, np.arange(D), atol=1e-10)


def test_headers_of_pages_tell_their_sizes(tmp_path):
    path = tmp_path / "t.parquet"
    values = pa.table({"x": np.arange(100_000.0)})
    parquet.write_table(
        values, path, use_dictionary=False, max_rows_per_page=10_000, compression="none"
    )
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    sizes = page_sizes(path, chunk)
    assert sizes.dictionary_nbytes == 0
    # a page may end some rows later, and has a few bytes that mark missing values
    assert 80_000 <= sizes.page_nbytes <= 90_000
    assert sizes.stored_nbytes == sizes.page_nbytes
    parquet.write_table(values, path, dictionary_pagesize_limit=1 << 19)
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    assert 1 << 19 <= page_sizes(path, chunk).dictionary_nbytes <= 1 << 20


def test_small_pages_without_a_dictionary_need_little_memory(tmp_path):
    needed = []
    for use_dictionary in (True, False):
        path = tmp_path / f"{use_dictionary}.parquet"
        parquet.write_table(TABLE, path, row_group_size=N, use_dictionary=use_dictionary)
        plan = streamreg.plan(streamreg.read_table(path, target="y"), n_threads=1)
        needed.append(plan.candidates["closed_form"].needed_nbytes)
    assert needed[1] < needed[0]
