"""Blocks of X, y and weights, read together."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import Block, on_host
from streamreg.errors import InputError
from streamreg.sources.checks import finite_rows, has_inexact, narrow, not_finite, taken

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64
    from streamreg.sources.base import Reader
    from streamreg.sources.dataset import Dataset


class BlockReader:
    """Reads blocks of a data set, for one thread.

    Rows of weight 0 are left out, and rows with NaN or inf if ``nan_policy`` is ``"omit"``.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        readers: dict[str, Reader] = {}
        with ExitStack() as opened:
            for name, source in dataset.named().items():
                readers[name] = opened.enter_context(closing(source.open()))
            # if one source cannot be opened, the stack closes the readers opened before it
            self._opened = opened.pop_all()
        self._X, self._y = readers["X"], readers.get("y")
        self._weight = readers.get("sample_weight")
        # rows left out for NaN or inf since the reader was opened
        self.n_omitted = 0
        # names of X and y, if they hold an integer that float64 cannot represent
        self.rounded = {rows.name for rows in (dataset.X, dataset.y) if rows and rows.is_rounded}
        # whether ``read`` looks for such integers
        self.checks_integers = True

    def read(self, start: int, stop: int) -> Block:
        """Return rows ``start`` to ``stop``; they are valid until the next read."""
        X, y, weight = self._read(start, stop)
        keep = None if weight is None else weight > 0
        if self._dataset.nan_policy == "omit":
            finite = finite_rows(X) & finite_rows(y)
            self.n_omitted += int(np.count_nonzero(~finite if keep is None else keep & ~finite))
            keep = finite if keep is None else keep & finite
        if keep is not None and not keep.all():
            X, y = taken(X, keep), taken(y, keep)
            weight = None if weight is None else weight[keep]
        for source, values in ((self._dataset.X, X), (self._dataset.y, y)):
            if source is not None and self.checks_integers and has_inexact(values):
                self.rounded.add(source.name)
        return Block(X, y, weight, start)

    def prefetch(self, start: int, stop: int) -> None:
        """Ask the system to fetch these rows while other rows are reduced."""
        self._X.prefetch(start, stop)

    def not_finite(self, start: int, stop: int) -> InputError | None:
        """Return the error that names the first NaN or inf of these rows, if there is any."""
        X, y, weight = self._read(start, stop)
        counted = np.ones(len(X), bool) if weight is None else weight > 0
        names = self._dataset.feature_names
        error = not_finite(self._dataset.X, on_host(X), counted, start, names)
        if error is None and self._dataset.y is not None:
            error = not_finite(self._dataset.y, on_host(y), counted, start, None)
        return error

    def close(self) -> None:
        """Close the readers of X, y and weights."""
        self._opened.close()

    def _read(self, start: int, stop: int) -> tuple[Array, Array, Float64 | None]:
        X = narrow(self._X.read(start, stop))
        if self._y is None:
            y: Array = np.empty((len(X), 0))
        else:
            y = narrow(self._y.read(start, stop)).reshape(len(X), -1)
        weight = None
        if self._weight is not None:
            weight = np.ascontiguousarray(on_host(self._weight.read(start, stop)), np.float64)
            self._require_weights(weight, start)
        return X, y, weight

    def _require_weights(self, weight: Float64, start: int) -> None:
        bad = ~(np.isfinite(weight) & (weight >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            source = self._dataset.weight
            place = source.place(start + row) if source else ""
            where = "" if source is None or place == source.name else f" ({place})"
            raise InputError(
                f"sample_weight is {weight[row]} in row {start + row:,}{where}; weights must be "
                "finite and not negative. A weight of 0 leaves a row out"
            )
