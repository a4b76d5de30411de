"""What a pass may find: the system refuses planned memory, or no row is left to fit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streamreg.errors import InputError, MemoryLimitError, Message, Parameter, Part, Remedy
from streamreg.formatting import format_nbytes
from streamreg.machine import available_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.engines.base import PartialResult, Reduction
    from streamreg.planning.plan import Plan
    from streamreg.planning.terms import Candidate
    from streamreg.sources.dataset import Dataset

_LARGEST_WEIGHT_SUM = 1e120


@contextmanager
def explain_refused_memory(plan: Plan, candidate: Candidate) -> Iterator[None]:
    """Say what was planned for a solver, if the system refuses memory while it runs."""
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        planned = format_nbytes(candidate.peak_nbytes)
        other = plan.less_demanding(candidate)
        other_solver: list[Part] = []
        if other is not None:
            needed = format_nbytes(other.needed_nbytes, up=True)
            other_solver = [", or ", Remedy("solver", other.solver), f", which needs {needed}"]
        raise MemoryLimitError(
            f"the system refused memory that {candidate.solver} needs: "
            f"{str(error) or 'none is left'}. Planned {planned}, with ",
            Parameter("memory_limit"),
            f" {format_nbytes(plan.memory_limit)}; {format_nbytes(available_nbytes())} are "
            "available. Pass a lower ",
            Remedy("memory_limit"),
            *other_solver,
        ) from error


def require_rows(
    dataset: Dataset, reduction: Reduction[Any] | PartialResult, n_omitted: int
) -> None:
    """Raise :class:`InputError` if no row is left to fit, or weights are too large or small."""
    if reduction.n_rows:
        if not 1 / _LARGEST_WEIGHT_SUM < reduction.weight_sum < _LARGEST_WEIGHT_SUM:
            raise InputError(
                f"the weights of {dataset.X.name} add up to {reduction.weight_sum:.1e}, and "
                "squares could leave the range of float64; multiply them by a constant, because "
                "only their ratios count"
            )
        return
    if n_omitted == dataset.n_rows:
        why: Part = Message(
            "all hold NaN or inf and ", Parameter("nan_policy", "omit"), " drops them"
        )
    elif n_omitted:
        why = f"{n_omitted:,} left out for NaN or inf, and all others have zero weight"
    else:
        why = "all have zero weight"
    raise InputError(
        f"no row of {dataset.X.name} is left to fit: of {dataset.n_rows:,} rows, ", why
    )
