"""What a fit needs, as terms of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# the term that a fit can do without
NUMBA = "Numba"


class Term(NamedTuple):
    """One line of a plan."""

    what: str
    nbytes: int
    why: str


@dataclass(frozen=True)
class DeviceNeeds:
    """What a solver would need of a GPU's memory.

    Attributes
    ----------
    limit_nbytes
        Bytes that the fit may take there.
    terms
        What it takes at most.
    buffer_nbytes, least_buffer_nbytes
        Of each buffer there, for a block or a part of one; and what holds a tile.
    n_slots, pinned_nbytes
        Blocks on their way, and the bytes of the host's memory for each.
    n_kept
        Blocks that stay on the device from one pass to the next; the fit runs without.
    fits
        Whether it fits the limit.
    """

    limit_nbytes: int
    terms: tuple[Term, ...]
    buffer_nbytes: int
    least_buffer_nbytes: int
    n_slots: int
    pinned_nbytes: int
    n_kept: int
    fits: bool

    @property
    def peak_nbytes(self) -> int:
        """Bytes of all terms together."""
        return sum(term.nbytes for term in self.terms)


@dataclass(frozen=True)
class Candidate:
    """What one solver would need.

    Attributes
    ----------
    solver
        Its name.
    state_nbytes
        Bytes of one state of its largest accumulator.
    peak_nbytes
        Bytes that the fit adds to the process at most.
    cache_nbytes
        Bytes of them that hold decoded blocks from one pass to the next; the fit runs without.
    bytes_per_pass
        Decoded bytes that a pass reads.
    passes
        Passes: exact for ``closed_form``, typical for the others.
    fits
        Whether the peak fits the limit.
    reason
        A sentence: why it fits or not.
    terms
        What the peak consists of.
    n_threads
        Threads that fold: as many as fit, at least one.
    device
        What it would need of a GPU, where that folds.
    """

    solver: str
    state_nbytes: int
    peak_nbytes: int
    bytes_per_pass: int
    passes: int
    fits: bool
    reason: str
    terms: tuple[Term, ...]
    n_threads: int
    cache_nbytes: int = 0
    device: DeviceNeeds | None = None

    @property
    def needed_nbytes(self) -> int:
        """Bytes without which the fit does not run."""
        return self.peak_nbytes - self.cache_nbytes

    @property
    def plain_nbytes(self) -> int:
        """Bytes without which the fit does not run, with NumPy's loops instead of Numba's."""
        return self.needed_nbytes - sum(term.nbytes for term in self.terms if term.what == NUMBA)
