"""What a report says of a model, and the page that says it."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined

from streamreg.errors import InputError
from streamreg.formatting import agree, count, target_names
from streamreg.inference.summary import Summary
from streamreg.output.atomic import atomic_write
from streamreg.report import figures
from streamreg.report.coefficients import Coefficients

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Float64
    from streamreg.model import Model
    from streamreg.predict.scores import Residuals
    from streamreg.report.figures import Drawing

_MOST_DRAWN, _MOST_ROWS = 40, 1000
_ALPHA = 0.05
_LEVEL = "95 %"
_LARGEST_COUNT = 1e15
# smaller P values come from t that is as good as infinite, and are not told apart
_LEAST_POWER, _TINY_P = -99_999, "below 1e-300"


class Cell(NamedTuple):
    """A number and its text."""

    text: str
    value: str  # all digits


class Row(NamedTuple):
    """A row of the table of coefficients."""

    name: str
    cells: list[Cell]


class Fact(NamedTuple):
    """A line of the table of the fit."""

    name: str
    text: str
    value: str | None = None  # of a number, all digits


@dataclass(frozen=True, eq=False)
class Report:
    """A model, and perhaps its residuals on some rows, for one target; a page shows it."""

    model: Model
    title: str
    origin: str  # where the model and the rows come from
    residuals: Residuals | None = None
    target: int = 0

    def html(self) -> str:
        """Return the page; it needs no network, runs no script, and is the same in each run."""
        page = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        ).from_string(files(__package__).joinpath("page.html").read_text("utf-8"))
        return page.render(report=self)

    def write(self, path: Path) -> None:
        """Write the page to a file, whole or not at all."""
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        # names of columns may hold halves of letters, which no file can hold
        text = self.html().encode("utf-8", "replace")
        try:
            with atomic_write(partial, path) as file:
                file.write(text)
        except OSError as error:
            raise InputError(
                f"the report cannot be written to {str(path)!r}: {error.strerror}"
            ) from error

    @property
    def status(self) -> str:
        """Why the solver stopped; empty if it is not known."""
        return str(self._detail("status") or "")

    @property
    def converged(self) -> bool:
        """Whether the tolerance of the fit was met."""
        return self._detail("converged") is True

    @property
    def warnings(self) -> list[str]:
        """What the fit warned of, and the pass over the rows."""
        known = self._detail("warnings")
        return [
            *(map(str, known) if isinstance(known, list) else ()),
            *(self.residuals.warnings if self.residuals else ()),
        ]

    @property
    def facts(self) -> list[list[Fact]]:
        """The fit, and how well it describes rows: one table each, without unknown figures."""
        tables = [self._facts_of_fit(), self._facts_of_rows()]
        known = [[fact for fact in table if fact.text] for table in tables]
        return [table for table in known if table]

    def _facts_of_fit(self) -> list[Fact]:
        model, coefficients = self.model, self._coefficients
        targets = target_names(model.target_names, model.n_targets)
        target = targets[self.target]
        if model.n_targets > 1:
            target += f", of {count(model.n_targets, 'target')}"
        digits = coefficients.digits[np.isfinite(coefficients.digits)]
        return [
            Fact("Target", target if model.target_names or model.n_targets > 1 else ""),
            Fact("Solver", str(self._detail("solver") or "")),
            _fact("Epochs", self._number("n_iter")),
            _fact("Rows fitted", self._number("n_rows")),
            _fact("Rows left out", self._number("rows_omitted") or math.nan),
            _fact("Features", model.n_features),
            _fact("Condition number κ", self._number("condition"), 3),
            _fact("Right digits, fewest", digits.min() if len(digits) else math.nan, 3),
            _fact("Penalty l2", self._penalty),
        ]

    def _facts_of_rows(self) -> list[Fact]:
        facts = []
        if self.model.inference is not None:
            fit, k = self.model.inference, self.target
            facts += [
                Fact("Standard errors", fit.cov_type),
                _fact("R² of the fit", fit.rsquared[k]),
                _fact("Adjusted R²", fit.rsquared_adj[k]),
                _fact("F", fit.fvalue[k]),
                _p_fact("P of F", fit.f_pvalue[k]),
                _fact("Degrees of freedom", fit.df_resid),
                _fact("Log-likelihood", fit.llf[k], 10),
                _fact("AIC", fit.aic[k], 10),
                _fact("BIC", fit.bic[k], 10),
            ]
        if self.residuals is not None:
            known = self.residuals.histogram
            facts += [
                _fact("Rows of DATA", known.n),
                _fact("R² on DATA", known.r2[0]),
                _fact("RMSE on DATA", known.rmse[0]),
            ]
        return facts

    @property
    def _penalty(self) -> float:
        """The penalty that the fit chose, or NaN."""
        known = self._detail("l2")
        if isinstance(known, list):
            known = known[self.target] if self.target < len(known) else None
        return _number(known)

    @property
    def coefficient_figure(self) -> Drawing:
        """The largest coefficients, with their intervals."""
        coefficients = self._coefficients
        shown = coefficients.largest(_MOST_DRAWN)
        return figures.draw_coefficients(coefficients, shown, _LEVEL)

    @property
    def coefficient_note(self) -> str:
        """What the figure of coefficients leaves out, and why intervals are missing."""
        d = self.model.n_features
        known = self._coefficients
        by = f"|{known.statistic}|" if known.have_errors else "size, which depends on their units"
        note = f"Columns are in the order of their {by}, largest first; the intercept is not drawn."
        if d > _MOST_DRAWN:
            left_out = d - _MOST_DRAWN
            are = agree(left_out, "is", "are")
            note += f" {count(left_out, 'smaller column')} {are} left out of the figure."
        if self.model.inference is None:
            return f"{note} The fit computed no standard errors: it ran without cov_type."
        return " ".join([note, *Summary(self.model.inference).notes])

    @property
    def residual_note(self) -> str:
        """Why there are no figures of residuals."""
        return "Residuals need rows: run streamreg report MODEL DATA."

    @property
    def headings(self) -> list[str]:
        """The headings of the table of coefficients."""
        return ["term", *(heading for heading, _ in self._columns())]

    @property
    def rows(self) -> list[Row]:
        """The table of coefficients."""
        coefficients = self._coefficients
        numbers = list(range(len(coefficients.terms)))
        if len(numbers) > _MOST_ROWS:
            numbers = [0, *coefficients.largest(_MOST_ROWS - 1).tolist()]
        columns = [cells for _, cells in self._columns()]
        return [Row(coefficients.terms[j], [cells[j] for cells in columns]) for j in numbers]

    @property
    def rows_left_out(self) -> str:
        """How many coefficients the table leaves out; empty if it has all."""
        left_out = len(self._coefficients.terms) - _MOST_ROWS
        if left_out <= 0:
            return ""
        return (
            f"The intercept and the {_MOST_ROWS - 1:,} largest coefficients; "
            f"{count(left_out, 'smaller one')} {agree(left_out, 'is', 'are')} left out. The model "
            "file holds all."
        )

    @property
    def loss_figure(self) -> Drawing | None:
        """The loss by epoch, if it is known."""
        losses = self._detail("loss_history")
        values = [_number(loss) for loss in losses] if isinstance(losses, list) else []
        finite = np.isfinite(values)
        return figures.draw_losses(np.array(values)) if values and finite.any() else None

    @property
    def score_figure(self) -> Drawing | None:
        """The errors of the penalties that were compared, if the fit chose one."""
        names = ("l2s", "cv_scores", "l2")
        try:
            l2s, scores, best = (np.array(self._detail(name), np.float64) for name in names)
            of_target = scores[..., self.target] if scores.ndim == 3 else scores  # noqa: PLR2004
            l2 = float(best[self.target] if best.ndim else best)
        # a file may hold anything
        except (IndexError, OverflowError, TypeError, ValueError):
            return None
        is_table = of_target.ndim == 2 and l2s.shape == of_target.shape[:1]  # noqa: PLR2004
        if not is_table or not np.isfinite(of_target).any():
            return None
        if not (np.isfinite(l2s).all() and (l2s >= 0).all() and math.isfinite(l2)):
            return None
        return figures.draw_scores(l2s, -of_target, l2)

    @property
    def memory_figure(self) -> Drawing | None:
        """Measured beside planned and allowed memory, if they are known."""
        names = {"measured": "peak_memory", "planned": "planned_peak"}
        sizes = [(name, self._number(detail)) for name, detail in names.items()]
        known = [(name, size) for name, size in sizes if math.isfinite(size)]
        return figures.draw_memory(known, self._number("memory_limit")) if known else None

    @property
    def residual_figures(self) -> list[Drawing]:
        """Residuals against fitted values, and their histogram."""
        if self.residuals is None:
            return []
        histogram = self.residuals.histogram
        return [
            figures.draw_residuals(histogram),
            figures.draw_residual_histogram(histogram, float(histogram.rmse[0])),
        ]

    @cached_property
    def _coefficients(self) -> Coefficients:
        return Coefficients.of(self.model, self.target, _ALPHA)

    def _columns(self) -> list[tuple[str, list[Cell]]]:
        """Return the columns of the table of coefficients, with their headings."""
        known = self._coefficients
        columns = [("coefficient", _cells(known.values, 6))]
        if known.have_errors:
            columns += [
                ("standard error", _cells(known.bse, 4)),
                (known.statistic, _cells(known.tvalues, 4)),
                (f"P>|{known.statistic}|", _p_cells(known.pvalues, known.log10_pvalues)),
                (f"{_LEVEL} from", _cells(known.low, 6)),
                ("to", _cells(known.high, 6)),
            ]
        if known.have_digits:
            columns.append(("right digits", _cells(known.digits, 3)))
        return columns

    def _detail(self, name: str) -> Any:  # noqa: ANN401  (a file may hold anything)
        return self.model.details.get(name)

    def _number(self, name: str) -> float:
        return _number(self._detail(name))


def _number(value: object) -> float:
    """Return a number of a file, or NaN."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    try:
        return float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return math.nan


def _fact(name: str, value: float | Float64, digits: int = 6) -> Fact:
    """Return a line with a number; its text is empty if the number is not known."""
    value = float(value)
    if math.isnan(value):
        return Fact(name, "")
    is_count = value.is_integer() and abs(value) < _LARGEST_COUNT
    return Fact(name, f"{value:,.0f}" if is_count else f"{value:.{digits}g}", repr(value))


def _p_fact(name: str, value: Float64) -> Fact:
    """Return a line with a P value, which may be too small for float64."""
    return Fact(name, _TINY_P, "0.0") if value == 0 else _fact(name, value, 3)


def _cells(values: Float64, digits: int) -> list[Cell]:
    return [
        Cell("" if math.isnan(value) else f"{value:.{digits}g}", repr(value))
        for value in values.tolist()
    ]


def _p_cells(values: Float64, logarithms: Float64) -> list[Cell]:
    """Return P values; those below float64's range as a power of ten."""
    cells = _cells(values, 3)
    for j in np.flatnonzero(values == 0):
        # of an exact fit, -inf
        power = logarithms[j]
        text = f"1e{math.floor(power)}" if power > _LEAST_POWER else _TINY_P
        cells[j] = Cell(text, cells[j].value)
    return cells
