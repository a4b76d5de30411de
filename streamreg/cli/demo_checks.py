"""What ``streamreg demo`` holds its own fits and predictions to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.formatting import format_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamreg.blocks import Float64
    from streamreg.model import Model

# from the closed form's weights, which have the most digits; of gd at least five times what is
# seen with ten rows a feature, of cg ten times
_FARTHEST = {"closed_form": 0.0, "gd": 1e-4, "cg": 1e-9}
# R² that the weights may lose, which are as exact as gd's, and that rounding may
_LOST_R2, _ROUNDING = 1e-6, 1e-9


class Truth(NamedTuple):
    """What the data were made with."""

    weights: Float64  # (D,)
    deviations: Float64  # (D,) units of the columns
    r2: float  # of these weights: what the noise leaves to explain

    def distance(self, weights: Float64, others: Float64) -> float:
        """Return how far weights are apart, in deviations of columns, as a part of the largest."""
        largest = np.max(np.abs(self.weights * self.deviations))
        return float(np.max(np.abs(weights - others) * self.deviations) / largest)


class Run(NamedTuple):
    """One solver's fit."""

    model: Model
    n_epochs: int
    seconds: float
    peak_nbytes: int
    planned_nbytes: int

    @property
    def weights(self) -> Float64:
        """(D,)."""
        weights: Float64 = self.model.coefficients[0]
        return weights


def fit_doubts(runs: dict[str, Run], truth: Truth) -> Iterator[str]:
    """Yield a clause for each solver that is far from the first, or took more than planned."""
    first, reference = next(iter(runs.items()))
    for name, run in runs.items():
        distance = truth.distance(run.weights, reference.weights)
        farthest = max(_FARTHEST[first], _FARTHEST[name])
        if not distance <= farthest:  # NaN too
            yield (
                f"the weights of {name} are {distance:.1e} from those of {first}, where at most "
                f"{farthest:.0e} was expected"
            )
        if run.peak_nbytes > run.planned_nbytes:
            yield (
                f"{name} added {format_nbytes(run.peak_nbytes, up=True)} of memory, more than the "
                f"{format_nbytes(run.planned_nbytes)} planned"
            )


def prediction_doubts(on_disk: float, scored: float, truth: Truth) -> Iterator[str]:
    """Yield a clause if R² of the predictions on disk is not what it has to be."""
    if not abs(on_disk - scored) <= _ROUNDING:
        yield f"the predictions on disk have R² {on_disk:.6f}, but score says {scored:.6f}"
    # of all weights, those of least squares fit their own rows best
    if not on_disk >= truth.r2 - _LOST_R2:
        yield (
            f"the predictions on disk have R² {on_disk:.6f}, less than the {truth.r2:.6f} of the "
            "weights that the data were made with"
        )


def r2_on_disk(predictions: Path, targets: Path, level: float) -> float:
    """Return R² of what lies in two Zarr arrays (N,), by NumPy alone; NaN if a value is not finite.

    ``level`` is near the mean of the targets: their spread about it loses no digits.
    """
    import zarr  # noqa: PLC0415  (imported only by who reads Zarr arrays)

    predicted, y = (zarr.open_array(path, mode="r") for path in (predictions, targets))
    missed = squares = total = 0.0
    for start in range(0, y.shape[0], y.chunks[0]):
        rows = slice(start, start + y.chunks[0])
        true = np.asarray(y[rows]) - level
        missed += float(np.sum((np.asarray(predicted[rows]) - level - true) ** 2))
        squares += float(np.sum(true**2))
        total += float(np.sum(true))
    return 1 - missed / (squares - total**2 / y.shape[0])
