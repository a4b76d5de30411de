"""A fit of the demo in a process of its own, so that each is measured from the same start."""

from __future__ import annotations

import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, NamedTuple

from streamreg import fit as fitting
from streamreg.errors import Message, Remedy, StreamregError
from streamreg.progress import progress_of
from streamreg.signals import sigterm_as_exit
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.config import FitConfig
    from streamreg.model import Model


class Run(NamedTuple):
    """One solver's fit."""

    model: Model
    n_epochs: int
    seconds: float
    peak_nbytes: int
    planned_nbytes: int


def fit_in_process(path: Path, config: FitConfig, *, progress: bool) -> Run:
    """Fit a data set in a new process.

    Raises
    ------
    StreamregError, OSError
        What the fit raised, or that its process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            # the new process inherits the mask: Ctrl-C reaches this process only, which ends both
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            future = pool.submit(_fit, path, config, progress)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return future.result()
        except BrokenProcessPool as error:
            raise StreamregError(
                Message(
                    f"the process that fits by {config.solver} was killed, by the system if it was "
                    "out of memory; pass a lower ",
                    Remedy("memory_limit"),
                    ", or free memory",
                )
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _fit(path: Path, config: FitConfig, progress: bool) -> Run:
    began = time.perf_counter()
    # SystemExit, unlike SIGTERM itself, lets a bar show the cursor again
    with sigterm_as_exit():
        dataset = open_dataset(path)
        result = fitting.fit_dataset(dataset, config, progress_of(progress, f"   {config.solver}"))
    return Run(
        model=result.model(dataset),
        n_epochs=result.solution.n_epochs,
        seconds=time.perf_counter() - began,
        peak_nbytes=result.peak_nbytes,
        planned_nbytes=result.plan.candidates[result.plan.chosen].peak_nbytes,
    )
