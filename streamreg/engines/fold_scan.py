"""Which fold each row is in: found before a fit, without reading X."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.engines.group_scan import pieces_of
from streamreg.errors import InputError, MemoryLimitError, Parameter, Remedy
from streamreg.formatting import agree, count, format_nbytes, given
from streamreg.sources.checks import group_numbers
from streamreg.sources.folds import (
    FOLD_DTYPE,
    MOST_FOLDS,
    ConsecutiveFolds,
    GivenFolds,
    GroupFolds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Int64
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import Dataset

GCV = "gcv"
# Bytes a row while a splitter of scikit-learn runs: numbers of rows for training, for testing, in
# order and shuffled, and masks; and the folds.
SPLIT_NBYTES = 48
# arrays as large as the numbers of all groups, while they are collected
_GROUP_COPIES = 6
_SHUFFLED = "sklearn.model_selection.KFold(5, shuffle=True, random_state=0)"


class FoldedRows(NamedTuple):
    """A data set whose groups are the numbers of folds."""

    dataset: Dataset
    n_folds: int
    alternate: bool  # whether rows of a fold are not consecutive
    have_groups: bool = False  # whether folds are of whole groups, which were read


class GivenSplits:
    """Pairs of row numbers, or of masks, for training and for testing, as a splitter."""

    def __init__(self, pairs: list[Any]) -> None:
        self._pairs = pairs

    def __repr__(self) -> str:
        return f"[{count(len(self._pairs), 'pair')} (train, test)]"

    def get_n_splits(self, *_: object) -> int:
        """Return the number of pairs."""
        return len(self._pairs)

    def split(self, *_: object) -> Iterator[tuple[Array, Array]]:
        """Yield the row numbers of each pair."""
        for pair in self._pairs:
            train, test = (np.asarray(rows) for rows in pair)
            yield _row_numbers(train), _row_numbers(test)


def _row_numbers(rows: Array) -> Array:
    return np.flatnonzero(rows) if rows.dtype == bool else rows


def n_folds_of(cv: Any, n_rows: int) -> int:  # noqa: ANN401  (a splitter)
    """Return the number of folds, as far as it is known without groups."""
    if isinstance(cv, str):
        return 1
    if isinstance(cv, int):
        return cv
    try:
        return int(cv.get_n_splits(_placeholder(n_rows)))
    except (TypeError, ValueError) as error:
        raise _refused(cv, str(error)) from error


def folded(dataset: Dataset, cv: Any, memory_limit: int) -> FoldedRows:  # noqa: ANN401
    """Return the rows with their folds: of ``"gcv"``, a number, or a splitter of scikit-learn.

    A number makes folds of consecutive rows, as ``KFold``; if there are groups, of whole groups, as
    ``GroupKFold``: groups in the order of their size, each to the fold with fewest rows.

    Raises
    ------
    InputError
        Folds cannot be made, or do not partition the rows.
    MemoryLimitError
        Groups, or the numbers of rows that a splitter makes, do not fit.
    """
    n_rows, groups = dataset.n_rows, dataset.groups
    if isinstance(cv, str):
        if groups is not None:
            raise InputError(
                Parameter("groups"),
                " make folds, and ",
                Parameter("cv", GCV),
                " has none: pass ",
                Remedy("cv", 5),
                ", or leave them out",
            )
        return FoldedRows(dataset, 1, alternate=False)
    if isinstance(cv, int):
        if cv > n_rows:
            of = f" is more than the rows of {dataset.X.name}, n_samples={n_rows}"
            raise InputError(Parameter("cv", cv), of)
        if groups is None:
            source: RowSource = ConsecutiveFolds(dataset.X.grid, cv)
            return FoldedRows(replace(dataset, groups=source), cv, alternate=False)
        folds = _fold_groups(groups, cv, memory_limit)
        return FoldedRows(replace(dataset, groups=folds), cv, alternate=True, have_groups=True)
    numbers, n_folds = _split(cv, dataset, memory_limit)
    given_folds = GivenFolds(dataset.X.grid, numbers)
    return FoldedRows(
        replace(dataset, groups=given_folds),
        n_folds,
        alternate=True,
        have_groups=groups is not None,
    )


def _fold_groups(source: RowSource, n_folds: int, memory_limit: int) -> GroupFolds:
    """Give each group a fold: the largest first, to the fold that has fewest rows so far."""
    numbers, sizes = np.empty(0, np.int64), np.empty(0, np.int64)
    is_float = source.dtype.kind == "f"
    for start, values in pieces_of(source):
        if is_float and np.isnan(values).any():
            row = start + int(np.argmax(np.isnan(values)))
            raise InputError(f"{source.name} has NaN in row {row:,}; every row belongs to a group")
        found, counts = np.unique(group_numbers(values), return_counts=True)
        joined, at = np.unique(np.concatenate([numbers, found]), return_inverse=True)
        sizes = np.bincount(at, np.concatenate([sizes, counts])).astype(np.int64)
        numbers = joined
        nbytes = _GROUP_COPIES * (numbers.nbytes + sizes.nbytes)
        if nbytes > memory_limit:
            raise MemoryLimitError(
                f"{source.name} has {count(len(numbers), 'group')} or more, which need "
                f"{format_nbytes(nbytes)}: raise ",
                Remedy("memory_limit"),
            )
    if len(numbers) < n_folds:
        raise InputError(
            Parameter("cv", n_folds),
            f" is more than the {count(len(numbers), 'group')} of {source.name}: pass ",
            Remedy("cv", len(numbers)) if len(numbers) > 1 else Remedy("cv", GCV),
        )
    # equal sizes in the order of values, as in scikit-learn; floats are known by their bits
    values = numbers.view(np.float64) if is_float else numbers
    order = np.argsort(values, kind="stable")
    order = order[np.argsort(sizes[order], kind="stable")[::-1]]
    folds, totals = np.empty(len(numbers), FOLD_DTYPE), np.zeros(n_folds, np.int64)
    for group in order.tolist():
        folds[group] = lightest = int(np.argmin(totals))
        totals[lightest] += sizes[group]
    return GroupFolds(source, numbers, folds)


def _split(cv: Any, dataset: Dataset, memory_limit: int) -> tuple[Array, int]:  # noqa: ANN401
    """Return the fold of each row (N,), by a splitter, and the number of folds."""
    n_rows = dataset.n_rows
    if SPLIT_NBYTES * n_rows > memory_limit:
        raise MemoryLimitError(
            f"{type(cv).__name__} makes arrays of row numbers, "
            f"{format_nbytes(SPLIT_NBYTES * n_rows)} for {count(n_rows, 'row')}, and ",
            Parameter("memory_limit"),
            f" is {format_nbytes(memory_limit)}; no data was read. Pass ",
            Remedy("cv", 5),
            ", whose folds take no memory",
        )
    groups = None if dataset.groups is None else _all_groups(dataset.groups)
    numbers = np.full(n_rows, MOST_FOLDS - 1, FOLD_DTYPE)
    n_folds, n_tested = 0, 0
    try:
        for train, test in cv.split(_placeholder(n_rows), None, groups):
            if n_folds == MOST_FOLDS - 1:
                raise _refused(cv, f"it has more than {MOST_FOLDS - 1:,} folds")
            n_tested += len(test)
            is_whole = len(train) + len(test) == n_rows
            if not is_whole or (numbers[test] != MOST_FOLDS - 1).any():
                raise _refused(cv, "a row is tested twice, or neither tested nor trained with")
            numbers[test] = n_folds
            if (numbers[train] == n_folds).any():
                raise _refused(cv, "a row is tested and trained with in one fold")
            n_folds += 1
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise _refused(cv, str(error)) from error
    if n_tested < n_rows:
        rest = n_rows - n_tested
        raise _refused(cv, f"{count(rest, 'row')} {agree(rest, 'is', 'are')} in no fold")
    if n_folds < 2:  # noqa: PLR2004
        raise _refused(cv, "it has fewer than 2 folds")
    return numbers, n_folds


def _all_groups(source: RowSource) -> Int64:
    return np.concatenate([group_numbers(values) for _, values in pieces_of(source)])


def _placeholder(n_rows: int) -> Array:
    """Return an array of N rows without memory: splitters ask for the number of rows only."""
    return np.broadcast_to(np.zeros(1), (n_rows, 1))


def _refused(cv: object, why: str) -> InputError:
    return InputError(
        given("cv", cv),
        f" does not divide the rows into folds of which each is tested once: {why}. Pass a number "
        f"of folds, or a splitter that does, such as {_SHUFFLED}",
    )
