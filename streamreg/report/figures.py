"""The figures of a report, drawn by matplotlib as SVG that stands in a page."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from streamreg.formatting import MIB, count, format_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from streamreg.accumulators.residual_histogram import ResidualHistogramResult
    from streamreg.blocks import Array, Float64
    from streamreg.report.coefficients import Coefficients

# matplotlib's type of it lists all its settings, which differ from one version to the next
_STYLE: Any = {
    # text stays text: it can be selected, searched and read aloud
    "svg.fonttype": "none",
    # a name such as "$a$" is no formula
    "text.parse_math": False,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": "#1f2937",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.formatter.useoffset": False,
}
# inches: the text is still readable if the figure fills a telephone's width
_WIDTH, _HEIGHT = 5.2, 3.6
_BLUE, _ORANGE, _GREY = "#1d4ed8", "#c2410c", "#6b7280"
_LIGHT_BLUE = "#93c5fd"
_MOST_BINS = 60
_SHARE_SHOWN = 0.999
_MOST_LETTERS = 22
_WIDE_RANGE = 100.0
_FEWEST_ROWS_OF_A_MEAN = 30
_PLAIN_NUMBERS = (1e-4, 1e7)
# from a blue that is seen on white, for one row
_DENSITY = LinearSegmentedColormap.from_list(
    "density", mpl.colormaps["Blues"](np.linspace(0.25, 1.0, 64))
).with_extremes(bad="white")


def _number(value: float, _: float) -> str:
    """Return the text of a tick."""
    smallest, largest = _PLAIN_NUMBERS
    is_plain = value == 0 or smallest <= abs(value) < largest
    text = f"{value:,.10g}" if is_plain else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}") if is_plain else text


@contextmanager
def _styled() -> Iterator[None]:
    with (
        mpl.rc_context(_STYLE),
        warnings.catch_warnings(),
        # matplotlib pads the range of an axis, which may end at the largest float
        np.errstate(all="ignore"),
    ):
        # the browser has letters that matplotlib's font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


class Drawing(NamedTuple):
    """A figure of a page."""

    svg: str
    caption: str


@_styled()
def draw_coefficients(coefficients: Coefficients, shown: Array, level: str) -> Drawing:
    """Draw coefficients as dots, with their confidence intervals if they are known."""
    terms = [_label(coefficients.terms[number]) for number in shown]
    values, low, high = (
        each[shown] for each in (coefficients.values, coefficients.low, coefficients.high)
    )
    places = np.arange(len(shown))
    figure, axes = _new(height=1.2 + 0.25 * len(shown))
    axes.axvline(0.0, color=_GREY, linewidth=1, linestyle="--")
    axes.plot(values, places, "o", color=_LIGHT_BLUE, markersize=6, zorder=2)
    # over the dots, which are wider than short intervals
    axes.hlines(places, low, high, color=_BLUE, linewidth=2, zorder=3)
    axes.set_yticks(places, terms)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    sizes = np.abs(values[values != 0])
    scale = ""
    if len(sizes) and sizes.max() > _WIDE_RANGE * sizes.min():
        # linear about 0 up to the median size, so that small and large ones are told apart
        axes.set_xscale("symlog", linthresh=float(np.median(sizes)), linscale=1.0)
        axes.margins(x=0.08)
        axes.autoscale_view()
        axes.tick_params(axis="x", rotation=45)
        scale = ", logarithmic beyond the median size"
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(_number)
    axes.set_xlabel(f"coefficient{scale}")
    caption = f"Coefficients of {count(len(shown), 'column')}"
    if coefficients.have_errors:
        caption += f" with {level} confidence intervals"
    return _drawing(figure, caption)


@_styled()
def draw_losses(losses: Float64) -> Drawing:
    """Draw the loss at the start of each epoch and at the end."""
    figure, axes = _new()
    marker = "o" if len(losses) <= _MOST_BINS else ""
    axes.plot(np.arange(len(losses)), losses, color=_BLUE, marker=marker, markersize=4)
    positive = losses[losses > 0]
    if len(positive) and positive.max() > _WIDE_RANGE * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=min(0.0, float(np.nanmin(losses))))
    axes.yaxis.set_major_formatter(_number)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_xlabel("epochs")
    axes.set_ylabel("loss")
    first, *_, last = [*losses[np.isfinite(losses)]] * 2
    caption = f"Loss after each epoch: from {first:.6g} to {last:.6g}"
    return _drawing(figure, caption)


@_styled()
def draw_scores(l2s: Float64, errors: Float64, best: float) -> Drawing:
    """Draw the error of each penalty, (L,): of each fold, (L, F), and their mean."""
    figure, axes = _new()
    n_folds = errors.shape[1]
    if n_folds > 1:
        lines = axes.plot(l2s, errors, color=_LIGHT_BLUE, linewidth=1)
        lines[0].set_label("folds")
    means = errors.mean(axis=1)
    axes.plot(
        l2s, means, color=_BLUE, marker="o", markersize=4, label="mean" if n_folds > 1 else ""
    )
    axes.axvline(best, color=_ORANGE, linewidth=1, linestyle="--", label="best penalty")
    positive = l2s[l2s > 0]
    if len(positive) < len(l2s) and len(positive):
        axes.set_xscale("symlog", linthresh=float(positive[0]))
    elif len(positive):
        axes.set_xscale("log")
    if len(positive):
        axes.set_xticks(_powers_of_ten(positive))
    axes.xaxis.set_major_formatter(_number)
    axes.xaxis.set_minor_formatter(NullFormatter())
    known = errors[np.isfinite(errors) & (errors > 0)]
    if len(known) and known.max() > _WIDE_RANGE * known.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(_number)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    axes.set_xlabel("penalty l2")
    what = "mean squared error" if n_folds > 1 else "generalised cross-validation"
    axes.set_ylabel(what)
    how = f", in {count(n_folds, 'fold')}" if n_folds > 1 else ""
    caption = f"{what.capitalize()} of {count(len(l2s), 'penalty')}{how}: best at {best:.6g}"
    return _drawing(figure, caption)


@_styled()
def draw_memory(sizes: Sequence[tuple[str, float]], limit: float) -> Drawing:
    """Draw sizes in bytes, each with its name, as bars; the limit may be much larger."""
    figure, axes = _new(height=1.1 + 0.5 * len(sizes))
    names = [name for name, _ in sizes]
    mib = [nbytes / MIB for _, nbytes in sizes]
    bars = axes.barh(names, mib, color=[_BLUE, _LIGHT_BLUE][: len(sizes)], height=0.6)
    texts = [format_nbytes(int(nbytes)) for _, nbytes in sizes]
    axes.bar_label(bars, texts, padding=4)
    axes.invert_yaxis()
    # room for the texts beside the bars
    axes.set_xlim(0, 1.35 * max(*mib, 1e-3))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("MiB")
    named = ", ".join(f"{text} {name}" for name, text in zip(names, texts, strict=True))
    if np.isfinite(limit):
        named += f", {format_nbytes(int(limit))} allowed"
    return _drawing(figure, f"Memory that the fit added to the process: {named}")


@_styled()
def draw_residuals(histogram: ResidualHistogramResult) -> Drawing:
    """Draw how many rows have each residual and fitted value, and the mean residual of columns."""
    figure, axes = _new()
    # of few rows, cells that are large enough to be seen
    most = min(_MOST_BINS, max(24, _rice(histogram.n)))
    fitted, residual = (_shown(histogram.counts.sum(axis=axis), most) for axis in (1, 0))
    x, y = fitted.edges(histogram.fitted_edges), residual.edges(histogram.residual_edges)
    columns = fitted.join(histogram.counts)
    counts = residual.join(columns.T)
    inside = int(counts.sum())
    image = axes.imshow(
        np.ma.masked_equal(counts, 0),
        extent=(x[0], x[-1], y[0], y[-1]),
        norm=LogNorm(vmin=1, vmax=max(2.0, float(counts.max()))),
        cmap=_DENSITY,
        aspect="auto",
        origin="lower",
        interpolation="none",
    )
    axes.axhline(0.0, color=_GREY, linewidth=1, linestyle="--")
    rows = columns.sum(axis=1)
    enough = rows >= _FEWEST_ROWS_OF_A_MEAN
    if enough.any():
        means = columns[enough] @ _centres(histogram.residual_edges) / rows[enough]
        axes.plot(_centres(x)[enough], means, color=_ORANGE, linewidth=1.5, label="mean residual")
        axes.legend(loc="upper right", frameon=True, framealpha=0.8, edgecolor="none")
    if counts.max() > 1:
        bar = figure.colorbar(image, ax=axes, format=FuncFormatter(_number))
        bar.set_label("rows", labelpad=2)
        bar.ax.minorticks_off()
        if bar.solids is not None:
            bar.solids.set_rasterized(True)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_number)
    axes.yaxis.set_major_formatter(_number)
    axes.set_xlabel("fitted value")
    axes.set_ylabel("residual: observed minus fitted")
    return _drawing(
        figure,
        "Residuals against fitted values, as rows in each cell" + _outside(inside, histogram),
    )


@_styled()
def draw_residual_histogram(histogram: ResidualHistogramResult, rmse: float) -> Drawing:
    """Draw how many rows have each residual, beside a normal distribution of the same spread."""
    figure, axes = _new()
    rows = histogram.counts.sum(axis=0)
    shown = _shown(rows, min(_MOST_BINS, _rice(histogram.n)))
    edges, counts = shown.edges(histogram.residual_edges), shown.join(rows)
    axes.stairs(counts, edges, fill=True, color=_LIGHT_BLUE)
    if rmse > 0:
        mean = rows @ _centres(histogram.residual_edges) / rows.sum()
        spread = rmse * (np.sqrt(max(1 - (mean / rmse) ** 2, 0.0)) or 1.0)
        at = np.linspace(edges[0], edges[-1], 200)
        density = np.exp(-0.5 * ((at - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        expected = rows.sum() * (edges[1] - edges[0]) * density
        axes.plot(at, expected, color=_ORANGE, linewidth=1.5, label="normal")
        axes.legend(loc="upper right", frameon=False)
    axes.axvline(0.0, color=_GREY, linewidth=1, linestyle="--")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("residual: observed minus fitted")
    axes.set_ylabel("rows")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_number)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_formatter(_number)
    return _drawing(
        figure,
        "Histogram of residuals, beside a normal distribution of the same mean and deviation"
        + _outside(int(counts.sum()), histogram),
    )


class _Shown(NamedTuple):
    """The bins of an axis that are drawn, several joined into one."""

    start: int
    step: int  # bins in one
    size: int

    def join(self, counts: Float64) -> Float64:
        """Return the counts of the joined bins; the first axis is that of the bins."""
        part = counts[self.start : self.start + self.step * self.size]
        return np.add.reduceat(part, np.arange(0, len(part), self.step), axis=0)

    def edges(self, edges: Float64) -> Float64:
        """Return the limits of the joined bins; the last may have a part beyond the data.

        If all values are the same, to rounding, they are in one bin, which is drawn wider.
        """
        if len(edges) == 2:  # noqa: PLR2004
            half = 0.05 * abs(edges[0]) or 0.5
            return np.array([edges[0] - half, edges[0] + half])
        width = edges[1] - edges[0]
        joined: Float64 = edges[self.start] + width * self.step * np.arange(self.size + 1)
        return joined


def _powers_of_ten(values: Float64) -> Float64:
    """Return up to five powers of ten in the range of positive values; else the ends."""
    first, last = np.ceil(np.log10(values.min())), np.floor(np.log10(values.max()))
    if last <= first:
        return values[[0, -1]]
    step = max(1.0, np.ceil((last - first) / 4))
    powers: Float64 = 10.0 ** np.arange(first, last + 0.5, step)
    return powers


def _rice(n_rows: Float64) -> int:
    """Return the number of bins by Rice's rule: more would show chance."""
    return round(2 * float(np.cbrt(n_rows)))


def _shown(rows: Float64, most: int) -> _Shown:
    """Return up to ``most`` bins, which leave out up to 0.05 % of the rows on each side."""
    tail = (1 - _SHARE_SHOWN) / 2 * rows.sum()
    below, above = np.cumsum(rows), np.cumsum(rows[::-1])
    start, stop = int(np.searchsorted(below, tail, "right")), len(rows)
    stop -= int(np.searchsorted(above, tail, "right"))
    n_bins = max(stop - start, 1)
    step = -(-n_bins // most)
    return _Shown(start, step, -(-n_bins // step))


def _centres(edges: Float64) -> Float64:
    centres: Float64 = (edges[:-1] + edges[1:]) / 2
    return centres


def _outside(inside: int, histogram: ResidualHistogramResult) -> str:
    left_out = int(histogram.n) - inside
    return f". {count(left_out, 'row')} outside the axes" if left_out else ""


def _new(height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _drawing(figure: Figure, caption: str) -> Drawing:
    out = StringIO()
    # no date, so that the same model gives the same page
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # the salt makes names the same in each run, and different in the figures of a page
    with mpl.rc_context({"svg.hashsalt": caption}):
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    svg = out.getvalue()
    svg = svg[svg.index("<svg ") :]
    # the page scales the figure; names of groups would be the same in each figure
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    return Drawing(f'<svg role="img" aria-label="{escape(caption)}"{svg[4:]}', caption)


def _label(term: str) -> str:
    return term if len(term) <= _MOST_LETTERS else f"{term[: _MOST_LETTERS - 1]}…"
