"""The plan: arithmetic that is done before the first byte is read, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import zarr
from hypothesis import given
from hypothesis import strategies as st

import streamreg
from streamreg.config.fit_config import FitConfig
from streamreg.engines.partition import HOST
from streamreg.errors import InputError, MemoryLimitError
from streamreg.fitting.fit import fit_dataset
from streamreg.fitting.plan import plan_fit
from streamreg.formatting import GIB, KIB, MIB, format_nbytes
from streamreg.solvers.registry import SOLVERS
from streamreg.sources.base import RowGrid, RowSource
from streamreg.sources.dataset import Dataset
from streamreg.sources.open import open_dataset
from streamreg.validate import parse_nbytes

SIZE = r"[\d.]+ (?:bytes|[KMGTPE]iB)"
TIME = r"about [\d,]+ (?:s|min|h|days)"


class Unread(RowSource):
    """Rows of which nothing may be read."""

    def __init__(self, shape, dtype="float64", chunk_rows=None, name="X"):
        self.name = name
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.grid = RowGrid(shape[0], chunk_rows or shape[0], divisible=chunk_rows is None)

    def open(self):
        raise AssertionError(f"{self.name} was opened")

    def reader_nbytes(self, block_rows):
        return block_rows * self.row_nbytes


def unread(n, d, k=None, **kwargs):
    y = Unread((n,) if k is None else (n, k), name="y")
    return Dataset(Unread((n, d), **kwargs), y)


def plan(dataset, limit="2 GiB", **settings):
    return plan_fit(dataset, FitConfig.parse(memory_limit=limit, n_threads=2, **settings))


def refused(dataset, limit, **settings):
    with pytest.raises(MemoryLimitError) as caught:
        fit_dataset(dataset, FitConfig.parse(memory_limit=limit, n_threads=2, **settings))
    return str(caught.value)


def test_two_passes_cache_blocks_only_if_they_are_decoded_or_the_page_cache_cannot_hold_them():
    rows, chunked = unread(1_000_000, 100), unread(1_000_000, 100, chunk_rows=10_000)

    def cached(dataset, solver, limit="2 GiB"):
        return plan(dataset, limit, solver=solver).candidates[solver].cache_nbytes

    assert cached(rows, "qr") == 0
    assert cached(rows, "qr", "500 MiB") > 0
    assert cached(chunked, "qr") > 0
    assert cached(rows, "cg") > 0
    assert cached(rows, "closed_form") == 0


# what is refused


def test_the_closed_form_is_refused_before_reading_with_remedies_that_fit():
    wide = unread(20_000, 100_000)
    text = refused(wide, "2 GiB", solver="closed_form")
    assert text.startswith(
        "closed_form needs 74.7 GiB but memory_limit is 2.0 GiB "
        "(N = 20,000, D = 100,000; no data was read)\n"
    )
    assert re.search(r"\n  XᵀX +74\.5 GiB   100,000² × 8 bytes, 1 state\n", text)  # noqa: RUF001
    assert re.search(r"\n  blocks +[\d.]+ MiB   ", text)
    remedy = text.splitlines()[-1]
    raised, cg = re.fullmatch(
        rf'  Raise memory_limit to ({SIZE}), or use solver="cg": ({SIZE}), about 41 passes\.',
        remedy,
    ).groups()
    assert parse_nbytes(raised) < 75 * GIB
    assert plan(wide, raised, solver="closed_form").require_fit().solver == "closed_form"
    assert parse_nbytes(cg) < 128 * MIB
    # "2 GiB" is the limit under which it was offered
    assert plan(wide, "2 GiB", solver="cg").require_fit().solver == "cg"


def test_terms_add_up_to_what_is_needed():
    candidate = plan(unread(20_000, 100_000)).candidates["closed_form"]
    assert sum(term.nbytes for term in candidate.terms) == candidate.peak_nbytes
    assert candidate.state_nbytes == pytest.approx(8 * 100_000**2, rel=1e-3)


@pytest.mark.parametrize("solver", [*SOLVERS, "auto"])
@pytest.mark.parametrize("limit", ["1 byte", "1 MiB", "3 MiB"])
def test_a_limit_too_small_for_anything_names_the_least_that_works(solver, limit):
    dataset = unread(10_000, 1000)
    text = refused(dataset, limit, solver=solver)
    chosen = "cg" if solver == "auto" else solver
    given = limit.replace(" M", ".0 M")
    assert re.match(rf"{chosen} needs {SIZE} but memory_limit is {given} \(N = 10,000", text)
    raised = re.search(rf"Raise memory_limit to ({SIZE})", text)[1]
    assert plan(dataset, raised, solver=solver).require_fit().n_threads == 1
    if chosen in {"closed_form", "qr", "dual"}:
        raised, other = re.search(rf'or to ({SIZE}) with solver="(\w+)", the least', text).groups()
        assert plan(dataset, raised, solver=other).require_fit().n_threads == 1
    # a tenth of what is printed less, and nothing works
    less = parse_nbytes(raised) * 9 // 10
    assert not any(each.fits for each in plan(dataset, less).candidates.values())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("d", [1, 10, 700, 3000])
def test_every_remedy_really_works(solver, d, tmp_path):
    random = np.random.default_rng(0)
    X = random.standard_normal((max(2000, 2 * d) if d < 3000 else 500, d))
    y = X @ np.ones(d) + random.standard_normal(len(X))
    store = zarr.create_group(tmp_path / "data.zarr")
    store.create_array("X", data=X, chunks=(200, d))
    store.create_array("y", data=y)
    dataset = open_dataset(str(tmp_path / "data.zarr"))
    text = refused(dataset, 64 * KIB, solver=solver, max_epochs=2)
    raised = re.search(rf"Raise memory_limit to ({SIZE})", text)[1]
    settings = FitConfig.parse(solver=solver, memory_limit=raised, n_threads=2, max_epochs=2)
    result = fit_dataset(dataset, settings)
    assert result.plan.chosen == solver
    assert result.solution.coefficients.shape == (d, 1)


def test_what_was_raised_to_what_is_printed_fits_for_any_shape():
    @given(st.integers(1, 10**7), st.integers(1, 10**5), st.sampled_from([*SOLVERS]))
    def check(n, d, solver):
        text = refused(unread(n, d), 1, solver=solver)
        raised = re.search(rf"Raise memory_limit to ({SIZE})", text)[1]
        assert plan(unread(n, d), raised, solver=solver).require_fit()

    check()


def test_a_tall_chunk_that_does_not_fit_comes_with_the_code_that_cuts_it(tmp_path):
    random = np.random.default_rng(0)
    X = random.standard_normal((150_000, 40))
    y = X.sum(axis=1) + random.standard_normal(len(X))
    path = str(tmp_path / "X.zarr")
    # four chunks side by side, each of all rows: a block of rows needs all four, decoded
    array = zarr.create_array(path, shape=X.shape, dtype=X.dtype, chunks=(150_000, 10))
    array[:] = X
    limit = "40 MiB"
    text = refused(open_dataset(path, y), limit)
    assert "blocks" in text.splitlines()[1]
    head, _, code = text.partition("\n  Or rewrite ")
    assert re.search(rf"Raise memory_limit to {SIZE}", head)
    assert code.startswith(f"{path} in chunks of ")
    program = textwrap.dedent("\n".join(code.splitlines()[1:]))
    subprocess.run([sys.executable, "-c", program], check=True)
    rows = zarr.open_array(f"{path}-rows", mode="r")
    assert rows.chunks[0] < 30_000
    assert np.array_equal(rows[:], X)
    result = fit_dataset(
        open_dataset(f"{path}-rows", y), FitConfig.parse(memory_limit=limit, n_threads=2)
    )
    expected = np.linalg.lstsq(np.c_[X, np.ones(len(X))], y)[0]
    np.testing.assert_allclose(result.solution.coefficients[:, 0], expected[:-1], rtol=1e-9)


def test_no_rechunking_is_offered_where_chunks_are_not_to_blame():
    text = refused(unread(1000, 100_000, chunk_rows=1000), 1 * MIB, solver="cg")
    assert "rewrite" not in text


@pytest.mark.parametrize("order", ["C", "F"])
def test_no_rechunking_is_offered_for_a_mapped_file_which_has_no_chunks(tmp_path, order):
    X = np.asarray(np.random.default_rng(0).standard_normal((20_000, 6)), order=order)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    limit = "8 MiB" if order == "F" else "7 MiB"
    assert "rewrite" not in refused(open_dataset(mapped, X[:, 0].copy()), limit)


# not of dual, whose XXᵀ of 200,000 rows does not fit in any chunks
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "dual"])
def test_rechunking_is_offered_only_if_the_fit_then_fits(tmp_path, solver):
    zarr.create_array(tmp_path / "tall", shape=(200_000, 6), chunks=(200_000, 6), dtype="f8")
    y = Unread((200_000,), name="y")
    dataset = replace(open_dataset(str(tmp_path / "tall"), needs_y=False), y=y)
    offered = []
    for limit in range(12 * MIB, 40 * MIB, MIB // 4):
        planned = plan(dataset, limit, solver=solver)
        if not planned.advice:
            continue
        rows = int(re.search(r"chunks=\((\d+), 6\)", planned.advice)[1])
        path = tmp_path / f"{rows}"
        if not path.exists():
            zarr.create_array(path, shape=(200_000, 6), chunks=(rows, 6), dtype="f8")
        rewritten = replace(open_dataset(str(path), needs_y=False), y=y)
        assert plan(rewritten, limit, solver=solver).require_fit()
        offered.append(limit)
    assert offered


def test_the_advice_for_other_sources_names_the_height_of_chunks():
    text = refused(unread(10**6, 100, chunk_rows=10**6), 64 * MIB)
    rows = int(
        re.search(r"Or rewrite X in chunks of at most ([\d,]+) rows", text)[1].replace(",", "")
    )
    assert plan(unread(10**6, 100, chunk_rows=rows), 64 * MIB).require_fit()


# what is chosen


@pytest.mark.parametrize(("limit", "chosen"), [("2 GiB", "closed_form"), ("185 MiB", "cg")])
def test_auto_takes_the_closed_form_where_it_fits(limit, chosen):
    made = plan(unread(100_000, 5000), limit)
    assert made.chosen == chosen
    assert made.require_fit().solver == chosen


def test_a_refusal_of_auto_itemises_the_solver_that_needs_least():
    rng = np.random.default_rng(0)
    X, y = rng.random((500, 300)), np.broadcast_to(rng.random((500, 1)), (500, 5000))
    refused_plan = plan_fit(open_dataset(X, y), FitConfig.parse(memory_limit="14 MiB"))
    needed = {each.solver: each.needed_nbytes for each in refused_plan.candidates.values()}
    assert refused_plan.chosen == min(needed, key=needed.get) == "closed_form"
    with pytest.raises(MemoryLimitError, match=r"N = 500, D = 300, K = 5,000; no data"):
        refused_plan.require_fit()


def test_threads_are_given_up_before_a_fit_is_refused():
    tall = unread(10**7, 100, chunk_rows=100_000)
    most = plan_fit(tall, FitConfig.parse(solver="cg", memory_limit="4 GiB", n_threads=16))
    fewer = plan_fit(tall, FitConfig.parse(solver="cg", memory_limit="512 MiB", n_threads=16))
    assert most.candidates["cg"].n_threads == 16
    assert 1 <= fewer.require_fit().n_threads < 16
    assert fewer.candidates["cg"].peak_nbytes <= 512 * MIB


def test_a_small_fit_needs_little_however_many_processors_there_are():
    small = plan_fit(unread(10_000, 10), FitConfig.parse(memory_limit="1 GiB", n_threads=256))
    # XXᵀ of dual is as large as the rows are many
    others = {name: each for name, each in small.candidates.items() if name != "dual"}
    assert all(each.peak_nbytes < 16 * MIB for each in others.values())


@pytest.mark.parametrize("solver", SOLVERS)
def test_many_targets_are_counted(solver):
    one, many = (plan(unread(10_000, 1000, k), "8 GiB").candidates[solver] for k in (None, 100))
    assert many.peak_nbytes > one.peak_nbytes + 8 * 1000 * 100


def test_a_large_state_is_kept_once():
    assert HOST.n_segments(10**6, 10**12, 8 * 5000**2) == 1
    terms = {term.what: term for term in plan(unread(10**6, 5000)).candidates["closed_form"].terms}
    assert terms["XᵀX"].nbytes == pytest.approx(8 * 5000**2, rel=1e-2)
    assert "1 state" in terms["XᵀX"].why


# limits and sizes


@pytest.mark.parametrize("limit", ["4 GBB", "", -1, 0, "lots", True, 1.5])
def test_a_limit_that_is_no_size_is_an_input_error(limit):
    with pytest.raises(InputError, match="memory_limit="):
        plan(unread(10, 2), limit)


def test_half_of_what_is_free_is_the_usual_limit(monkeypatch):
    monkeypatch.setattr("streamreg.machine.available_nbytes", lambda: 3 * GIB)
    assert plan_fit(unread(10, 2), FitConfig.parse()).memory_limit == 3 * GIB // 2


@pytest.mark.parametrize("d", [10, 100_000])
def test_a_petabyte_is_planned_at_once_and_its_bytes_are_printed(d):
    def calls_to_plan(n_rows):
        calls = []
        sys.setprofile(lambda _, event, __: calls.append(event))
        try:
            made = plan(unread(n_rows, d), "512 MiB", solver="cg")
            text = str(made)
        finally:
            sys.setprofile(None)
        return len(calls), made, text

    few, *_ = calls_to_plan(10**9)
    many, made, text = calls_to_plan(10**15)
    # nothing is done once a row, or once a block
    assert many <= 2 * few
    assert made.candidates["cg"].bytes_per_pass == 10**15 * 8 * (d + 1)
    assert ("78.2 PiB" if d == 10 else "693.9 EiB") in text
    assert "N = 1,000,000,000,000,000" in text
    made.require_fit()


def test_numbers_never_overflow():
    made = plan(unread(10**15, 10**12), 10**40)
    assert made.candidates["closed_form"].state_nbytes > 8 * 10**24
    assert made.candidates["closed_form"].fits
    assert json.loads(json.dumps(made.to_dict()))["memory_limit"] == 10**40


# what is printed


@pytest.mark.parametrize(
    ("n", "d", "limit"),
    [(20_000, 100_000, "2 GiB"), (10**6, 99_999, "512 MiB"), (100, 3, "16 GiB"), (5, 2, "1 KiB")],
)
def test_the_table_has_one_row_a_solver_and_80_columns(n, d, limit):
    made = plan(unread(n, d), limit)
    table = str(made).partition("\n\nclosed_form needs")[0]
    lines = table.splitlines()
    assert lines[0].startswith(f"N = {n:,}, D = {d:,}, memory limit ")
    assert lines[2].split() == [
        "solver",
        "state",
        "needs",
        "with",
        "cache",
        "passes",
        "time",
        "fits",
    ]
    assert [line.split()[0] for line in lines[4:9]] == list(SOLVERS)
    assert sum("←" in line for line in lines) == 1
    assert max(len(line) for line in str(made).splitlines()) <= 100
    assert max(len(line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_the_table_as_a_whole():
    # only sizes of the data are compared, because those of the process and of tiles are measured
    lines = str(plan(unread(20_000, 100_000), "2 GiB")).splitlines()
    assert re.match(rf"closed_form +74\.5 GiB +74\.7 GiB +74\.7 GiB +1 +{TIME} +no$", lines[4])
    assert re.match(rf"qr +74\.5 GiB +74\.\d GiB +74\.\d GiB +about 2 +{TIME} +no$", lines[5])
    # with the lowest panels
    assert re.match(rf"dual +{SIZE} +3\.\d GiB +3\.\d GiB +about 82 +{TIME} +no$", lines[6])
    assert re.match(rf"gd +{SIZE} +{SIZE} +2\.0 GiB +about 201 +{TIME} +yes$", lines[7])
    assert re.match(rf"cg ← +{SIZE} +{SIZE} +2\.0 GiB +about 41 +{TIME} +yes$", lines[8])
    assert lines[10:14] == [
        "each pass reads 14.9 GiB; times are rough estimates",
        "closed_form does not fit: XᵀX 74.5 GiB",
        "qr does not fit: R 74.5 GiB",
        "dual does not fit: XXᵀ 3.4 GiB",
    ]
    spends = rf"cg spends {SIZE} on \d+ directions, to need about \d+ epochs instead of 200$"
    assert re.match(spends, lines[14])
    assert re.match(rf"cg caches {SIZE} of decoded blocks, \d+% of the data$", lines[15])


def test_a_plan_shows_what_a_given_preconditioner_costs_and_saves():
    data = unread(20_000, 100_000)
    with_it, without = (plan(data, "2 GiB", solver="cg", precondition=k) for k in (32, None))
    nbytes = with_it.candidates["cg"].needed_nbytes - without.candidates["cg"].needed_nbytes
    assert nbytes > 16 * 32 * 100_000
    spends = (
        f"cg spends {format_nbytes(nbytes, up=True)} on 32 directions, to need about 101 epochs"
    )
    assert f"{spends} instead of 200\n" in str(with_it)
    assert "spends" not in str(without)


def test_a_plan_that_is_refused_prints_why():
    text = str(plan(unread(20_000, 100_000), "2 GiB", solver="closed_form"))
    assert "closed_form needs 74.7 GiB" in text
    assert 'use solver="cg"' in text


def test_a_plan_is_json():
    made = plan(unread(20_000, 100_000, 3), "2 GiB", solver="closed_form")
    back = json.loads(json.dumps(made.to_dict()))
    assert back["chosen"] == "closed_form"
    assert (back["n_rows"], back["n_features"], back["n_targets"]) == (20_000, 100_000, 3)
    assert back["memory_limit"] == 2 * GIB
    for name, candidate in made.candidates.items():
        printed = back["candidates"][name]
        for field in ("state_nbytes", "peak_nbytes", "bytes_per_pass", "passes", "fits", "reason"):
            assert printed[field] == getattr(candidate, field)
        assert printed["terms"][0].keys() == {"what", "nbytes", "why"}


def test_the_public_plan_reads_metadata_only(tmp_path):
    # the chunks are missing, so that reading any would fail
    group = zarr.create_group(tmp_path / "data.zarr")
    group.create_array("X", shape=(10_000, 50), dtype="float64", chunks=(1000, 50))
    group.create_array("y", shape=(10_000,), dtype="float64", chunks=(1000,))
    made = streamreg.plan(str(tmp_path / "data.zarr"), memory_limit="1 GiB")
    assert made.chosen == "closed_form"
    assert isinstance(made, streamreg.Plan)


@pytest.mark.parametrize("shape", [(30, 60), (30_000, 300)])
def test_auto_does_not_depend_on_threads(shape):
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array(shape, density=0.03, format="csr", rng=rng)
    plans = [
        streamreg.plan(X, np.ones(shape[0]), l2=0.01, n_threads=n) for n in (1, 2, 3, 4, 8, 16)
    ]
    assert len({plan.chosen for plan in plans}) == 1


def test_auto_chooses_by_estimated_time_where_both_solvers_fit():
    assert plan(unread(200_000, 200), "64 GiB").chosen == "closed_form"
    wide = plan(unread(200_000, 20_000), "64 GiB")
    assert all(each.fits for name, each in wide.candidates.items() if name != "dual")
    assert wide.chosen == "cg"
    # three epochs are too few for cg to converge
    assert plan(unread(200_000, 20_000), "64 GiB", max_epochs=3).chosen == "closed_form"


def test_the_estimated_time_is_in_the_table_in_words():
    table = str(plan(unread(10**9, 100), "1 GiB", solver="cg"))
    assert re.search(r"cg ←.* about \d+ h  yes", table), table


@pytest.mark.parametrize("cov_type", ["HC1", "HC3"])
def test_robust_errors_of_a_small_narrow_table_need_little(cov_type):
    # 80 kB of data, where tiles of 2 MiB would be 262,144 rows
    chosen = streamreg.plan(
        np.zeros((5000, 1)), np.zeros(5000), cov_type=cov_type, memory_limit="16 MiB"
    )
    assert chosen.candidates[chosen.chosen].fits
