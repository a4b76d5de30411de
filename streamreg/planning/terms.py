"""What a fit needs, in bytes and seconds: the terms of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Term(NamedTuple):
    """One line of a plan: what takes the bytes, and how their number is computed."""

    what: str
    nbytes: int
    why: str


@dataclass(frozen=True)
class DeviceNeeds:
    """What a solver needs of a GPU's memory."""

    limit_nbytes: int  # what the fit may take of the device
    terms: tuple[Term, ...]
    buffer_nbytes: int  # each buffer on the device, for a block or a part of one
    n_slots: int  # blocks in transfer
    pinned_nbytes: int  # pinned memory of the host for each of these blocks
    n_cached: int  # blocks cached on the device between passes; the fit runs without them
    fits: bool

    @property
    def peak_nbytes(self) -> int:
        """Bytes of all terms together."""
        return peak(self.terms)


class Needs(NamedTuple):
    """What the passes of a solver keep in memory with some number of threads."""

    terms: tuple[Term, ...]
    kernels: str  # the name of the kernels that reduce the blocks
    uses_blas: bool = False  # BLAS computes the sums, so their last bits depend on the processor
    device: DeviceNeeds | None = None


@dataclass(frozen=True)
class Candidate:
    """What one solver needs."""

    solver: str
    objective: str  # what the solver minimises
    state_nbytes: int  # the largest state that a pass makes or keeps
    needed_nbytes: int  # the fit does not run with less
    cache_nbytes: int  # decoded blocks between passes, within the limit; the fit runs without them
    bytes_per_pass: int  # decoded bytes that a pass reads
    passes: int  # exact, or typical
    is_exact: bool  # whether ``passes`` is exact
    seconds: float  # a rough estimate of the time of the whole fit
    cost: float  # the same for one process of some threads: what "auto" compares
    fits: bool
    reason: str  # what the solver is good for; or the largest term, if it does not fit
    terms: tuple[Term, ...]
    n_threads: int  # threads that run passes: as many as fit, at least one
    kernels: str  # the name of the kernels that reduce the blocks
    uses_blas: bool = False  # BLAS computes the sums, so their last bits depend on the processor
    device: DeviceNeeds | None = None
    n_panels: int = 1  # in which the solver's state is computed, one pass each; or strips of X
    n_directions: int = 0  # of a preconditioner that memory beyond ``needed_nbytes`` buys
    directions_nbytes: int = 0  # what they take; the fit runs without them
    # what a preconditioner has, given or bought, and about what it saves, as a plan prints it
    preconditioner: str = ""
    preconditioner_nbytes: int = 0  # what it takes

    @property
    def peak_nbytes(self) -> int:
        """Bytes that the fit adds to the process at most, with the block cache."""
        return self.needed_nbytes + self.directions_nbytes + self.cache_nbytes


def peak(terms: Iterable[Term]) -> int:
    """Return the bytes of all terms together."""
    return sum(term.nbytes for term in terms)


def largest(terms: Iterable[Term]) -> Term:
    """Return the term that takes most."""
    return max(terms, key=lambda term: term.nbytes)
