"""Blocks of X, y, weights and groups, read together."""

from __future__ import annotations

from contextlib import ExitStack, closing
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import numpy as np

from streamreg.blocks import Block, FileRows, new_piece, on_host
from streamreg.errors import InputError
from streamreg.sources.checks import (
    finite_rows,
    group_numbers,
    has_inexact,
    narrow,
    not_finite,
    taken,
)

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64, Int64
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
        self._weight, self._groups = readers.get("sample_weight"), readers.get("groups")
        # rows left out for NaN or inf since the reader was opened
        self.n_omitted = 0
        # names of X and y, if they hold an integer that float64 cannot represent
        self.rounded = {rows.name for rows in (dataset.X, dataset.y) if rows and rows.is_rounded}
        # memory for pieces of rows that stay in their files
        self._piece: Array | None = None
        # whether ``read`` looks for integers that float64 cannot represent
        self.checks_integers = True

    def read(self, start: int, stop: int, *, in_files: bool = False) -> Block:
        """Return rows ``start`` to ``stop``; they are valid until the next read.

        With ``in_files``, X may stay in its files, from which kernels read it.
        """
        left = self._left_in_files(start, stop) if in_files else None
        if left is not None:
            return left
        X, y, weight = self._read(start, stop)
        groups = self._read_groups(start, stop)
        keep = None if weight is None else weight > 0
        if self._dataset.nan_policy == "omit":
            finite = finite_rows(X) & finite_rows(y)
            self.n_omitted += int(np.count_nonzero(~finite if keep is None else keep & ~finite))
            keep = finite if keep is None else keep & finite
        if keep is not None and not keep.all():
            X, y = taken(X, keep), taken(y, keep)
            weight = None if weight is None else weight[keep]
            groups = None if groups is None else groups[keep]
        read = ((self._dataset.X, self._X, X), (self._dataset.y, self._y, y))
        for source, reader, values in read:
            if source is None or reader is None:
                continue
            # of some sources it is known once the rows are converted
            is_rounded = source.is_rounded or reader.rounds
            if is_rounded or (self.checks_integers and has_inexact(values)):
                self.rounded.add(source.name)
        return Block(X, y, weight, start, groups=groups)

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

    def _left_in_files(self, start: int, stop: int) -> Block | None:
        """Return rows whose X stays in its files, if all rows count and none needs a check."""
        X = self._dataset.X
        is_checked = self.checks_integers and X.dtype.kind in "iu" and X.dtype.itemsize == 8  # noqa: PLR2004
        if not X.is_in_files or self._dataset.nan_policy == "omit" or is_checked:
            return None
        # if there are no parts, kernels call ``read`` for a piece at a time
        parts = self._X.parts(start, stop) or []
        if X.is_rounded:
            # of a table it is known once its columns are read
            self.rounded.add(X.name)
        y, weight = self._read_beside(start, stop)
        if weight is not None and not weight.all():
            return None
        if self.checks_integers and self._dataset.y is not None and has_inexact(y):
            self.rounded.add(self._dataset.y.name)
        if self._piece is None:
            self._piece = new_piece(X.row_nbytes)
        files, offsets, heights = zip(*parts, strict=True) if parts else ((), (), ())
        rows = FileRows(
            shape=(stop - start, X.shape[1]),
            dtype=X.dtype,
            files=np.array(files, np.int64),
            offsets=np.array(offsets, np.int64),
            bounds=np.array([*accumulate(heights, initial=0)], np.int64),
            read=lambda first, last: self._X.read(start + first, start + last),
            piece=self._piece,
        )
        groups = self._read_groups(start, stop)
        return Block(cast("Array", rows), y, weight, start, groups=groups)

    def _read(self, start: int, stop: int) -> tuple[Array, Array, Float64 | None]:
        return narrow(self._X.read(start, stop)), *self._read_beside(start, stop)

    def _read_beside(self, start: int, stop: int) -> tuple[Array, Float64 | None]:
        """Return y, and weights if there are any."""
        y: Array = np.empty((stop - start, 0))
        if self._y is not None:
            y = narrow(self._y.read(start, stop)).reshape(stop - start, -1)
        weight = None
        if self._weight is not None:
            weight = np.ascontiguousarray(on_host(self._weight.read(start, stop)), np.float64)
            self._require_weights(weight, start)
        return y, weight

    def _read_groups(self, start: int, stop: int) -> Int64 | None:
        if self._groups is None:
            return None
        return group_numbers(on_host(narrow(self._groups.read(start, stop))))

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
