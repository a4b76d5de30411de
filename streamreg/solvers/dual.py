"""Ridge and least norm by XXᵀ: few passes, O(N²) state, for fewer rows than columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from streamreg.accumulators.column_products import PANEL_ROWS, ColumnProducts
from streamreg.accumulators.column_weights import TILE_COLUMNS, TILE_ROWS, column_weights_nbytes
from streamreg.accumulators.fitted_values import VALUE_ROWS
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.row_products import RowProducts as PanelProducts
from streamreg.accumulators.row_products import row_products_nbytes
from streamreg.accumulators.row_values import RowValues, row_values_nbytes
from streamreg.blocks import View
from streamreg.formatting import count
from streamreg.kernels.base import Affine
from streamreg.kernels.row_tiles import COLUMNS, PIECE_ROWS, row_tile_rows
from streamreg.kernels.strips import (
    STRIP_COLUMNS,
    Strips,
    strip_counts,
    strip_step,
    strip_width,
)
from streamreg.solvers.base import (
    EpochRecord,
    Footprint,
    PassFootprint,
    Problem,
    Solution,
    Solver,
    Status,
)
from streamreg.solvers.diagnostics import column_warnings, dependence_warnings, or_l2
from streamreg.solvers.exact import solver_nbytes
from streamreg.solvers.row_equations import RowEquations, RowProducts, RowSpace
from streamreg.solvers.standardization import measure, user_loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.accumulators.moments import MomentsResult
    from streamreg.blocks import Float64
    from streamreg.kernels.strips import Numbers
    from streamreg.solvers.base import IterateStore, Reduce, Report

# passes beside those for XXᵀ: means and deviations, the weights, and, if rows are read, residuals
_OTHER_PASSES = 3
# passes over columns: XXᵀ, and the weights with their residuals
_COLUMN_PASSES = 2
# corrections of weights, of one pass over columns, or two over rows, each
_MOST_CORRECTIONS = 2
# weights whose correction is below this share of their norm are not corrected
_WANTED = 1e-13
# the solver says so if it cannot reach this share
_NEEDED = 1e-10
# vectors of D beside the K + 1 sums of rows: of the moments, units and factors
_VECTORS, _WEIGHT_ARRAYS = 20, 8


@dataclass(frozen=True)
class Dual(Solver):
    """Weights as combinations of rows, w = Zᵀα, with (ZZᵀ + λΣs·I) α = y [1]_, by Cholesky.

    Z (N, D) holds the rows less x̄, times √s; ``l2`` is λ. Without a penalty the columns are scaled
    as in ``closed_form``, and of all least-squares solutions the one of least norm is taken.

    One pass computes means and deviations. ZZᵀ takes N² numbers, which the factor overwrites.

    If columns can be read without the others, one pass reads strips of columns, ZZᵀ = Σ zⱼzⱼᵀ; and
    one pass makes the weights of each strip, and adds up what they fit: X is read three times.
    Else a pass keeps a panel of rows, as many as fit, and multiplies all rows after it with them,
    so that ⌈N/P⌉ passes are needed; one pass sums αᵢzᵢ, and the last one measures w.

    If α's correction by the residuals would change more than 1e-13 of w, up to two corrections are
    made, of one pass over columns, or two over rows, each.

    References
    ----------
    .. [1] Saunders, Gammerman & Vovk (1998), Ridge regression learning algorithm in dual
       variables, ICML, 515-521.
    """

    n_panels: int = 1

    name: ClassVar[str] = "dual"
    summary: ClassVar[str] = "few passes, for fewer rows than columns"
    more_digits: ClassVar[str | None] = "qr"
    runs_on_device: ClassVar[bool] = False
    runs_on_cluster: ClassVar[bool] = False

    def panel_counts(self, problem: Problem) -> Iterator[int]:
        """Return in how many panels, or strips, X can be read: the fewest first."""
        if problem.column_step:
            step = strip_step(problem.column_step)
            column_nbytes = problem.n_rows * problem.dtype.itemsize
            yield from strip_counts(problem.n_features, step, column_nbytes)
            return
        tiles = -(-problem.n_rows // row_tile_rows(problem.n_features))
        n_panels = 1
        while n_panels < tiles:
            yield n_panels
            # finely enough that no pass is wasted where few are needed
            n_panels += 1 + n_panels // 8
        yield max(1, tiles)

    def with_panels(self, n_panels: int) -> Solver:
        return replace(self, n_panels=n_panels)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "n_panels": self.n_panels}

    def panel_rows(self, problem: Problem, n_rows: int) -> int:
        """Return the rows of a panel: a multiple of those of a tile, or all N."""
        height = row_tile_rows(problem.n_features)
        tiles = -(-n_rows // height)
        return min(n_rows, -(-tiles // self.n_panels) * height)

    def strips(self, problem: Problem, rows: Numbers | None = None) -> Strips:
        """Return how columns are read."""
        step = strip_step(problem.column_step)
        return Strips(strip_width(problem.n_features, step, self.n_panels), step, rows)

    def footprint(self, problem: Problem) -> Footprint:
        n, d, k = problem.n_rows, problem.n_features, problem.n_targets
        moments = Moments(d, k)
        passes, n_passes = (
            self._column_passes(problem) if problem.column_step else self._row_passes(problem)
        )
        return Footprint(
            (*passes, PassFootprint(moments.state_nbytes, moments.scratch_nbytes)),
            solver_nbytes=solver_nbytes(Problem(n, k)) + 8 * d * (_WEIGHT_ARRAYS * k + _VECTORS),
            n_passes=n_passes,
            row_flops=d * (n + 8.0 * k) / n_passes,
            # the factor, and the diagonal of its inverse
            solve_flops=n * n * (2 * n / 3 + 4.0 * k),
        )

    def _column_passes(self, problem: Problem) -> tuple[tuple[PassFootprint, ...], int]:
        """Return the passes that read strips of columns, and how often X is read in all."""
        n, d, k = problem.n_rows, problem.n_features, problem.n_targets
        square, view = 8 * n * n, View(self.strips(problem).width)
        part = STRIP_COLUMNS * (8 + problem.dtype.itemsize)
        products = PassFootprint(
            square + 8,
            0,
            earlier_nbytes=row_values_nbytes(n, k),
            n_parts=max(1, -(-n // PANEL_ROWS)),
            multiplies_matrices=True,
            # float64, and, if some rows do not count, a copy of the others
            fixed_nbytes=n * part,
            in_order=True,
            view=view,
            what="XXᵀ",
            why=f"{n:,}² × 8 bytes",  # noqa: RUF001
        )
        weights = PassFootprint(
            column_weights_nbytes(n, d, k + 1, k),
            0,
            earlier_nbytes=square,
            n_parts=max(1, -(-n // TILE_ROWS)),
            multiplies_matrices=True,
            part_nbytes=TILE_ROWS * TILE_COLUMNS * (8 + problem.dtype.itemsize),
            in_order=True,
            view=view,
        )
        values = PassFootprint(row_values_nbytes(n, k), 0, in_order=True, view=View(without_x=True))
        return (products, weights, values), 1 + _COLUMN_PASSES

    def _row_passes(self, problem: Problem) -> tuple[tuple[PassFootprint, ...], int]:
        """Return the passes that read rows, and how often X is read in all."""
        n, d, k = problem.n_rows, problem.n_features, problem.n_targets
        height, width = row_tile_rows(d), min(d, COLUMNS)
        panel_rows = self.panel_rows(problem, n)
        n_panels = -(-n // panel_rows) if n else 1
        square = 8 * n * n
        # threads share a part of the columns, or of the rows, of float64
        part = PassFootprint(
            0,
            0,
            earlier_nbytes=square,
            multiplies_matrices=True,
            tile_rows=n,
            part_nbytes=8 * height * width,
            in_order=True,
        )
        kept = f", and {count(panel_rows, 'row')} of X" if n_panels > 1 else ", and X"
        products = part._replace(
            state_nbytes=row_products_nbytes(n, panel_rows, d, k, problem.dtype.itemsize),
            earlier_nbytes=square if n_panels > 1 else 0,
            n_parts=max(1, -(-panel_rows // PIECE_ROWS)),
            part_nbytes=8 * PIECE_ROWS * width,
            fixed_nbytes=8 * height * width,
            what="XXᵀ",
            why=f"{n:,}² × 8 bytes{kept}",  # noqa: RUF001
        )
        passes = (
            products,
            part._replace(state_nbytes=8 * d * (k + 1), n_parts=-(-d // COLUMNS)),
            part._replace(state_nbytes=8 * n * k, n_parts=max(1, n // VALUE_ROWS)),
        )
        return passes, _OTHER_PASSES + n_panels

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        moments, units, warnings = measure(problem, reduce)
        space = RowSpace.of(problem, moments, units)
        start = 0.5 * space.y_variance
        report(EpochRecord(1, user_loss(units, start), np.nan))
        equations = RowEquations.of(space, self.products(problem, reduce, space, moments))
        found = corrected(equations, reduce, report, start)
        warnings += column_warnings(problem, space.constant, moments.low < moments.high)
        warnings += _dependence_warnings(problem, equations, moments)
        return solution_of(equations, found, warnings)

    def products(
        self, problem: Problem, reduce: Reduce, space: RowSpace, moments: MomentsResult
    ) -> RowProducts:
        """Compute ZZᵀ of unweighted rows: of columns in one pass, or of rows a panel in each."""
        n, d, k = moments.n, problem.n_features, problem.n_targets
        y = Affine(None if (space.units.y == 1).all() else space.units.y, space.y_centre)
        columns = space.columns._replace(factor=space.product_factor)
        if problem.column_step:
            values = reduce(RowValues(n, k, y))
            rows = values.numbers.astype(np.intp) if n < problem.n_rows else None
            strips = self.strips(problem, rows)
            squares = reduce(ColumnProducts(n, columns, strips))
            return RowProducts(squares, values.targets, values.weight, strips)
        height = self.panel_rows(problem, n)
        products = None if height >= n else np.zeros((n, n), order="F")
        for first in range(0, n, height):
            stop = min(first + height, n)
            panel = reduce(PanelProducts(n, d, k, first, stop, problem.dtype, columns, y))
            targets, weight = panel.targets, panel.weight
            if products is None:
                products = panel.products
            else:
                products[first:, first:stop] = panel.products
            del panel  # frees the rows before the next pass
        if products is None:
            raise ValueError("there are no rows")
        return RowProducts(products, targets, weight, None)


class Found(NamedTuple):
    """Weights, and what a pass measured of them."""

    v: Float64  #              (D, K) weights of the scaled columns
    alpha: Float64  #          (N, K)
    size: Float64  #           (K,)   ‖Zᵀδ‖ of the next correction δ of α
    mean_residual: Float64  #  (K,)   b, of centred columns and targets
    losses: list[Float64]  #   (K,) each: f at the start of each epoch, and at the end
    is_dependence_real: bool  # whether rows depend on others as the factor has it

    @property
    def relative_size(self) -> Float64:
        """The size relative to the norm of the weights, (K,)."""
        norm = np.linalg.norm(self.v, axis=0)
        return np.asarray(self.size / np.where(norm > 0, norm, 1.0))

    def or_better(self, other: Found) -> Found:
        """Return, of each target, the one that needs the smaller correction."""
        take = other.size < self.size
        if take.all():
            return other
        pairs = zip(self[:4], other[:4], strict=True)
        v, alpha, size, mean_residual = (np.where(take, theirs, mine) for mine, theirs in pairs)
        return Found(v, alpha, size, mean_residual, other.losses, self.is_dependence_real)


def corrected(equations: RowEquations, reduce: Reduce, report: Report, start: Float64) -> Found:
    """Return the weights, corrected by measured residuals if more than 1e-13 of them changes."""
    null = equations.unit_null
    alpha = equations.solve(equations.root * equations.targets)
    numbers = alpha if null is None else np.hstack([alpha, null])
    combined = equations.combine(reduce, numbers)
    del numbers
    is_real = null is None or equations.confirms(combined.rest)
    v = combined.v
    now = equations.measure(combined.fitted, v, alpha)
    del combined
    losses = [start, now.loss]
    best = Found(v, alpha, now.size, now.mean_residual, losses, is_real)
    for _ in range(_MOST_CORRECTIONS):
        if not is_real or (best.relative_size <= _WANTED).all():
            break
        report(EpochRecord(len(losses), user_loss(equations.space.units, now.loss), np.nan))
        v, _, fitted = equations.combine(reduce, now.correction, v)
        alpha = alpha + now.correction
        now = equations.measure(fitted, v, alpha)
        losses.append(now.loss)
        best = best.or_better(Found(v, alpha, now.size, now.mean_residual, losses, is_real))
        if best.v is not v:  # no digits are left to gain
            break
    return best


def solution_of(equations: RowEquations, found: Found, warnings: list[str]) -> Solution:
    """Return the solution in the user's units, with what the corrections say of it."""
    space = equations.space
    w, b = space.in_user_units(found.v, found.mean_residual)
    status = Status.SOLVED if equations.is_determined else Status.LEAST_NORM
    if not found.is_dependence_real or (found.relative_size > _NEEDED).any():
        status = Status.COARSE_PRODUCTS
    return Solution(
        w,
        b,
        status,
        len(found.losses) - 1,
        [user_loss(space.units, loss) for loss in found.losses],
        warnings,
        digits=equations.digits(found.v, found.alpha, found.size),
    )


def _dependence_warnings(
    problem: Problem, equations: RowEquations, moments: MomentsResult
) -> Iterable[str]:
    if problem.penalty.strength:
        return
    few_rows = list(dependence_warnings(problem, moments, equations.space.constant))
    yield from few_rows
    if not few_rows and not equations.is_determined:
        yield or_l2(
            f"columns depend linearly on others (rank {equations.rank:,} of "
            f"{problem.n_features:,}, {count(moments.n, 'row')}). The coefficients are those of "
            "least norm; leave such columns out"
        )
