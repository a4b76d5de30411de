"""The folds of rows are those of scikit-learn's splitters."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from stores import read_all

from streamreg.engines.fold_scan import folded
from streamreg.errors import InputError, MemoryLimitError
from streamreg.formatting import GIB
from streamreg.sources.open import open_dataset

N = 103


def folds(cv, groups=None, memory_limit=GIB):
    rows = folded(open_dataset(np.zeros((N, 1)), np.zeros(N), None, groups), cv, memory_limit)
    return read_all(rows.dataset.groups, 17), rows.n_folds


def of_sklearn(splitter, groups=None):
    numbers = np.full(N, -1)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(N), None, groups)):
        numbers[test] = fold
    return numbers


@pytest.mark.parametrize("n_folds", [2, 5, 10, N])
def test_a_number_makes_the_folds_of_kfold(n_folds):
    found, count = folds(n_folds)
    assert count == n_folds
    np.testing.assert_array_equal(found, of_sklearn(KFold(n_folds)))


@pytest.mark.parametrize(
    "make", [np.int64, lambda g: g - 7.5, lambda g: -g.astype("f4"), lambda g: g.astype("U3")]
)
@pytest.mark.parametrize("n_folds", [2, 5])
def test_a_number_with_groups_makes_the_folds_of_group_kfold(make, n_folds):
    # many groups are of equal size; as texts, they are numbered in the order of their rows
    groups = np.sort(np.random.default_rng(0).integers(0, 10, N))
    found, _ = folds(n_folds, make(groups))
    np.testing.assert_array_equal(found, of_sklearn(GroupKFold(n_folds), make(groups)))


@pytest.mark.parametrize(
    "splitter",
    [KFold(4, shuffle=True, random_state=0), GroupKFold(3), LeaveOneGroupOut()],
    ids=lambda splitter: type(splitter).__name__,
)
def test_splitters_that_partition_the_rows_are_taken(splitter):
    takes_groups = not isinstance(splitter, KFold)
    groups = np.random.default_rng(0).integers(0, 6, N) if takes_groups else None
    found, count = folds(splitter, groups)
    np.testing.assert_array_equal(found, of_sklearn(splitter, groups))
    assert count == found.max() + 1


@pytest.mark.parametrize(
    "splitter",
    [
        ShuffleSplit(3),
        RepeatedKFold(n_repeats=2),
        TimeSeriesSplit(3),
        PredefinedSplit(np.arange(N) % 3 - 1),
        StratifiedKFold(3),
        LeaveOneGroupOut(),
        KFold(N + 1),
    ],
    ids=lambda splitter: type(splitter).__name__,
)
def test_other_splitters_are_refused_with_one_that_works(splitter):
    with pytest.raises(InputError, match="does not divide the rows into folds") as error:
        folds(splitter)
    remedy = re.search(r"sklearn.model_selection.(KFold\(.*?\))", str(error.value))[1]
    assert folds(eval(remedy, {"KFold": KFold}))[1] == 5  # noqa: S307


def test_what_cannot_make_folds_is_refused_with_its_reason():
    groups = np.arange(N) // 50
    with pytest.raises(InputError, match=r"cv=5 is more than the 3 groups.* pass cv=3"):
        folds(5, groups)
    with pytest.raises(InputError, match="cv=104 is more than the rows of X, n_samples=103"):
        folds(104)
    with pytest.raises(InputError, match='cv="gcv" has none'):
        folds("gcv", groups)
    with pytest.raises(InputError, match="NaN in row 3"):
        folds(2, np.where(np.arange(N) == 3, np.nan, groups))


def test_row_numbers_that_do_not_fit_are_refused_before_they_are_made():
    with pytest.raises(MemoryLimitError, match="Pass cv=5, whose folds take no"):
        folds(KFold(5), memory_limit=1000)
