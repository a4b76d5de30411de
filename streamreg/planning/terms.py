"""What a fit needs, in bytes and seconds: the terms of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# the term that a fit can do without, with slower kernels
NUMBA = "Numba"


class Term(NamedTuple):
    """One line of a plan: what takes the bytes, and of what they consist."""

    what: str
    nbytes: int
    why: str


@dataclass(frozen=True)
class DeviceNeeds:
    """What a solver needs of a GPU's memory.

    Attributes
    ----------
    limit_nbytes
        Bytes that the fit may take of the device.
    buffer_nbytes
        Of each buffer on the device, for a block or a part of one.
    n_slots, pinned_nbytes
        Blocks in transfer, and the pinned host memory for each.
    n_kept
        Blocks that stay on the device between passes; the fit runs without.
    """

    limit_nbytes: int
    terms: tuple[Term, ...]
    buffer_nbytes: int
    n_slots: int
    pinned_nbytes: int
    n_kept: int
    fits: bool

    @property
    def peak_nbytes(self) -> int:
        """Bytes of all terms together."""
        return peak(self.terms)


class Needs(NamedTuple):
    """What the passes of a solver keep in memory with some number of threads."""

    terms: tuple[Term, ...]
    kernels: str  # the name of the kernels that reduce the blocks
    device: DeviceNeeds | None = None


@dataclass(frozen=True)
class Candidate:
    """What one solver needs.

    Attributes
    ----------
    state_nbytes
        Bytes of one state of its largest accumulator.
    needed_nbytes
        Bytes without which the fit does not run.
    cache_nbytes
        Bytes, within the limit, that hold decoded blocks between passes; the fit runs without.
    bytes_per_pass
        Decoded bytes that a pass reads.
    passes
        Passes: exact for a solver with an exact number of passes, else typical.
    is_exact
        Whether ``passes`` is exact.
    seconds
        A rough estimate of the time of the whole fit.
    reason
        A sentence: why it fits or not.
    n_threads
        Threads that run passes: as many as fit, at least one.
    kernels
        The name of the kernels that reduce the blocks.
    """

    solver: str
    state_nbytes: int
    needed_nbytes: int
    cache_nbytes: int
    bytes_per_pass: int
    passes: int
    is_exact: bool
    seconds: float
    fits: bool
    reason: str
    terms: tuple[Term, ...]
    n_threads: int
    kernels: str
    device: DeviceNeeds | None = None

    @property
    def peak_nbytes(self) -> int:
        """Bytes that the fit adds to the process at most, with the block cache."""
        return self.needed_nbytes + self.cache_nbytes

    @property
    def needed_without_numba_nbytes(self) -> int:
        """Bytes without which the fit does not run, with NumPy's kernels."""
        return self.needed_nbytes - sum(term.nbytes for term in self.terms if term.what == NUMBA)


def peak(terms: tuple[Term, ...] | list[Term]) -> int:
    """Return the bytes of all terms together."""
    return sum(term.nbytes for term in terms)
