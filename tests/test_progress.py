"""What running passes print."""

import math
import re
import threading

import pytest

from streamreg.progress import Bars, EpochCallback, Lines, Progress, progress_of
from streamreg.solvers.base import EpochRecord


def record(epoch):
    return EpochRecord(epoch, 1 / epoch, math.nan)


def printed(capsys):
    """Return the lines on standard error without their seconds."""
    lines = capsys.readouterr().err.splitlines()
    assert all(re.search(r"  \d+\.\d s$", line) for line in lines)
    return [line.rpartition("  ")[0] for line in lines]


def test_lines_follow_the_rows_of_a_pass(capsys):
    lines = Lines("predict", seconds_between=0)
    lines.begin_pass(3000)
    for _ in range(3):
        lines.rows(1000)
    lines.close()
    assert printed(capsys) == [
        "predict 1,000 of 3,000 rows",
        "predict 2,000 of 3,000 rows",
        "predict 3,000 of 3,000 rows",
    ]


def test_within_the_interval_only_the_last_line_is_printed(capsys):
    lines = Lines("predict", seconds_between=math.inf)
    lines.begin_pass(3000)
    for _ in range(3):
        lines.rows(1000)
    lines.close()
    lines.close()
    assert printed(capsys) == ["predict 3,000 of 3,000 rows"]


def test_lines_name_the_last_epoch(capsys):
    lines = Lines("fit", seconds_between=0)
    for epoch in (1, 2):
        lines.begin_pass(10)
        lines.rows(10)
        lines.epoch(record(epoch))
    lines.close()
    assert printed(capsys) == [
        "fit 10 of 10 rows",
        "fit epoch 1  loss 1  10 of 10 rows",
        "fit epoch 2  loss 0.5  10 of 10 rows",
    ]


def test_the_rows_of_a_pass_of_unknown_length_are_counted(capsys):
    lines = Lines("ingest")
    lines.begin_pass(None)
    lines.rows(1500)
    lines.close()
    assert printed(capsys) == ["ingest 1,500 rows"]


def test_work_that_is_refused_before_its_first_pass_prints_nothing(capsys):
    Lines("fit", seconds_between=0).close()
    Bars("fit").close()
    assert capsys.readouterr().err.strip() == ""


def test_rows_are_counted_from_several_threads(capsys):
    lines = Lines("fit", seconds_between=math.inf)
    lines.begin_pass(4000)
    threads = [
        threading.Thread(target=lambda: [lines.rows(1) for _ in range(1000)]) for _ in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.close()
    assert printed(capsys) == ["fit 4,000 of 4,000 rows"]


@pytest.mark.parametrize("n_rows", [10, None])
def test_a_bar_names_the_last_epoch(n_rows, capsys):
    bars = Bars("fit")
    bars.begin_pass(n_rows)
    bars.rows(10)
    bars.epoch(record(1))
    bars.close()
    assert "fit epoch 1  loss 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "terminal", "kind"),
    [
        (False, True, Progress),
        (True, False, Lines),
        (True, True, Bars),
        (print, True, EpochCallback),
    ],
)
def test_terminals_get_bars_and_files_get_lines(choice, terminal, kind, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert type(progress_of(choice, "fit")) is kind


def test_a_callable_gets_the_record_of_each_epoch():
    records = []
    progress = progress_of(records.append, "fit")
    progress.begin_pass(10)
    progress.rows(10)
    progress.epoch(record(1))
    progress.close()
    assert records == [record(1)]
