"""A fit of the demo in a process of its own: what another has grown is not measured with it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from typing import TYPE_CHECKING

from streamreg import fit as fitting
from streamreg.cli.demo_checks import Run
from streamreg.errors import StreamregError
from streamreg.progress import progress_of
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import FrameType

    from streamreg.config import FitConfig


def fit_apart(path: Path, settings: FitConfig, *, progress: bool) -> Run:
    """Fit a data set in a new process.

    Raises
    ------
    StreamregError, OSError
        What the fit raised, or that its process was killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_fit, args=(sender, path, settings, progress), daemon=True)
    # inherited: Ctrl-C is for this process alone, which ends the other
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()
        result: Run | StreamregError | OSError = receiver.recv()
    except EOFError:
        process.join()
        raise StreamregError(
            f"the process that fits by {settings.solver} ended with code {process.exitcode}, -9 "
            "where the system was out of memory; pass a lower --memory-limit, or free memory"
        ) from None
    except BaseException:
        # gently, so that a bar gives the cursor back
        process.terminate()
        raise
    finally:
        process.join()
    if not isinstance(result, Run):
        raise result
    return result


def _fit(sender: Connection, path: Path, settings: FitConfig, progress: bool) -> None:
    signal.signal(signal.SIGTERM, _end)
    began = time.perf_counter()
    try:
        result = fitting.fit_dataset(
            dataset := open_dataset(path), settings, progress_of(progress, f"   {settings.solver}")
        )
    except (StreamregError, OSError) as error:
        sender.send(error)
        return
    seconds = time.perf_counter() - began
    planned = result.plan.candidates[result.plan.chosen].peak_nbytes
    sender.send(
        Run(result.model(dataset), result.solution.n_epochs, seconds, result.peak_nbytes, planned)
    )


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)
