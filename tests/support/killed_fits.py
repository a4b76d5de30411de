"""Fits that are killed at random moments and begun again until they end; run as a program.

Prints, as JSON, whether each came to the bits of a fit that nobody killed, how often it was
killed, and how many blocks were folded again for a kill: of all fits the largest average.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from multiprocessing import RawArray
from pathlib import Path

from streamreg import fit as fitting
from streamreg.checkpoint import file as checkpoint_file
from streamreg.config import FitConfig
from streamreg.engines.threads import ThreadsEngine
from streamreg.progress import Progress
from streamreg.sources.open import open_dataset


class _Count(Progress):
    """Counts blocks where a process that is killed does not take the number with it."""

    def __init__(self, total):
        self._total = total

    def rows(self, n_rows):
        del n_rows  # those of one block
        self._total[0] += 1


def run(path, settings, total, out):
    """Fit, and write what came of it."""
    dataset = open_dataset(path)
    solution = fitting.fit_dataset(dataset, settings, _Count(total)).solution
    bits = (solution.coefficients.tobytes() + solution.intercept.tobytes()).hex()
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps([bits, solution.n_epochs, solution.loss_history]))
    partial.replace(out)


def in_child(path, settings, total, out):
    """Begin a fit in a process of its own, with all modules loaded already."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run(path, settings, total, out)
        code = 0
    finally:
        os._exit(code)


def main(path, solver, n_fits, seed):
    folder, chance = Path(path).parent, random.Random(seed)
    # rows of earlier runs are reported too: here each call is a block that was reduced
    ThreadsEngine._report_rows_before = lambda *_: None
    checkpoint_file.INTERVAL_SECONDS, checkpoint_file._SHARE = 0.0, 0
    settings = FitConfig.parse(
        solver=solver, tol=1e-10, n_threads=1, memory_limit="1 GiB",
        checkpoint=folder / f"{solver}.ckpt",
    )  # fmt: skip
    out, total = folder / f"{solver}.json", RawArray("q", 1)
    began = time.monotonic()
    assert os.waitpid(in_child(path, settings, total, out), 0)[1] == 0
    seconds, n_blocks = time.monotonic() - began, total[0]
    undisturbed, results, kills, repeated = json.loads(out.read_text()), [], [], 0
    while len(results) < n_fits:
        for file in folder.glob(f"{solver}.*"):
            file.unlink()
        total[0] = n_kills = 0
        while not out.exists():
            pid = in_child(path, settings, total, out)
            time.sleep(chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            n_kills += os.WIFSIGNALED(status)
            assert os.WIFSIGNALED(status) or status == 0, status
        if not n_kills:
            # it was too fast this time
            seconds *= 0.7
            continue
        repeated = max(repeated, (total[0] - n_blocks) / n_kills)
        kills.append(n_kills)
        results.append(json.loads(out.read_text()) == undisturbed)
    print(json.dumps({"same": results, "kills": kills, "repeated": repeated, "n_blocks": n_blocks}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
