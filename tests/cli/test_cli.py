"""The command line: its output, its exit codes and its files."""

import inspect
import io
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import statsmodels.api as sm
import zarr
from programs import run

import streamreg
from streamreg.cli import show
from streamreg.cli.cluster import connect
from streamreg.cli.fit import fit
from streamreg.cli.table_options import COLUMNS, FORMAT
from streamreg.cluster.scheduler import given_up
from streamreg.errors import InputError, MemoryLimitError


def run_in_process(*arguments, cwd, env=None):
    """Run the program as a user does, in a process of its own."""
    command = [sys.executable, "-m", "streamreg", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 3))
    y = X @ [1.0, -2.0, 0.5] + 4 + 0.1 * rng.standard_normal(1000)
    rows = [",".join(map(repr, [*x.tolist(), t])) for x, t in zip(X, y.tolist(), strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,c,t", *rows]))
    np.save(tmp_path / "rows.npy", np.column_stack([X, y]))
    return tmp_path


@pytest.fixture
def ingested(folder):
    done = run("ingest", "table.csv", "table.zarr", "--target", "t", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def expected_weights(folder):
    rows = np.load(folder / "rows.npy")
    X = np.column_stack([rows[:, :3], np.ones(len(rows))])
    return np.linalg.lstsq(X, rows[:, 3], rcond=None)[0]


@pytest.mark.parametrize("solver", ["closed_form", "cg", "gd", "auto"])
def test_fit_writes_the_least_squares_weights(solver, ingested):
    options = ["--solver", solver, "--tol", "1e-12", "--out", "model.json", "--json"]
    done = run("fit", "table.zarr", *options, cwd=ingested)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    found = [*document["coef"], document["intercept"]]
    # gd stops by its loss: half the digits of the weights
    np.testing.assert_allclose(found, expected_weights(ingested), rtol=1e-5)
    model = streamreg.load(ingested / "model.json")
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.coef_.tolist() == document["coef"]


def by_statsmodels(folder, **how):
    rows = np.load(folder / "rows.npy")
    return sm.OLS(rows[:, 3], sm.add_constant(rows[:, :3])).fit(**how)


@pytest.mark.parametrize("solver", ["closed_form", "qr", "auto"])
def test_fit_prints_standard_errors(solver, ingested):
    done = run("fit", "table.zarr", "--cov-type", "HC1", "--solver", solver, cwd=ingested)
    assert done.returncode == 0, done.stderr
    expected = by_statsmodels(ingested, cov_type="HC1")
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    for j, term in enumerate(["const", "a", "b", "c"]):
        columns = [expected.params[j], expected.bse[j], expected.tvalues[j]]
        np.testing.assert_allclose([float(x) for x in lines[term][1:4]], columns, atol=6e-4)
        interval = [float(x) for x in lines[term][-2:]]
        np.testing.assert_allclose(interval, expected.conf_int()[j], atol=1e-4)
    assert "Covariance Type:" in done.stdout
    assert "n/(n - k)" in done.stdout


def test_json_holds_all_figures_of_clusters(ingested):
    groups = np.arange(1000) % 31
    zarr.create_array(ingested / "g.zarr", data=groups, chunks=(300,))
    options = ["--cov-type", "cluster", "--groups", "g.zarr", "--json", "--out", "model.json"]
    done = run("fit", "table.zarr", *options, cwd=ingested)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["inference"]
    expected = by_statsmodels(ingested, cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    for name in ("bse", "tvalues", "pvalues", "conf_int", "fvalue", "rsquared", "llf", "aic"):
        value = getattr(expected, name)
        value = value() if callable(value) else value
        np.testing.assert_allclose(found[name][0], value, rtol=1e-8, err_msg=name)
    assert (found["nobs"], found["n_groups"], found["df_t"]) == (1000, 31, 30)
    assert found["terms"] == ["const", "a", "b", "c"]
    assert streamreg.load(ingested / "model.json").bse_.tolist() == found["bse"][0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cov-type", "HC9"], "choose 'nonrobust'"),
        (["--cov-type", "cluster"], "--cov-type cluster needs --groups"),
        (["--cov-type", "HC1", "--l2", "1"], "pass --l2 0.0"),
        (["--cov-type", "HC1", "--solver", "gd"], "pass --solver qr"),
    ],
)
def test_what_standard_errors_need_is_said_in_options(options, says, ingested):
    done = run("fit", "table.zarr", *options, cwd=ingested)
    assert done.returncode == 2
    assert says in done.stderr


def test_predict_and_score_follow_the_model(ingested):
    run("fit", "table.zarr", "--out", "model.npz", cwd=ingested)
    done = run("predict", "table.zarr", "--model", "model.npz", "--out", "yhat.zarr", cwd=ingested)
    assert done.returncode == 0, done.stderr
    rows = np.load(ingested / "rows.npy")
    w = expected_weights(ingested)
    expected = rows[:, :3] @ w[:3] + w[3]
    predicted = zarr.open_array(ingested / "yhat.zarr", mode="r")[:]
    np.testing.assert_allclose(predicted, expected, rtol=1e-9)
    done = run("score", "table.zarr", "--model", "model.npz", "--json", cwd=ingested)
    spread = np.sum((rows[:, 3] - rows[:, 3].mean()) ** 2)
    r2 = 1 - np.sum((rows[:, 3] - expected) ** 2) / spread
    assert json.loads(done.stdout)["r2"] == pytest.approx(r2, abs=1e-12)


def test_nan_becomes_null_in_json(ingested):
    run("fit", "table.zarr", "--out", "model.json", cwd=ingested)
    zarr.open_array(ingested / "table.zarr" / "y")[:] = 7.0
    done = run("score", "table.zarr", "--model", "model.json", "--json", cwd=ingested)
    found = json.loads(done.stdout)
    assert found.pop("rmse_by_target")[0] > 0
    n_rows = found.pop("n_rows")
    assert found == {
        "r2": None,
        "r2_by_target": [None],
        "pearson_r_by_target": [None],
        "rows_omitted": 0,
    }
    assert n_rows > 0
    assert "R² is not defined where y is constant" in done.stderr


def test_x_and_y_can_be_given_apart(ingested):
    done = run("fit", "--x", "table.zarr/X", "--y", "table.zarr/y", "--json", cwd=ingested)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["converged"]


def test_info_shows_chunks_and_checksums(ingested):
    done = run("info", "table.zarr", "--json", cwd=ingested)
    arrays = json.loads(done.stdout)["arrays"]
    assert [array["shape"] for array in arrays] == [[1000, 3], [1000]]
    assert [array["checksum"] for array in arrays] == ["yes", "yes"]
    assert "a, b, c" in run("info", "table.zarr", cwd=ingested).stdout


def test_info_shows_attributes_and_commands_decode_by_them(folder):
    group = zarr.open_group(folder / "packed.zarr", mode="w")
    stored = np.random.default_rng(0).integers(0, 1000, (200, 2), "i2")
    group.create_array("X", data=stored, chunks=(50, 2))
    group.create_array("y", data=stored @ [0.01, 0.02] + 3.0, chunks=(200,))
    group["X"].attrs.update({"scale_factor": 0.01, "_FillValue": -1, "units": "K"})
    shown = run("info", "packed.zarr", cwd=folder).stdout
    assert "attributes of packed.zarr/X: scale_factor = 0.01, _FillValue = -1, units = K" in shown
    assert "float64 from int16" in shown
    document = json.loads(run("info", "packed.zarr", "--json", cwd=folder).stdout)
    assert document["arrays"][0]["attributes"]["scale_factor"] == 0.01
    run("fit", "packed.zarr", "--out", "packed.json", cwd=folder)
    np.testing.assert_allclose(streamreg.load(folder / "packed.json").coef_, [1, 2])
    run("fit", "packed.zarr", "--no-decode-cf", "--out", "stored.json", cwd=folder)
    np.testing.assert_allclose(streamreg.load(folder / "stored.json").coef_, [0.01, 0.02])
    scored = run("score", "packed.zarr", "--model", "packed.json", cwd=folder)
    assert scored.stdout.splitlines()[0] == "R² 1"
    assert scored.stdout.splitlines()[2] == "Pearson r 1"


def test_info_advises_on_a_bad_layout(folder):
    zarr.create_array(
        folder / "X.zarr", shape=(1000, 50), chunks=(10, 5), dtype="f8", compressors=None
    )
    advice = run("info", "--x", "X.zarr", cwd=folder).stdout
    assert "no checksum" in advice
    assert "10 chunks are side by side" in advice


def test_plan_is_one_json_document(ingested):
    document = json.loads(run("plan", "table.zarr", "--json", cwd=ingested).stdout)
    assert document["chosen"] == "closed_form"
    assert set(document["candidates"]) == {"closed_form", "qr", "dual", "gd", "cg"}


OPTIONS = [
    *("--solver", "gd"),
    "--no-fit-intercept",
    *("--l2", "0.1"),
    "--no-standardize",
    *("--learning-rate", "0.1"),
    *("--max-epochs", "7"),
    *("--tol", "1e-3"),
    *("--init", "random"),
    *("--random-state", "3"),
    *("--memory-limit", "512 MiB"),
    *("--n-threads", "1"),
    *("--missing-chunks", "fill"),
    *("--nan-policy", "omit"),
    "--no-progress",
]


def test_plan_takes_the_options_of_a_fit(ingested):
    fitted = run("fit", "table.zarr", *OPTIONS, "--json", cwd=ingested)
    assert fitted.returncode in {0, 4}, fitted.stderr
    planned = run("plan", "table.zarr", *OPTIONS, "--json", cwd=ingested)
    assert planned.returncode == 0, planned.stderr
    plan, fit = json.loads(planned.stdout), json.loads(fitted.stdout)
    assert (plan["chosen"], plan["memory_limit"]) == ("gd", 512 * 2**20)
    assert plan["candidates"]["gd"]["peak_nbytes"] == fit["planned_peak"]
    assert fit["intercept"] == 0


def test_a_fit_that_two_solvers_ran_shows_the_larger_plan(tmp_path):
    X = np.random.default_rng(0).standard_normal((1000, 4))
    # too nearly dependent for XᵀX
    group = zarr.create_group(tmp_path / "table.zarr")
    X[:, 3] = X[:, 0] + 1e-9 * X[:, 3]
    group.create_array("X", data=X)
    group.create_array("y", data=X.sum(axis=1))
    fit = json.loads(run("fit", "table.zarr", "--json", cwd=tmp_path).stdout)
    plan = json.loads(run("plan", "table.zarr", "--json", cwd=tmp_path).stdout)
    assert (plan["chosen"], fit["solver"]) == ("closed_form", "qr")
    peaks = [plan["candidates"][name]["peak_nbytes"] for name in ("closed_form", "qr")]
    assert fit["planned_peak"] == max(peaks) == peaks[1]


def test_every_parameter_of_the_estimator_is_an_option():
    options = set(inspect.signature(fit).parameters)
    parameters = set(streamreg.LinearRegressionCV().get_params())
    assert set(streamreg.LinearRegression().get_params()) <= parameters
    tables = {*COLUMNS, *FORMAT}
    own = {"data", "x", "y", "sample_weight", "groups", "out", "overwrite", "json"}
    assert options - parameters == own | tables
    assert tables <= set(inspect.signature(streamreg.read_table).parameters)
    assert parameters <= options


def test_a_model_over_its_checkpoint_is_refused(ingested):
    out = f"../{ingested.name}/a.json"
    done = run("fit", "table.zarr", "--checkpoint", "a.json", "--out", out, cwd=ingested)
    assert done.returncode == 2
    assert "--out and --checkpoint are both" in done.stderr


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_a_missing_gpu_is_one_sentence_with_a_remedy(command, ingested):
    # either CuPy is missing, or it finds no device
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = run_in_process(command, "table.zarr", "--device", "cuda", cwd=ingested, env=hidden)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--device cuda" in done.stderr
    assert "or pass --device cpu" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_error_and_its_notes_are_sentences_with_one_full_stop_each():
    error = given_up("an answer", "The client is closing.")
    error.add_note("A note")
    assert ": The client is closing. Repair the cluster" in str(error)
    assert show.text_of(error) == f"{error}. A note"
    ended = MemoryLimitError("Raise it.")
    assert show.text_of(ended) == "Raise it."
    ended.add_note("A note")
    assert show.text_of(ended) == "Raise it. A note"


def test_help_is_shown_in_an_encoding_that_lacks_its_marks(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run_in_process("fit", "--help", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "when ||" in done.stdout


def test_marks_that_the_encoding_of_the_output_lacks_are_replaced(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", output)
    show.write_in_any_encoding()
    show.write("größe ²: 2 → 1 ─ 3 × 4 … ᵀ")  # noqa: RUF001
    output.flush()
    assert output.buffer.getvalue().decode("latin-1") == "größe ²: 2 -> 1 - 3 × 4 ... ?\n"  # noqa: RUF001


@pytest.mark.parametrize("command", ["demo", "ingest", "info", "predict", "score"])
def test_help_names_no_scheduler_where_there_is_no_such_option(command, tmp_path):
    assert "--scheduler" not in run(command, "--help", cwd=tmp_path).stdout


def test_an_address_of_no_kind_is_refused_in_a_sentence(ingested):
    done = run("fit", "table.zarr", "--scheduler", "nonsense://x", cwd=ingested)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--scheduler nonsense://x begins with none of " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["foo", "tcp://localhost", "tcp://localhost:port"])
def test_an_address_without_a_port_is_refused_at_once(address, ingested):
    done = run("fit", "table.zarr", "--scheduler", address, cwd=ingested)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--scheduler {address} has no port" in done.stderr
    assert done.stderr.endswith("write tcp://HOST:PORT\n")


@pytest.mark.parametrize("is_open", [False, True], ids=["closed port", "no Dask"])
def test_where_no_scheduler_answers_the_program_ends_without_a_traceback(is_open, ingested):
    program = "import sys; from streamreg.cli.cluster import connect; connect(sys.argv[1], 0.5)"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_open:
            server.listen()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-c", program, address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    *_, last = done.stderr.splitlines()
    assert last.endswith("Is `dask scheduler` running at that address?")


def test_a_scheduler_that_does_not_answer_is_refused_in_a_sentence():
    address = "tcp://127.0.0.1:1"
    with pytest.raises(
        InputError,
        match=f"--scheduler {address} does not answer as a Dask scheduler within 0.1 s",
    ):
        connect(address, seconds=0.1)


def test_a_fit_resumes_from_its_checkpoint(ingested):
    arguments = ["fit", "table.zarr", "--solver", "cg", "--json"]
    plain = json.loads(run(*arguments, cwd=ingested).stdout)
    for _ in range(2):
        saved = json.loads(run(*arguments, "--checkpoint", "state", cwd=ingested).stdout)
        assert saved["coef"] == plain["coef"]
    refused = run(*arguments, "--checkpoint", "state", "--l2", "1", cwd=ingested)
    assert refused.returncode == 2
    assert ": --l2 was 0.0 and is 1.0" in refused.stderr


@pytest.mark.parametrize("command", ["fit", "plan", "score", "predict"])
@pytest.mark.parametrize("option", ["--missing-chunks", "--nan-policy"])
def test_an_unknown_choice_is_answered_with_the_known_ones(command, option, folder):
    needed = [] if command in {"fit", "plan"} else ["--model", "m.json"]
    needed += ["--out", "o.zarr"] if command == "predict" else []
    done = run(command, "table.zarr", *needed, option, "drop", cwd=folder)
    assert done.returncode == 2
    for word in ("drop", option, "'error'" if option == "--missing-chunks" else "'omit'"):
        assert word in done.stderr


def test_predictions_of_rows_with_nan_are_nan(ingested):
    run("fit", "table.zarr", "--out", "model.json", cwd=ingested)
    X = zarr.open_array(ingested / "table.zarr" / "X")
    X[3, 1] = np.nan
    arguments = ["predict", "table.zarr", "--model", "model.json", "--out", "yhat.zarr"]
    refused = run(*arguments, cwd=ingested)
    assert (refused.returncode, "NaN in row 3, column 1" in refused.stderr) == (2, True)
    done = run(*arguments, "--nan-policy", "omit", cwd=ingested)
    assert done.returncode == 0, done.stderr
    made = zarr.open_array(ingested / "yhat.zarr", mode="r")[:]
    assert np.flatnonzero(np.isnan(made)).tolist() == [3]


@pytest.mark.parametrize("flag", [[], ["--no-progress"]])
def test_progress_is_printed_as_lines_on_standard_error(flag, folder):
    commands = {
        "ingest": ["ingest", "table.csv", "table.zarr", "--target", "t"],
        "fit": ["fit", "table.zarr", "--out", "model.json"],
        "predict": ["predict", "table.zarr", "--model", "model.json", "--out", "yhat.zarr"],
        "score": ["score", "table.zarr", "--model", "model.json"],
    }
    for name, command in commands.items():
        done = run(*command, *flag, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        line = f"{name} epoch 1  " if name == "fit" else f"{name} 1,000 of 1,000 rows  "
        assert done.stderr.startswith("" if flag else line)
        assert len(done.stderr.splitlines()) == (0 if flag else 1)


def wide(folder):
    zarr.create_array(folder / "X.zarr", shape=(20_000, 100_000), chunks=(8, 100_000), dtype="f8")
    zarr.create_array(folder / "y.zarr", shape=(20_000,), dtype="f8")
    return ["--x", "X.zarr", "--y", "y.zarr", "--memory-limit", "2 GiB"]


def unconverged(folder):
    return ["table.zarr", "--solver", "gd", "--max-epochs", "1", "--out", "model.json"]


def divergent(folder):
    return ["table.zarr", "--solver", "gd", "--learning-rate", "50"]


def damaged(folder):
    chunk = next(path for path in (folder / "table.zarr/X/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    return ["table.zarr"]


def absent(folder):
    next(path for path in (folder / "table.zarr/X/c").rglob("*") if path.is_file()).unlink()
    return ["table.zarr"]


def not_there(folder):
    return ["nowhere.zarr"]


def unknown_solver(folder):
    return ["table.zarr", "--solver", "newton"]


def unknown_option(folder):
    return ["table.zarr", "--no-such-option"]


def named_twice(folder):
    return ["table.zarr", "--x", "table.zarr/X"]


def exists(folder):
    (folder / "model.json").write_text("mine")
    return ["table.zarr", "--out", "model.json"]


@pytest.mark.parametrize(
    ("case", "code", "says"),
    [
        (wide, 3, "74.5 GiB"),
        (unconverged, 4, "did not converge"),
        (divergent, 5, "largest stable"),
        (damaged, 6, "c/0/0"),
        (absent, 6, "missing"),
        (not_there, 2, "nowhere.zarr"),
        (unknown_solver, 2, "'closed_form'"),
        (unknown_option, 2, "--no-such-option"),
        (named_twice, 2, "once"),
        (exists, 2, "--overwrite"),
    ],
)
def test_exit_code_and_message_say_what_happened(case, code, says, ingested):
    options = case(ingested)
    if case is wide:
        options += ["--solver", "closed_form"]
    done = run("fit", *options, cwd=ingested)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_over_its_limit_is_shown_once(folder):
    done = run("plan", *wide(folder), "--solver", "closed_form", cwd=folder)
    assert (done.returncode, "closed_form needs" in done.stdout) == (3, False)
    assert done.stdout.startswith("N = 20,000, D = 100,000, memory limit 2.0 GiB\n")
    assert "each pass reads 14.9 GiB" in done.stdout
    assert (
        len(re.findall(r"closed_form needs 74\.\d GiB but --memory-limit is 2\.0 GiB", done.stderr))
        == 1
    )


def test_one_row_is_counted_in_the_singular(folder):
    (folder / "one.csv").write_text("a,t\n1,2\n")
    done = run("ingest", "one.csv", "one.zarr", "--target", "t", cwd=folder)
    assert done.stdout == "one.zarr: 1 row, 1 feature, target t\n"


def test_debug_shows_the_traceback(ingested):
    done = run("fit", "nowhere.zarr", "--debug", cwd=ingested)
    assert (done.returncode, "Traceback" in done.stderr) == (2, True)


def test_an_unconverged_model_is_written_and_marked(ingested):
    run("fit", *unconverged(ingested), cwd=ingested)
    assert streamreg.load(ingested / "model.json").converged_ is False


def test_standard_output_is_free_of_messages(ingested):
    done = run_in_process("fit", "table.zarr", "--json", cwd=ingested)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "epoch 1" in done.stderr


def test_predictions_overwrite_only_with_the_option(ingested):
    run("fit", "table.zarr", "--out", "model.json", cwd=ingested)
    arguments = ["predict", "table.zarr", "--model", "model.json", "--out", "yhat.zarr"]
    assert run(*arguments, cwd=ingested).returncode == 0
    refused = run(*arguments, cwd=ingested)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert run(*arguments, "--overwrite", cwd=ingested).returncode == 0


def test_the_version_is_printed_even_if_the_environment_names_unknown_kernels():
    done = subprocess.run(
        [sys.executable, "-c", "from streamreg.cli import main; main()", "--version"],
        env={**os.environ, "STREAMREG_KERNELS": "bogus"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("streamreg ")
    assert "STREAMREG_KERNELS is 'bogus'" in done.stderr
    assert done.returncode == 2
