"""``Statistics``: what one read of the rows gives, kept for many fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from streamreg import validate
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError, warn
from streamreg.formatting import count, given
from streamreg.progress import progress_of
from streamreg.solvers.registry import SOLVER_OF_KIND
from streamreg.sources.kinds import is_streamable
from streamreg.statistics.file import StoredStatistics, save_gathered
from streamreg.statistics.gather import gather

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamreg.blocks import Float64
    from streamreg.schema import Schema
    from streamreg.statistics.about import About, Piece
    from streamreg.statistics.gathered import Gathered

# paths, arrays of any library, data frames, lists
Rows: TypeAlias = Any


class Statistics:
    """What one pass over the rows gives: n, Σs, means and products about the means, in O(D²).

    ``LinearRegression(…).fit(statistics)`` solves for weights from it without reading a row:

        w = (Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ + l2·Σs·I)⁻¹ Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ,        b = ȳ - x̄·w

    for any ``l2``, with or without intercept, for any subset of the columns. It is made by
    :meth:`of` or :meth:`load`. Statistics of different rows merge, with n = nₐ + n_b and
    δ = x̄_b - x̄ₐ, by [1]_

        XᵀX = XᵀXₐ + XᵀX_b + (nₐ n_b / n) δ δᵀ

    The merge of pieces in the order of their rows is bitwise that of one pass, if each piece but
    the first is one segment of that pass; in any order it agrees to about 1e-14.

    Of ``kind="gram"`` it holds XᵀX, and 8·(D² + D·(K + 3)) bytes. Weights lose 2 log₁₀ κ digits to
    the condition number κ of the columns, and no rows are left to correct them. Of ``kind="qr"`` it
    holds the triangular factor R of (1, X, y), 8·(1 + D + K)² bytes, gathered in about 2.5 times
    the operations, and loses log₁₀ κ digits. ``digits_`` of a fit says how many are left. Residuals
    of single rows are not kept, so that ``cov_type`` is ``None`` or ``"nonrobust"``.

    Attributes
    ----------
    kind
        ``"gram"`` or ``"qr"``.
    n_features, n_targets
        D and K.
    n_rows, n_omitted
        Rows that count; and rows left out for NaN or inf. Rows of weight 0 are in neither.
    weight_sum
        Σ sᵢ; without weights the number of rows.
    feature_names, target_names
        (D,) and (K,), or ``None`` where they are not known.
    schema
        If X was made of a table, how; else ``None``.
    pieces
        What was read: tuples of ``source``, a name, and ``n_rows``. Consecutive pieces of one name
        are listed as one.

    References
    ----------
    .. [1] Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegression, Statistics
    >>> X = np.arange(12.0).reshape(6, 2) ** 2
    >>> y = X @ [1.0, 2.0] + [3.0, 4.0, 3.0, 2.0, 3.0, 3.0]
    >>> first, second = Statistics.of(X[:4], y[:4]), Statistics.of(X[4:], y[4:])
    >>> both = first.merge(second)
    >>> both.n_rows, LinearRegression().fit(both).coef_.round(2)
    (6, array([1.11, 1.9 ]))
    """

    def __init__(self) -> None:
        raise InputError("statistics are made by Statistics.of(X, y) or Statistics.load(path)")

    @classmethod
    def of(
        cls,
        X: Rows,
        y: Rows = None,
        sample_weight: Rows = None,
        *,
        kind: str = "gram",
        memory_limit: int | str | None = None,
        n_threads: int | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        device_memory_limit: int | str | None = None,
        client: object = None,
        missing_chunks: str = "error",
        decode_cf: bool = True,
        nan_policy: Literal["raise", "omit"] = "raise",
        progress: bool = False,
    ) -> Statistics:
        """Read rows once.

        Parameters
        ----------
        X, y, sample_weight
            As for ``LinearRegression.fit``: data sets, arrays of many kinds, and tables.
        kind
            ``"gram"``: XᵀX. ``"qr"``: the triangular factor R, for columns that depend nearly on
            each other.
        memory_limit, n_threads, device, device_memory_limit, client
        missing_chunks, decode_cf, nan_policy, progress
            As for ``LinearRegression``.

        Raises
        ------
        MemoryLimitError
            The plan does not fit; no data was read.
        InputError, DataCorruptionError
            As ``fit`` raises them.

        Warns
        -----
        DataWarning
            Rows were left out; integers or outliers lose digits.
        """
        config = FitConfig.parse(
            memory_limit=memory_limit,
            n_threads=n_threads,
            device=device,
            device_memory_limit=device_memory_limit,
            client=client,
            missing_chunks=missing_chunks,
            decode_cf=decode_cf,
            nan_policy=nan_policy,
        )
        return cls._read(X, y, sample_weight, kind, config, progress=progress)

    @classmethod
    def _read(
        cls,
        X: Rows,
        y: Rows,
        sample_weight: Rows,
        kind: str,
        config: FitConfig,
        *,
        progress: bool,
    ) -> Statistics:
        validate.choice("kind", kind, tuple(SOLVER_OF_KIND))
        validate.flag("progress", progress)
        dataset = config.open_dataset(X, y, sample_weight)
        dataset = replace(dataset, feature_names=dataset.feature_names or _names_of(X))
        outcome = gather(dataset, config, kind, progress_of(progress, "gather"))
        for message in outcome.warnings:
            warn(message)
        return cls.holding(outcome.gathered)

    @classmethod
    def holding(cls, gathered: Gathered) -> Statistics:
        """Return statistics that were gathered; they own the state."""
        made = object.__new__(cls)
        made._gathered = gathered
        return made

    _gathered: Gathered | None

    def update(
        self,
        X: Rows,
        y: Rows = None,
        sample_weight: Rows = None,
        **reading: Any,  # noqa: ANN401  (parameters of many types)
    ) -> Self:
        """Read more rows into these statistics, and return them.

        Equal to ``merge`` with statistics of the new rows, which are made first: if they cannot be
        read, nothing has changed. Beside these statistics that takes what :meth:`of` takes.

        Parameters
        ----------
        X, y, sample_weight
            More rows of the same columns.
        **reading
            The keywords of :meth:`of`, but ``kind``.

        Raises
        ------
        InputError
            The columns or targets differ: the message names the first that does. And as :meth:`of`.
        """
        if "kind" in reading:
            raise InputError("kind cannot change in update; gather the rows again")
        more = Statistics.of(X, y, sample_weight, kind=self.kind, **reading)
        self.add(more)
        return self

    def merge(self, *others: Statistics) -> Statistics:
        """Return the statistics of these rows, then those of others, in this order.

        All of them stay as they are, because a merge that changed one would surprise users of
        NumPy. So it makes a copy: one state of 8·D² bytes, however many are merged. ``update``
        makes none.

        Raises
        ------
        InputError
            The kinds, columns or targets differ: the message names the first that does. Weights may
            be given for some rows only.
        """
        for other in others:
            if not isinstance(other, Statistics):
                raise InputError(
                    f"merge takes Statistics, not {type(other).__name__}: pass Statistics.of(…), "
                    "or use update"
                )
        made = self.holding(self._whole().copied())
        for other in others:
            made.add(other)
        return made

    def add(self, more: Statistics) -> None:
        """Merge other statistics into the memory of these; otherwise as :meth:`merge`."""
        mine, later = self._whole(), more._whole()
        if mine is later:
            later = later.copied()
        # refused before anything is written
        mine.about.followed_by(later.about)
        # an interrupted merge has changed some of the sums
        self._gathered = None
        self._gathered = mine.followed_by(later)

    def select(
        self,
        columns: Sequence[str | int],
        targets: Sequence[str | int] | None = None,
    ) -> Statistics:
        """Return the statistics of some columns, and perhaps of some targets, in the order given.

        They are named, or numbered from 0. This takes one state of the selected columns, and for
        ``kind="qr"`` another one with all rows of R. ``schema`` is kept only if all are selected.

        Raises
        ------
        InputError
            There is no such column, or it is listed twice.
        """
        whole = self._whole()
        about = whole.about
        x = _numbers("columns", columns, about.feature_names, about.n_features)
        y = list(range(about.n_targets))
        if targets is not None:
            y = _numbers("targets", targets, about.target_names, about.n_targets)
        return self.holding(whole.selected(x, y))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.npz``, whole or not at all, with checksums; an older file is replaced."""
        save_gathered(self._whole(), path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, memory_limit: int | str | None = None
    ) -> Statistics:
        """Return statistics from a file of :meth:`save`.

        Raises
        ------
        InputError
            There is no such file, or it holds no statistics; nothing in it is ever run.
        MemoryLimitError
            They take more than ``memory_limit``; their sums were not read.
        """
        limit = FitConfig.parse(memory_limit=memory_limit).memory_limit
        return cls.holding(StoredStatistics(path).load(limit))

    def require_alone(self, *others: object) -> None:
        """Refuse y, weights and groups beside statistics."""
        if any(other is not None for other in others):
            raise InputError("statistics hold y and the weights; pass them alone")

    def take(self) -> Gathered:
        """Return a copy that a solver may overwrite."""
        return self._whole().copied()

    @property
    def about(self) -> About:
        """What these statistics are of."""
        return self._whole().about

    @property
    def kind(self) -> str:
        """``"gram"`` or ``"qr"``."""
        return self.about.kind

    @property
    def n_features(self) -> int:
        """D."""
        return self.about.n_features

    @property
    def n_targets(self) -> int:
        """K."""
        return self.about.n_targets

    @property
    def n_rows(self) -> int:
        """Rows that count: neither left out nor of weight 0."""
        return self.about.n_counted

    @property
    def n_omitted(self) -> int:
        """Rows left out for NaN or inf."""
        return self.about.n_omitted

    @property
    def weight_sum(self) -> float:
        """Σ sᵢ."""
        return self.about.weight_sum

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns of X, (D,)."""
        return self.about.feature_names

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The names of the targets, (K,)."""
        return self.about.target_names

    @property
    def schema(self) -> Schema | None:
        """How X was made of the columns of a table."""
        return self.about.schema

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What was read: (source, n_rows) each."""
        return self.about.pieces

    @property
    def x_mean(self) -> Float64:
        """x̄, (D,), in the user's units."""
        result, units = self._whole().result, self._whole().units
        return _read_only((result.origin + result.offset) / units.x)

    @property
    def y_mean(self) -> Float64:
        """ȳ, (K,), in the user's units."""
        result, units = self._whole().result, self._whole().units
        return _read_only((result.y_origin + result.y_offset) / units.y)

    @property
    def xx(self) -> Float64:
        """Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ, (D, D): of ``kind="qr"`` RᵀR, which takes D² numbers.

        That of ``kind="gram"`` is no copy, so that ``update`` changes it. Products that float64
        cannot hold are 0 or inf, here and in ``xy`` and ``yy``; a fit uses them in other units.
        """
        xx, units = self._products().xx, self._whole().units
        if (units.x == 1).all():
            return _read_only(xx.view())
        with np.errstate(all="ignore"):
            return _read_only(xx / units.x / units.x[:, None])

    @property
    def xy(self) -> Float64:
        """Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ, (D, K)."""
        units = self._whole().units
        with np.errstate(all="ignore"):
            return _read_only(self._products().xy / units.x[:, None] / units.y)

    @property
    def yy(self) -> Float64:
        """Σ sᵢ (yᵢ - ȳ)², (K,): of each target, because K² numbers of all pairs are not needed."""
        units = self._whole().units
        with np.errstate(all="ignore"):
            return _read_only(self._products().yy / units.y / units.y)

    def __repr__(self) -> str:
        return (
            f"<Statistics {self.kind}: {count(self.n_rows, 'row')}, "
            f"{count(self.n_features, 'feature')}, {count(self.n_targets, 'target')}>"
        )

    def _products(self) -> Any:  # noqa: ANN401  (a named tuple)
        whole = self._whole()
        return whole.about.statistic.products(whole.state)

    def _whole(self) -> Gathered:
        if self._gathered is None:
            raise InputError(
                "these statistics are incomplete, because an update was interrupted; load or "
                "gather them again"
            )
        return self._gathered


def _names_of(X: Rows) -> tuple[str, ...] | None:
    """Return the names of the columns of a data frame, if all are texts, as scikit-learn does."""
    if is_streamable(X):
        return None
    names = tuple(getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def _numbers(
    parameter: str, asked: Sequence[str | int], names: tuple[str, ...] | None, size: int
) -> list[int]:
    """Return the numbers of columns that are named, or numbered from 0."""
    if isinstance(asked, str | int):
        asked = [asked]
    if not isinstance(asked, Iterable):
        raise InputError(given(parameter, asked), " must list names or numbers, each once")
    numbers = []
    for each in asked:
        column = each.item() if isinstance(each, np.generic) else each
        if isinstance(column, str) and column in (names or ()):
            column = (names or ()).index(column)
        if type(column) is not int or not 0 <= column < size:
            known = f" ({', '.join(names[:5])}{', …' if size > 5 else ''})" if names else ""  # noqa: PLR2004
            raise InputError(
                given(parameter, each), f" is none of the {count(size, parameter[:-1])}{known}"
            )
        numbers.append(column)
    if not numbers or len({*numbers}) < len(numbers):
        raise InputError(given(parameter, asked), " must list columns, each once")
    return numbers


def _read_only(array: Float64) -> Float64:
    array.flags.writeable = False
    return array
