"""Fits that are killed at random moments and started again until they end; run as a program.

A process kills itself, after a random number of blocks or before a random one of its operations on
the disk. Both are counted, so the moments do not depend on the time that anything takes.

Prints, as JSON: whether each fit has the result of a fit that was never killed; the number of kills
between blocks, and during writes; the number of blocks that a kill causes to be read again (an
average for each fit, of which the largest is printed); and the number of blocks of all passes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from multiprocessing import RawArray
from pathlib import Path

import pytest
from disk_operations import announce

from streamreg.checkpoint import file as checkpoint_file
from streamreg.config.fit_config import FitConfig
from streamreg.engines.threads import ThreadsEngine
from streamreg.fitting import fit as fitting
from streamreg.progress import Progress
from streamreg.sources.open import open_dataset

BLOCK, WRITE = 0, 1


class Moments(Progress):
    """Counts blocks and writes, and kills the process at one of them.

    The counts are in shared memory, because the memory of a killed process is lost.
    """

    def __init__(self):
        self.counts = RawArray("q", 2)
        self._fatal = None

    def kill_at(self, kind, number):
        """Kill this process at the ``number``-th block or write from now on."""
        self._fatal = kind, self.counts[kind] + number

    def count(self, kind):
        self.counts[kind] += 1
        if self._fatal == (kind, self.counts[kind]):
            os.kill(os.getpid(), signal.SIGKILL)

    def rows(self, n_rows):
        del n_rows  # those of one block
        self.count(BLOCK)


def fitted(path, settings, moments):
    """Return the bits of a solution, and its history, as JSON."""
    with pytest.MonkeyPatch.context() as patch:
        announce(patch, lambda: moments.count(WRITE))
        solution = fitting.fit_dataset(open_dataset(path), settings, moments).solution
    bits = (solution.coefficients.tobytes() + solution.intercept.tobytes()).hex()
    return json.dumps([bits, solution.n_epochs, solution.loss_history])


def killed_at(kind, number, path, settings, moments, out):
    """Fit in a child process that is to be killed at a moment; return whether it was killed."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            moments.kill_at(kind, number)
            out.write_text(fitted(path, settings, moments))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0, status
    return os.WIFSIGNALED(status)


def main(path, solver, n_fits, seed):
    folder, chance = Path(path).parent, random.Random(seed)
    # a resumed fit reports the rows of earlier runs, but only blocks that are read must be counted
    ThreadsEngine._report_rows_before = lambda *_: None
    checkpoint_file.INTERVAL_SECONDS, checkpoint_file._LEAST_MULTIPLE = 0.0, 0
    settings = FitConfig.parse(
        solver=solver,
        tol=1e-10,
        n_threads=1,
        memory_limit="1 GiB",
        checkpoint=folder / f"{solver}.ckpt",
    )
    out, moments = folder / f"{solver}.json", Moments()
    # in this process, so that its children find all modules imported
    undisturbed = fitted(path, settings, moments)
    totals = tuple(moments.counts)
    same, kills, repeated = [], [0, 0], 0
    for fit in range(n_fits):
        for file in folder.glob(f"{solver}.*"):
            file.unlink()
        n_blocks, n_kills = moments.counts[BLOCK], 0
        while not out.exists():
            # the first runs of two fits are killed at moments of both kinds
            kind = chance.choice((BLOCK, WRITE)) if n_kills else fit % 2
            number = chance.randint(1, totals[kind])
            if killed_at(kind, number, path, settings, moments, out):
                n_kills += 1
                kills[kind] += 1
        n_blocks = moments.counts[BLOCK] - n_blocks
        repeated = max(repeated, (n_blocks - totals[BLOCK]) / n_kills)
        same.append(out.read_text() == undisturbed)
    print(
        json.dumps(
            {
                "same": same,
                "killed between blocks": kills[BLOCK],
                "killed while writing": kills[WRITE],
                "repeated": repeated,
                "n_blocks": totals[BLOCK],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
