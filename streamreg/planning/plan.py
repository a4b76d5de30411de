"""A plan: what each solver needs, as a table, as JSON, and as a refusal with remedies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from streamreg.errors import MemoryLimitError, Message, Remedy
from streamreg.formatting import count, format_nbytes, format_seconds
from streamreg.planning.terms import Candidate, DeviceNeeds, Term, peak

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADINGS = ("solver", "state", "needs", "with cache", "passes", "time", "fits")
# words are aligned to the left, and sizes to the right, so that they can be compared
_ALIGNMENT = "<>>>>><"


@dataclass(frozen=True)
class Plan:
    """What each solver needs, and which one is chosen; computed from metadata alone.

    Attributes
    ----------
    chosen
        The solver that a fit would run.
    memory_limit
        Bytes that a fit may add to the process.
    candidates
        The needs of each solver, by its name.
    n_rows, n_features, n_targets
        N, D and K.
    advice
        How to rechunk the data so that the solver fits; empty if other chunks would not help.
    fits_on_processor
        Whether the chosen solver fits without the GPU, if it does not fit with it.
    worker_nbytes
        Memory of the smallest worker of a cluster, if ``memory_limit`` is a share of it.
    was_read
        What a refusal says of the data that were read before it.
    remedies
        What a refusal offers beside other solvers and limits: each was planned, and fits.
    """

    chosen: str
    memory_limit: int
    candidates: dict[str, Candidate]
    n_rows: int
    n_features: int
    n_targets: int
    advice: str = ""
    fits_on_processor: bool = False
    worker_nbytes: int | None = None
    was_read: str = "no data was read"
    remedies: tuple[Message, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain numbers, texts, lists and dictionaries, as in JSON."""
        plan = asdict(self)
        del plan["was_read"], plan["remedies"]
        for name, candidate in plan["candidates"].items():
            candidate["peak_nbytes"] = self.candidates[name].peak_nbytes
            for needs in (candidate, candidate["device"] or {"terms": ()}):
                needs["terms"] = [term._asdict() for term in needs["terms"]]
        return plan

    def __str__(self) -> str:
        table = self.table()
        return table if self.candidates[self.chosen].fits else f"{table}\n\n{self._refusal()}"

    def table(self) -> str:
        """Return the plan as a table, with one row for each solver."""
        rows = [_HEADINGS, *(self._row(candidate) for candidate in self.candidates.values())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        cells = [f"{{:{side}{width}}}" for side, width in zip(_ALIGNMENT, widths, strict=True)]
        lines = ["  ".join(cells).format(*row).rstrip() for row in rows]
        lines.insert(1, "─" * max(len(line) for line in lines))
        chosen = self.candidates[self.chosen]
        title = f"{self._shape}, memory limit {format_nbytes(self.memory_limit)}"
        if self.worker_nbytes:
            title += f" for each worker (the smallest has {format_nbytes(self.worker_nbytes)})"
        reads = f"each pass reads {format_nbytes(chosen.bytes_per_pass)}"
        lines += [
            "",
            f"{reads if chosen.passes else 'no rows are read'}; times are rough estimates",
        ]
        lines += [
            f"{candidate.solver} does not fit: {candidate.reason}"
            for candidate in self.candidates.values()
            if not candidate.fits
        ]
        if chosen.device is not None:
            title += f", GPU memory limit {format_nbytes(chosen.device.limit_nbytes)}"
            taken = format_nbytes(chosen.device.peak_nbytes, up=True)
            blocks = count(chosen.device.n_cached, "block")
            lines.append(f"{chosen.solver} takes {taken} of the GPU and keeps {blocks} on it")
        if chosen.preconditioner:
            nbytes = format_nbytes(chosen.preconditioner_nbytes, up=True)
            lines.append(f"{chosen.solver} spends {nbytes} on {chosen.preconditioner}")
        if chosen.cache_nbytes:
            share = min(1.0, chosen.cache_nbytes / chosen.bytes_per_pass)
            cache = format_nbytes(chosen.cache_nbytes)
            lines.append(
                f"{chosen.solver} caches {cache} of decoded blocks, {share:.0%} of the data"
            )
        return "\n".join([title, "", *lines])

    def require_fit(self) -> Candidate:
        """Return the chosen candidate.

        Raises
        ------
        MemoryLimitError
            It does not fit; the message lists the terms, and remedies that were planned and fit.
        """
        candidate = self.candidates[self.chosen]
        if not candidate.fits:
            raise MemoryLimitError(self._refusal())
        return candidate

    def less_demanding(self, than: Candidate) -> Candidate | None:
        """Return the best solver of those that need less memory than another one."""
        needed = than.needed_nbytes
        others = [other for other in self._alternatives if other.needed_nbytes < needed]
        return _fewest_passes(others) if others else None

    @property
    def _shape(self) -> str:
        targets = f", K = {self.n_targets:,}" if self.n_targets > 1 else ""
        return f"N = {self.n_rows:,}, D = {self.n_features:,}{targets}"

    def _row(self, candidate: Candidate) -> tuple[str, ...]:
        mark = " ←" if candidate.solver == self.chosen else ""
        return (
            candidate.solver + mark,
            format_nbytes(candidate.state_nbytes),
            format_nbytes(candidate.needed_nbytes, up=True),
            format_nbytes(candidate.peak_nbytes, up=True),
            f"{'' if candidate.is_exact else 'about '}{candidate.passes:,}",
            format_seconds(candidate.seconds),
            "yes" if candidate.fits else "no",
        )

    @property
    def _alternatives(self) -> list[Candidate]:
        """The candidates that minimise the objective of the chosen one, which is among them."""
        objective = self.candidates[self.chosen].objective
        return [other for other in self.candidates.values() if other.objective == objective]

    def _refusal(self) -> Message:
        """Return what the chosen solver needs, term by term, and which remedies fit."""
        refused, limit = self.candidates[self.chosen], self.memory_limit
        if refused.device is not None and not refused.device.fits:
            return self._device_refusal(refused.device)
        others = [each for each in self._alternatives if each.device is None or each.device.fits]
        fitting = [each for each in others if each.fits]
        advice, remedies, larger_workers = "", [], ""
        if self.worker_nbytes:
            enough = -(-refused.needed_nbytes * self.worker_nbytes // limit)
            larger_workers = (
                f"Start workers with {format_nbytes(enough, up=True)} of memory or more"
            )
        if fitting:
            best = _fewest_passes(fitting)
            passes = "1 pass" if best.passes == 1 else f"about {best.passes:,} passes"
            cost = f"{format_nbytes(best.needed_nbytes, up=True)}, {passes}"
            remedies = [Message("use ", Remedy("solver", best.solver, cost=cost))]
        else:
            if self.advice:
                advice = "\n  Or " + self.advice.replace("\n", "\n  ")
            if not larger_workers:
                remedies = _least_limit(refused, others)
        remedies = [*self.remedies, *remedies]
        what, terms = refused.solver, refused.terms
        shape = f"{self._shape}; {self.was_read}"
        return itemised(what, limit, shape, terms, remedies, first=larger_workers) + advice

    def _device_refusal(self, device: DeviceNeeds) -> Message:
        """Return why the GPU is too small, if the host is not."""
        fitting = [other for other in self._alternatives if other.fits]
        remedies = []
        if fitting:
            remedies.append(Message("use ", Remedy("solver", _fewest_passes(fitting).solver)))
        if self.fits_on_processor:
            remedies.append(Message("pass ", Remedy("device", "cpu")))
        return itemised(
            f"{self.chosen} on the GPU",
            device.limit_nbytes,
            f"{self._shape}; {self.was_read}",
            device.terms,
            remedies,
            parameter="device_memory_limit",
        )


def itemised(
    what: str,
    limit: int,
    shape: str,
    terms: Sequence[Term],
    remedies: Sequence[Message],
    *,
    parameter: str = "memory_limit",
    first: str = "",
) -> Message:
    """Return the text of a ``MemoryLimitError``; each remedy in it was planned, and fits."""
    enough = format_nbytes(peak(terms), up=True)
    width = max(len(term.what) for term in terms)
    items = [
        f"  {term.what:<{width}}  {format_nbytes(term.nbytes):>10}   {term.why}\n"
        for term in sorted(terms, key=lambda term: -term.nbytes)
        if term.nbytes
    ]
    raised = Message("Raise ", Remedy(parameter), f" to {enough}")
    others = [part for remedy in remedies for part in (", or ", remedy)]
    return Message(
        f"{what} needs {enough} but ",
        Remedy(parameter),
        f" is {format_nbytes(limit)} ({shape})\n",
        *items,
        "  ",
        first or raised,
        *others,
        ".",
    )


def _least_limit(refused: Candidate, candidates: Sequence[Candidate]) -> list[Message]:
    """Return the limit that the least demanding solver needs, unless its text is the same."""
    least = min(candidates, key=lambda other: (other.needed_nbytes, other.passes))
    limit = format_nbytes(least.needed_nbytes, up=True)
    if limit == format_nbytes(refused.needed_nbytes, up=True):
        return []
    solver = Remedy("solver", least.solver)
    return [Message(f"to {limit} with ", solver, ", the least that works")]


def _fewest_passes(candidates: Sequence[Candidate]) -> Candidate:
    # if two have equally few passes, the last one, because cg converges where gd does not
    return min(reversed(candidates), key=lambda other: other.passes)
