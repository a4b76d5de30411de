"""A plan: what each solver would need, as a table, as JSON, and as a refusal with remedies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from streamreg.errors import MemoryLimitError
from streamreg.formatting import count, format_nbytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.planning.terms import Candidate, DeviceNeeds, Term

_HEADINGS = ("solver", "state", "peak", "a pass reads", "passes", "fits")


@dataclass(frozen=True)
class Plan:
    """What each solver would need, and which one is chosen; worked out from metadata alone.

    Attributes
    ----------
    chosen
        The solver that a fit would run.
    memory_limit
        Bytes that a fit may add to the process.
    candidates
        Each solver's needs.
    n_rows, n_features, n_targets
        N, D and K.
    advice
        How to cut the data on disk so that a fit fits; empty where that is not what is amiss.
    fits_here
        Whether the chosen solver would fit on the processor, where the GPU has no room.
    """

    chosen: str
    memory_limit: int
    candidates: dict[str, Candidate]
    n_rows: int
    n_features: int
    n_targets: int
    advice: str = ""
    fits_here: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain numbers, texts, lists and dictionaries, as JSON knows them."""
        plan = asdict(self)
        for candidate in plan["candidates"].values():
            for needs in (candidate, candidate["device"] or {"terms": ()}):
                needs["terms"] = [term._asdict() for term in needs["terms"]]
        return plan

    def __str__(self) -> str:
        table = _table(self)
        return table if self.candidates[self.chosen].fits else f"{table}\n\n{_refusal(self)}"

    def require_fit(self) -> Candidate:
        """Return the chosen candidate.

        Raises
        ------
        MemoryLimitError
            It does not fit; the message lists the terms, and remedies that were planned and fit.
        """
        candidate = self.candidates[self.chosen]
        if not candidate.fits:
            raise MemoryLimitError(_refusal(self))
        return candidate


def _table(plan: Plan) -> str:
    """Return one row a solver, at most 80 columns wide."""
    rows = [_HEADINGS, *(_row(plan, candidate) for candidate in plan.candidates.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        # sizes to the right, so that they can be compared; words to the left
        "  ".join(
            cell.ljust(width) if column in {0, 5} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "─" * max(len(line) for line in lines))
    shape = f"N = {plan.n_rows:,}, D = {plan.n_features:,}"
    targets = f", K = {plan.n_targets:,}" if plan.n_targets > 1 else ""
    title = f"{shape}{targets}, memory limit {format_nbytes(plan.memory_limit)}"
    chosen = plan.candidates[plan.chosen]
    if chosen.device is not None:
        title += f", of the GPU {format_nbytes(chosen.device.limit_nbytes)}"
        there = format_nbytes(chosen.device.peak_nbytes, up=True)
        kept = chosen.device.n_kept
        lines += [
            "",
            f"{chosen.solver} takes {there} of the GPU and keeps {count(kept, 'block')} there",
        ]
    if chosen.cache_nbytes:
        share = min(1.0, chosen.cache_nbytes / chosen.bytes_per_pass)
        lines += [
            "",
            (
                f"{chosen.solver} keeps {format_nbytes(chosen.cache_nbytes)} of decoded blocks, "
                f"{share:.0%} of the data, from pass to pass"
            ),
        ]
    return "\n".join([title, "", *lines])


def _row(plan: Plan, candidate: Candidate) -> tuple[str, ...]:
    mark = " ←" if candidate.solver == plan.chosen else ""
    about = "" if candidate.solver == "closed_form" else "about "
    return (
        candidate.solver + mark,
        format_nbytes(candidate.state_nbytes),
        format_nbytes(candidate.peak_nbytes, up=True),
        format_nbytes(candidate.bytes_per_pass),
        f"{about}{candidate.passes:,}",
        "yes" if candidate.fits else f"no: {candidate.reason}",
    )


def _refusal(plan: Plan) -> str:
    """Return what the chosen solver needs, of what that consists, and what would do instead."""
    refused = plan.candidates[plan.chosen]
    if refused.device is not None and not refused.device.fits:
        return _refusal_there(plan, refused.device)
    shape = f"N = {plan.n_rows:,}, D = {plan.n_features:,}"
    candidates = [c for c in plan.candidates.values() if c.device is None or c.device.fits]
    fitting = [other for other in candidates if other.fits]
    plain = [] if refused.device else [c for c in candidates if c.plain_nbytes <= plan.memory_limit]
    remedies, advice = [], ""
    if fitting:
        best = _best(fitting)
        remedies = [f'use solver="{best.solver}": {_cost(best, best.needed_nbytes)}']
    elif plain:
        best = refused if refused in plain else _best(plain)
        use = "" if best is refused else f'use solver="{best.solver}" and '
        cost = _cost(best, best.plain_nbytes)
        remedies = [f"{use}set NUMBA_DISABLE_JIT=1 in the environment, for slower loops: {cost}"]
    else:
        least = min(candidates, key=lambda other: (other.peak_nbytes, other.passes))
        if least.peak_nbytes < refused.peak_nbytes:
            raised = format_nbytes(least.peak_nbytes, up=True)
            # sizes that print alike are no choice
            if raised != format_nbytes(refused.peak_nbytes, up=True):
                remedies = [f'to {raised} with solver="{least.solver}", the least that works']
        advice = plan.advice
    return itemised(refused.solver, plan.memory_limit, shape, refused.terms, remedies, advice)


def _refusal_there(plan: Plan, device: DeviceNeeds) -> str:
    """Return why a GPU has no room, where the host has."""
    fitting = [other for other in plan.candidates.values() if other.fits]
    remedies = ['pass device="cpu"'] if plan.fits_here else []
    if fitting:
        remedies.insert(0, f'use solver="{_best(fitting).solver}"')
    return itemised(
        f"{plan.chosen} on the GPU", device.limit_nbytes,
        f"N = {plan.n_rows:,}, D = {plan.n_features:,}", device.terms, remedies,
        limited="device_memory_limit",
    )  # fmt: skip


def _best(candidates: Sequence[Candidate]) -> Candidate:
    # of two that take as many passes the last: cg converges where gd does not
    return min(reversed(candidates), key=lambda other: other.passes)


def _cost(candidate: Candidate, nbytes: int) -> str:
    passes = "1 pass" if candidate.passes == 1 else f"about {candidate.passes:,} passes"
    return f"{format_nbytes(nbytes, up=True)}, {passes}"


def itemised(
    what: str,
    limit: int,
    shape: str,
    terms: Sequence[Term],
    remedies: Sequence[str],
    advice: str = "",
    limited: str = "memory_limit",
) -> str:
    """Return the text of a ``MemoryLimitError``; all that it offers has been planned, and fits."""
    enough = format_nbytes(sum(term.nbytes for term in terms), up=True)
    width = max(len(term.what) for term in terms)
    remedies = [f"Raise {limited} to {enough}", *remedies]
    given = format_nbytes(limit)
    lines = [
        f"{what} needs {enough} but {limited} is {given} ({shape}; no data was read)",
        *(
            f"  {term.what:<{width}}  {format_nbytes(term.nbytes):>10}   {term.why}"
            for term in sorted(terms, key=lambda term: -term.nbytes)
            if term.nbytes
        ),
        "  " + ", or ".join(remedies) + ".",
    ]
    if advice:
        lines += [f"  {line}" for line in f"Or {advice}".splitlines()]
    return "\n".join(lines)
