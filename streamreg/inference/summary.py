"""The table of a fit, as users of statsmodels expect it: text, HTML, and plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import HORIZONTALS, SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from streamreg.formatting import count, target_names
from streamreg.inference.result import CLUSTER, NONROBUST

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streamreg.blocks import Float64
    from streamreg.inference.result import Inference

_WIDTH = 92
# numbers outside these are written with an exponent
_SMALL, _LARGE = 1e-3, 1e6
# of the sum of squares: R warns from there too
_PERFECT = 1e-30
_SMALLER_SAMPLE = {
    "HC0": "(HC0, White) without a correction for small samples",
    "HC1": "(HC1) times n/(n - k)",
    "HC2": "(HC2), squared residuals divided by 1 - h, h the leverage",
    "HC3": "(HC3), squared residuals divided by (1 - h)², h the leverage",
}


@dataclass(frozen=True, eq=False)
class Summary:
    """The coefficients of a fit with errors, tests and intervals; print it, or show it as HTML."""

    inference: Inference
    solver: str = ""
    target_names: tuple[str, ...] | None = None
    alpha: float = 0.05
    most_terms: int | None = None  # of the table; None: all

    def __str__(self) -> str:
        console = Console(file=StringIO(), width=_WIDTH, color_system=None, legacy_windows=False)
        console.print(self._renderable())
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the tables as HTML, for notebooks."""
        console = Console(file=StringIO(), width=_WIDTH, record=True, color_system=None)
        console.print(self._renderable())
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, as lists."""
        return self.inference.to_dict()

    def _renderable(self) -> Group:
        parts: list[RenderableType] = []
        names = target_names(self.target_names, self.inference.n_targets)
        for k, name in enumerate(names):
            parts += [self._heading(k, name), self._coefficients(k)]
        notes = (Text(f"[{number}] {note}") for number, note in enumerate(self.notes, 1))
        return Group(*parts, *notes)

    def _heading(self, k: int, target: str) -> Table:
        i = self.inference
        robust = "" if i.cov_type == NONROBUST else "robust "
        left = {
            "Dep. Variable:": target,
            "Model:": "WLS" if i.is_weighted else "OLS",
            "Solver:": self.solver,
            "No. Observations:": f"{i.nobs:,}",
            "Df Residuals:": f"{i.df_resid:,}",
            "Df Model:": f"{i.df_model:,}",
            "Covariance Type:": i.cov_type,
        }
        about = "" if i.is_centred else " (uncentred)"
        right = {
            f"R-squared{about}:": f"{i.rsquared[k]:.6f}",
            f"Adj. R-squared{about}:": f"{i.rsquared_adj[k]:.6f}",
            f"F-statistic ({robust}Wald):" if robust else "F-statistic:": number(i.fvalue[k]),
            "Prob (F-statistic):": f"{i.f_pvalue[k]:.3g}",
            "Log-Likelihood:": number(i.llf[k]),
            "AIC:": number(i.aic[k]),
            "BIC:": number(i.bic[k]),
        }
        table = Table(
            box=HORIZONTALS, show_header=False, title=f"Least squares: {target}", width=_WIDTH
        )
        for justify in ("left", "right", "left", "right"):
            table.add_column(justify=justify, overflow="fold")
        for pair in zip(left.items(), right.items(), strict=True):
            table.add_row(*(Text(cell) for part in pair for cell in part))
        return table

    def _coefficients(self, k: int) -> Table:
        i = self.inference
        letter = "t" if i.use_t else "z"
        level = self.alpha / 2
        headings = [
            "",
            "coef",
            "std err",
            letter,
            f"P>|{letter}|",
            "log10 P",
            f"[{level:.3g}",
            f"{1 - level:.3g}]",
        ]
        table = Table(box=SIMPLE_HEAD, width=_WIDTH)
        for n, heading in enumerate(headings):
            justify: Any = "right" if n else "left"
            table.add_column(Text(heading), justify=justify, overflow="fold")
        columns = rows_of(i, k, self.alpha)
        shown = len(i.terms) if self.most_terms is None else self.most_terms
        for term, row in list(zip(i.terms, columns, strict=True))[:shown]:
            coefficient, error, t, p, log_p, low, high = row
            tests = [_short(t, 3), f"{p:.3f}", _short(log_p, 1)]
            cells = [number(coefficient), number(error), *tests]
            table.add_row(*(Text(cell) for cell in (term, *cells, number(low), number(high))))
        if len(i.terms) > shown:
            table.add_row(Text(f"… {len(i.terms) - shown:,} more"))
        return table

    @property
    def notes(self) -> list[str]:
        """The conventions behind the figures, a sentence each."""
        i = self.inference
        notes = [f"Standard errors are {self._kind()}."]
        if i.use_t:
            notes.append(f"Tests and intervals use t with {i.df_t:,} degrees of freedom.")
        else:
            notes.append("Tests and intervals use the normal distribution.")
        if i.is_weighted:
            notes.append("Weights are precisions: rows of weight 0 are left out and not counted.")
        if (i.rss <= _PERFECT * i.tss).any():
            notes.append(
                "The fit is essentially perfect: residuals are rounding, and so are the standard "
                "errors and all that follows from them."
            )
        return [*notes, *self._nan_notes()]

    def _nan_notes(self) -> list[str]:
        """Why figures are NaN."""
        i, notes = self.inference, list[str]()
        determined = np.full(len(i.terms), fill_value=True)
        if i.is_determined is not None:
            determined = i.is_determined
        if not determined.all():
            notes.append("nan: the data do not determine this coefficient.")
        if np.isnan(i.bse[:, determined]).any() and i.df_resid > 0 and not i.is_partial:
            notes.append(
                "nan: rows of leverage 1 determine this coefficient, and say nothing of its error."
            )
        if i.is_partial:
            notes.append("nan: this standard error was not asked for, or not found.")
        clusters = np.inf if i.n_groups is None else i.n_groups
        if np.isnan(i.fvalue).any() and clusters - 1 < i.df_model:
            notes.append("F is nan: there are no more groups than weights.")
        if i.rank is None:
            notes.append("nan: how many columns depend on others is not known.")
        if i.is_centred is None:
            notes.append("nan: whether a sum of columns is constant is not known.")
        if i.df_resid <= 0:
            notes.append("nan: there are no more rows than coefficients.")
        return notes

    def _kind(self) -> str:
        i = self.inference
        if i.cov_type == NONROBUST:
            return "those of errors of equal variance"
        if i.cov_type == CLUSTER:
            groups = count(i.n_groups or 0, "group")
            return f"clustered by {groups} (G), times G/(G - 1) · (n - 1)/(n - k)"
        return f"robust to unequal variances {_SMALLER_SAMPLE[i.cov_type]}"


def _short(value: float, decimals: int) -> str:
    """Return a number with few decimals, or with an exponent if it is large."""
    if abs(value) < _LARGE or not np.isfinite(value):
        return f"{value:.{decimals}f}"
    return f"{value:.2e}"


def rows_of(inference: Inference, k: int, alpha: float) -> Float64:
    """Return estimate, error, t, p, log₁₀ p and bounds of each term, (P, 7).

    All are NaN for a coefficient that the data do not determine.
    """
    estimates = inference.params[k]
    if inference.is_determined is not None:
        estimates = np.where(inference.is_determined, estimates, np.nan)
    figures = (inference.bse, inference.tvalues, inference.pvalues, inference.log10_pvalues)
    columns = [estimates, *(figure[k] for figure in figures), *inference.conf_int(alpha)[k].T]
    return np.stack(columns, axis=1)


def number(value: float) -> str:
    """Return a number with four decimals, or with an exponent if it is small or large."""
    if value == 0 or _SMALL <= abs(value) < _LARGE or not np.isfinite(value):
        return f"{value:.4f}"
    return f"{value:.3e}"
