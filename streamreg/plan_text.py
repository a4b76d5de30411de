"""What a plan says to people: a table, a refusal with its remedies, and how to rechunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.memory import format_nbytes
from streamreg.sources.zarr import ZarrSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.planning import Candidate, Plan, Term
    from streamreg.sources.base import RowSource

_HEADINGS = ("solver", "state", "peak", "a pass reads", "passes", "fits")


def table(plan: Plan) -> str:
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


def refusal(plan: Plan, refused: Candidate) -> str:
    """Return what a solver needs, of what that consists, and what would do instead."""
    shape = f"N = {plan.n_rows:,}, D = {plan.n_features:,}"
    fitting = [other for other in plan.candidates.values() if other.fits]
    remedies, advice = [], ""
    if fitting:
        best = min(fitting, key=lambda other: other.passes)
        needed = format_nbytes(best.peak_nbytes, up=True)
        remedies = [f'use solver="{best.solver}": {needed}, about {best.passes:,} passes']
    else:
        least = min(plan.candidates.values(), key=lambda other: (other.peak_nbytes, other.passes))
        if least.peak_nbytes < refused.peak_nbytes:
            raised = format_nbytes(least.peak_nbytes, up=True)
            remedies = [f'to {raised} with solver="{least.solver}", the least that works']
        advice = plan.advice
    return itemised(refused.solver, plan.memory_limit, shape, refused.terms, remedies, advice)


def itemised(
    what: str,
    limit: int,
    shape: str,
    terms: Sequence[Term],
    remedies: Sequence[str],
    advice: str = "",
) -> str:
    """Return the text of a ``MemoryLimitError``; all that it offers has been planned, and fits."""
    enough = format_nbytes(sum(term.nbytes for term in terms), up=True)
    width = max(len(term.what) for term in terms)
    remedies = [f"Raise memory_limit to {enough}", *remedies]
    lines = [
        f"{what} needs {enough} but memory_limit is {format_nbytes(limit)} ({shape}; no data was read)"
    ]
    lines += [
        f"  {term.what:<{width}}  {format_nbytes(term.nbytes):>10}   {term.why}"
        for term in sorted(terms, key=lambda term: -term.nbytes)
    ]
    lines.append("  " + ", or ".join(remedies) + ".")
    if advice:
        lines += [f"  {line}" for line in f"Or {advice}".splitlines()]
    return "\n".join(lines)


def rechunking(X: RowSource, rows: int) -> str:
    """Return how to cut X into chunks of so many rows, a chunk of the old at a time."""
    pieces = -(-X.grid.chunk_rows // rows)
    rows = -(-X.grid.chunk_rows // pieces)
    if not isinstance(X, ZarrSource):
        return f"write {X.name} anew in chunks of at most {rows:,} rows"
    n_rows, n_columns = X.shape
    height, width = X.array.chunks
    path = str(X.files.root) if X.files else X.name
    return f"""write {X.name} anew in chunks of {rows:,} rows:
    import zarr
    old = zarr.open_array({path!r}, mode="r")
    new = zarr.create_array(
        {f"{path}-rows"!r}, shape=old.shape, dtype=old.dtype, chunks=({rows}, {width})
    )
    for i in range(0, {n_rows}, {height}):
        for j in range(0, {n_columns}, {width}):
            here = slice(i, i + {height}), slice(j, j + {width})
            new[here] = old[here]"""
