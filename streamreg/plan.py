"""Bytes and passes, worked out before the first byte is read: what fits and what is refused."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.errors import MemoryLimitError
from streamreg.layout import Blocks, Segments
from streamreg.memory import MIB, available_nbytes, format_nbytes, parse_nbytes, usable_cpus
from streamreg.solvers.base import Problem
from streamreg.solvers.registry import NAMES, SolverSettings

if TYPE_CHECKING:
    from streamreg.solvers.base import Footprint
    from streamreg.sources.dataset import DataSet

# the interpreter's own growth during a fit: modules, threads' stacks, the allocator's slack
_FIXED_NBYTES = 12 * MIB
_THREAD_NBYTES = 2 * MIB


class Term(NamedTuple):
    """One line of a plan."""

    what: str
    nbytes: int
    why: str


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
        Threads that fold, so that the peak fits.
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
        What else would help, such as other chunks.
    """

    chosen: str
    memory_limit: int
    candidates: dict[str, Candidate]
    n_rows: int
    n_features: int
    n_targets: int
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain numbers and texts, as JSON knows them."""
        return asdict(self)

    def __str__(self) -> str:
        from rich import box  # noqa: PLC0415  (only for printing)
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        limit = format_nbytes(self.memory_limit)
        table = Table(
            title=f"N = {self.n_rows:,}, D = {self.n_features:,}, memory limit {limit}",
            title_justify="left", box=box.SIMPLE_HEAD,
        )  # fmt: skip
        for heading in ("solver", "state", "peak", "a pass reads", "passes", "fits"):
            table.add_column(heading, justify="left" if heading == "solver" else "right")
        table.add_column("")
        for row in self.candidates.values():
            mark = " ←" if row.solver == self.chosen else ""
            passes = str(row.passes) if row.solver == "closed_form" else f"about {row.passes}"
            table.add_row(
                row.solver + mark, format_nbytes(row.state_nbytes), format_nbytes(row.peak_nbytes),
                format_nbytes(row.bytes_per_pass), passes, "yes" if row.fits else "no", row.reason,
            )  # fmt: skip
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(table)
        return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())

    def require_fit(self) -> Candidate:
        """Return the chosen candidate.

        Raises
        ------
        MemoryLimitError
            It does not fit; the message lists the terms, and remedies that were planned and fit.
        """
        candidate = self.candidates[self.chosen]
        if not candidate.fits:
            raise MemoryLimitError(self._refusal(candidate))
        return candidate

    def _refusal(self, refused: Candidate) -> str:
        width = max(len(term.what) for term in refused.terms)
        lines = [
            f"  {term.what:<{width}}  {format_nbytes(term.nbytes):>10}   {term.why}"
            for term in sorted(refused.terms, key=lambda term: -term.nbytes)
        ]
        remedies = [f"raise memory_limit to {_at_least(refused.peak_nbytes)}"]
        remedies += [
            f'use solver="{other.solver}": {format_nbytes(other.peak_nbytes)}, '
            f"about {other.passes:,} passes"
            for other in self.candidates.values()
            if other.fits
        ]
        if self.advice and len(remedies) == 1:
            remedies.append(self.advice)
        text = ", or ".join(remedies)
        return (
            f"{refused.solver} needs {format_nbytes(refused.peak_nbytes)} but memory_limit is "
            f"{format_nbytes(self.memory_limit)} (N = {self.n_rows:,}, D = {self.n_features:,}; "
            "no data was read)\n" + "\n".join(lines) + f"\n  {text[0].upper()}{text[1:]}."
        )


def make_plan(
    dataset: DataSet,
    settings: SolverSettings,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
) -> Plan:
    """Plan a fit from the metadata of its data.

    Parameters
    ----------
    dataset
        What is to be fitted; nothing of it is read.
    settings
        The solver asked for, and its parameters.
    memory_limit
        Bytes, or a text such as ``"512 MiB"``; ``None`` for half of what the process may use.
    n_threads
        Threads at most; ``None`` for all processors that the process may use.
    """
    limit = available_nbytes() // 2 if memory_limit is None else parse_nbytes(memory_limit)
    threads = usable_cpus() if n_threads is None else n_threads
    problem = Problem(dataset.n_features, max(1, dataset.n_targets))
    candidates = {
        name: _candidate(dataset, problem, settings, name, limit, threads) for name in NAMES
    }
    chosen = settings.solver
    if chosen == "auto":
        chosen = "closed_form" if candidates["closed_form"].fits else "cg"
    return Plan(
        chosen, limit, candidates, dataset.n_rows, dataset.n_features, problem.n_targets,
        _advice(dataset, limit),
    )  # fmt: skip


def _candidate(
    dataset: DataSet,
    problem: Problem,
    settings: SolverSettings,
    name: str,
    limit: int,
    threads: int,
) -> Candidate:
    solver = settings.build(name)
    footprint = solver.footprint(problem)
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    pass_nbytes = dataset.n_rows * dataset.row_nbytes
    segments = Segments.of(len(blocks), pass_nbytes, footprint.state_nbytes)
    reader = dataset.reader_nbytes(blocks.max_rows)
    most = min(threads, len(segments)) if len(segments) > 1 else 1
    for workers in range(most, 0, -1):
        terms = _terms(problem, name, footprint, reader, workers, alone=len(segments) == 1)
        peak = sum(term.nbytes for term in terms)
        if peak <= limit:
            break
    fits = peak <= limit
    return Candidate(
        solver=name,
        state_nbytes=footprint.state_nbytes,
        peak_nbytes=peak,
        bytes_per_pass=pass_nbytes,
        passes=solver.passes(),
        fits=fits,
        reason=_reason(name, problem, terms, fits=fits),
        terms=tuple(terms),
        n_threads=workers if len(segments) > 1 else threads,
    )


def states_in_flight(workers: int, *, alone: bool) -> int:
    """Return how many states are alive at once: being folded, waiting for their turn, merged."""
    return 1 if alone else 2 if workers == 1 else workers + 2


def _terms(
    problem: Problem, name: str, footprint: Footprint, reader: int, workers: int, *, alone: bool
) -> list[Term]:
    states = states_in_flight(workers, alone=alone)
    d, k = problem.n_features, problem.n_targets
    count = "1 state" if states == 1 else f"{states} states"
    readers = "1 reader" if workers == 1 else f"{workers} readers"
    if name == "closed_form":
        what, why = "XᵀX", f"{d:,}² × 8 bytes, {count}"
    else:
        what, why = "gradients", f"{format_nbytes(footprint.state_nbytes)} each, {count}"
    return [
        Term(what, states * footprint.state_nbytes, why),
        Term("blocks", workers * reader, f"{readers}, {format_nbytes(reader)} each"),
        Term("tiles", workers * footprint.scratch_nbytes, "float64 rows being folded"),
        Term("vectors", footprint.solver_nbytes, f"of the solver, {d:,} × {k:,} each"),
        Term("process", _FIXED_NBYTES + workers * _THREAD_NBYTES, "interpreter, threads, allocator"),
    ]


def _reason(name: str, problem: Problem, terms: list[Term], *, fits: bool) -> str:
    if fits:
        return "one pass, exact" if name == "closed_form" else "O(D) state"
    largest = max(terms, key=lambda term: term.nbytes)
    return f"{largest.what} alone: {format_nbytes(largest.nbytes)}"


def _advice(dataset: DataSet, limit: int) -> str:
    """Return what to do about chunks that are too large, or an empty text."""
    row_nbytes = dataset.X.row_nbytes
    rows = max(1, min(limit // 8, 8 * MIB) // row_nbytes)
    if dataset.X.grid.divisible or rows >= dataset.X.grid.chunk_rows:
        return ""
    return (
        f"write {dataset.X.name} anew in chunks of whole rows, at most {rows:,} of them, as "
        f"`dask.array.from_zarr(SOURCE).rechunk(({rows}, -1)).to_zarr(TARGET)` does"
    )


def _at_least(nbytes: int) -> str:
    """Return a size for people that is not below ``nbytes`` when parsed again."""
    unit = 1024 ** min(4, int(math.log(max(nbytes, 1024), 1024)))
    return format_nbytes(math.ceil(nbytes / unit * 10) / 10 * unit)
