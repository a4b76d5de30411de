import pytest

from streamreg import progress
from streamreg.progress import Bars, EpochCallback, Lines, NoProgress, progress_of
from streamreg.solvers.base import EpochRecord


def record(epoch):
    return EpochRecord(epoch, 1 / epoch, float("nan"))


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_lines_of_rows_come_two_seconds_apart_and_at_the_end(clock, capsys):
    shown = Lines("predict")
    shown.begin_pass("predict", 4000)
    for clock.now in (1.0, 2.5, 3.0, 4.0):
        shown.rows(1000)
    shown.close()
    shown.close()
    assert lines(capsys) == [
        "predict 2,000 of 4,000 rows  2.5 s",
        "predict 4,000 of 4,000 rows  4.0 s",
    ]


def test_lines_of_epochs_are_not_joined_by_rows_but_in_a_long_pass(clock, capsys):
    shown = Lines("fit")
    for epoch, seconds in ((1, 0.5), (2, 0.5), (3, 3.0)):
        shown.begin_pass("Gradient", 10)
        clock.now += seconds
        shown.rows(10)
        shown.epoch(record(epoch))
    shown.close()
    assert lines(capsys) == [
        "fit epoch 1  loss 1  0.5 s",
        "fit 10 of 10 rows  4.0 s",
        "fit epoch 3  loss 0.333333  4.0 s",
    ]


def test_rows_of_a_pass_of_unknown_length_are_counted(clock, capsys):
    shown = Lines("ingest")
    shown.begin_pass("survey", None)
    shown.rows(1500)
    shown.close()
    assert lines(capsys) == ["ingest 1,500 rows  0.0 s"]


@pytest.mark.parametrize("n_rows", [10, None])
def test_bars_name_what_runs_and_the_epoch(n_rows, capsys):
    shown = Bars("fit")
    shown.begin_pass("Gradient", n_rows)
    shown.rows(10)
    shown.epoch(record(1))
    shown.close()
    assert "fit epoch 1  loss 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "terminal", "kind"),
    [
        (False, True, NoProgress),
        (True, False, Lines),
        (True, True, Bars),
        (print, True, EpochCallback),
    ],
)
def test_bars_are_for_terminals_and_lines_for_files(choice, terminal, kind, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert type(progress_of(choice, "fit")) is kind
