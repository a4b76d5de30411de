"""Work that finishes although its thread is interrupted."""

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from streamreg.signals import uninterrupted

# seconds after which a test that hangs fails
PATIENCE = 20


def test_an_interrupt_is_raised_once_the_work_has_ended():
    ended, interrupted = [], threading.Event()

    def interrupt(number, frame):
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def work():
        # repeated, because a signal just before a thread waits does not wake it
        for _ in range(10 * PATIENCE):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if interrupted.wait(0.1):
                break
        ended.append(True)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            uninterrupted(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]


def test_a_second_interrupt_does_not_end_the_work_early():
    ended, arrived = [], [threading.Event(), threading.Event()]

    def interrupt(number, frame):
        one = next((event for event in arrived if not event.is_set()), None)
        if one is not None:
            one.set()
            raise KeyboardInterrupt

    def work():
        for event in arrived:
            for _ in range(10 * PATIENCE):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                if event.wait(0.1):
                    break
        ended.append(all(event.is_set() for event in arrived))

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            uninterrupted(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]


def test_the_result_and_the_exception_of_the_work_are_passed_on():
    assert uninterrupted(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        uninterrupted(divmod, 7, 0)


def test_an_interrupt_while_pandas_is_imported_is_not_lost(tmp_path):
    # pyarrow imports pandas at its first conversion, and swallows what that import raises
    (tmp_path / "table.csv").write_text("a,y\n1,2\n")
    program = textwrap.dedent("""
        import os, signal, sys
        class Interrupt:
            def find_spec(self, name, path=None, target=None):
                if name == "pandas":
                    sys.meta_path.remove(self)
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupt())
        from streamreg.ingest.convert import ingest
        try:
            ingest("table.csv", "table.zarr", target=["y"])
        except KeyboardInterrupt:
            print("interrupted")
    """)
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert not (tmp_path / "table.zarr").exists()
