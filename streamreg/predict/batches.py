"""Batches of targets: how many fit in memory at once, and how often X is then read.

K targets are taken in batches of equal width: the weights (D, k) of a batch are in memory while all
rows pass. All targets are one batch if they fit. Of more batches each reads X again, unless X is
held in memory; stored weights are read once, if a batch holds whole chunks of them.

To keep some rows in memory instead, and read all weights again for each part of the rows, takes as
many bytes: with M bytes of memory, (X / M) · weights = (weights / M) · X.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from streamreg.errors import MemoryLimitError, Message
from streamreg.formatting import count, format_nbytes
from streamreg.machine import memory_limit_or_default, usable_cpus
from streamreg.planning.memory_model import HOST_RATES
from streamreg.planning.plan import itemised
from streamreg.planning.terms import Term, peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamreg.config.fit_config import FitConfig
    from streamreg.sources.dataset import Dataset

# with more batches, reading would take far longer than the products
_MOST_BATCHES = 1024
# what a batch costs beside its products and reads: threads, readers and metadata. Measured with
# 1,000 batches: 20 ms each.
_BATCH_SECONDS = 0.02


@dataclass(frozen=True)
class Batches:
    """How the targets are divided, and with how many threads each batch is computed."""

    n_targets: int
    width: int  # targets of a batch; the last may have fewer
    n_threads: int
    holds_rows: bool  # whether X is read once, into memory
    weights_step: int  # targets in a chunk of stored weights; 0 if weights are in memory
    terms: tuple[Term, ...]

    def __iter__(self) -> Iterator[slice]:
        """Yield the targets of each batch."""
        for start in range(0, self.n_targets, self.width):
            yield slice(start, min(start + self.width, self.n_targets))

    @property
    def n_batches(self) -> int:
        """The number of batches."""
        return -(-self.n_targets // self.width)

    @property
    def summary(self) -> str:
        """A sentence for the user; empty if all targets are one batch."""
        if self.n_batches == 1:
            return ""
        reads = f"X is read {self.n_batches:,} times"
        if self.holds_rows:
            reads = "X is read once, and held in memory"
        if self.weights_step:
            step = self.weights_step
            n_chunks = sum(-(-each.stop // step) - each.start // step for each in self)
            n_reads = n_chunks / -(-self.n_targets // step)
            reads += ", and stored weights " + ("once" if n_reads == 1 else f"{n_reads:.3g} times")
        return (
            f"{count(self.n_targets, 'target')} in {self.n_batches:,} batches of {self.width:,}: "
            f"{reads}"
        )


class Costs(NamedTuple):
    """What batches of some width need."""

    # of a number of threads; ``True`` if X is held in memory
    terms: Callable[[int, bool], list[Term]]
    beside_nbytes: int = 0  # that each batch reads beside X and its weights


def plan_batches(
    what: str,
    dataset: Dataset,
    n_targets: int,
    costs_of: Callable[[int], Costs],
    config: FitConfig,
    *,
    divides: bool = True,
    step: int = 1,
    weights_step: int = 0,
    remedy: Callable[[int], Message | None] = lambda _: None,
) -> Batches:
    """Return the fastest batches that fit, by a rough estimate; reads metadata only.

    ``costs_of`` returns the costs of a width, which is a multiple of ``step`` if it is larger, so
    that a chunk of ``step`` targets is read once. If nothing fits, a ``MemoryLimitError`` itemises
    the least that works; ``remedy`` may offer something else that works with that limit.
    """
    limit = memory_limit_or_default(config.memory_limit)
    most_threads = config.n_threads or usable_cpus()
    may_hold = not (dataset.X.in_memory or dataset.X.is_sparse)
    n_values = dataset.n_rows * dataset.n_features * dataset.X.density
    flops = 2.0 * n_values * n_targets
    best: tuple[float, Batches] | None = None
    least: list[Term] = []
    for n_batches in _numbers(n_targets) if divides else [1]:
        width = -(-n_targets // n_batches)
        if 0 < step < width < n_targets:
            width = min(n_targets, -(-width // step) * step)
            n_batches = -(-n_targets // width)  # noqa: PLW2901
        costs = costs_of(width)
        needed = costs.terms(1, False)
        if not least or peak(needed) < peak(least):
            least = needed
        for holds in (False, True) if may_hold and n_batches > 1 else (False,):
            threads = _most_that_fit(most_threads, limit, lambda n: costs.terms(n, holds))  # noqa: B023
            if not threads:
                continue
            n_reads = 1 if holds else n_batches
            nbytes = n_reads * dataset.X.pass_nbytes + n_batches * costs.beside_nbytes
            seconds = flops / HOST_RATES.flops + nbytes / HOST_RATES.read_nbytes
            # each batch reads X from memory, and writes it as float64
            seconds += n_batches * 2 * 8 * n_values / HOST_RATES.memory_nbytes
            seconds = seconds / threads + n_batches * _BATCH_SECONDS
            if best is None or seconds < best[0]:
                terms = tuple(costs.terms(threads, holds))
                best = seconds, Batches(n_targets, width, threads, holds, weights_step, terms)
        # more batches read more
        if best is not None and best[1].n_threads == most_threads:
            break
    if best is not None:
        return best[1]
    offered = remedy(limit)
    remedies: Sequence[Message] = [] if offered is None else [offered]
    of_targets = f", K = {n_targets:,}" if n_targets > 1 else ""
    shape = f"N = {dataset.n_rows:,}, D = {dataset.n_features:,}{of_targets}; no data was read"
    raise MemoryLimitError(itemised(what, limit, shape, least, remedies))


def held_term(nbytes: int) -> Term:
    """Return the memory of X, if it is read once."""
    return Term("rows", nbytes, f"X, read once and held: {format_nbytes(nbytes)}")


def _numbers(n_targets: int) -> Iterator[int]:
    """Yield numbers of batches: 1, 2, 3, 4, 6, 8, 12, 16, … up to 1,024, or the targets."""
    number = 1
    while number <= min(n_targets, _MOST_BATCHES):
        yield number
        if number > 1 and number * 3 // 2 <= min(n_targets, _MOST_BATCHES):
            yield number * 3 // 2
        number *= 2


def _most_that_fit(most: int, limit: int, terms: Callable[[int], list[Term]]) -> int:
    """Return the most threads that fit, or 0."""
    return next((n for n in range(most, 0, -1) if peak(terms(n)) <= limit), 0)
