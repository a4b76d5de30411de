"""Synthetic rows, computed as they are read, and an accumulator that counts its states."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.formatting import MIB
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.dataset import Dataset


class Rows(RowSource):
    """Synthetic rows in segments of eight blocks of 2 MiB."""

    def __init__(self, columns=64, on_read=None, n_segments=4):
        self.name = "X"
        self.dtype = np.dtype(np.float64)
        self.shape = (n_segments * 16 * MIB // (8 * columns), columns)
        self.grid = RowGrid(self.shape[0], 2 * MIB // (8 * columns))
        self.on_read = on_read or (lambda _: None)
        self.readers = []

    def values(self, start, stop):
        rows = np.ones((stop - start, self.shape[1]))
        rows[:, 0] = np.arange(start, stop)
        return rows

    def open(self):
        self.readers.append(_RowsReader(self))
        return self.readers[-1]

    def reader_nbytes(self, block_rows):
        return block_rows * self.row_nbytes


class _RowsReader(Reader):
    def __init__(self, source):
        self.source = source
        self.is_open = True

    def read(self, start, stop):
        self.source.on_read(start)
        return self.source.values(start, stop)

    def close(self):
        self.is_open = False


class SumState(NamedTuple):
    total: np.ndarray
    segments: list


class Sum(Accumulator[SumState, SumState]):
    """Sums the first column, and counts the states that exist."""

    def __init__(self, state_nbytes=8):
        self._nbytes = state_nbytes
        self._lock = threading.Lock()
        self.alive = self.most_alive = 0

    state_nbytes = property(lambda self: self._nbytes)
    scratch_nbytes = 0

    def zero(self):
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        return SumState(np.zeros(()), [])

    def update(self, state, block, _):
        state.total[...] += block.X[:, 0].sum()
        state.segments.append(block.start)
        return state

    def merge(self, a, b):
        with self._lock:
            self.alive -= 1
        a.total[...] += b.total
        a.segments.extend(b.segments)
        return a

    def finalize(self, state):
        return state

    def is_finite(self, _):
        return True


def only(source):
    return Dataset(source)
