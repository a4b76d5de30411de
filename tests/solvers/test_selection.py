"""Which penalty is chosen, by errors that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.solvers.selection import SelectionRequest, choose, default_grid

L2S = np.array([1.0, 2.0, 3.0, 4.0])


def chosen(errors, rounding=0.0, **how):
    """Choose by errors (L, F) of one target, or (L, F, K)."""
    errors = np.asarray(errors, float)
    errors = errors[:, :, None] if errors.ndim == 2 else errors
    request = SelectionRequest(tuple(L2S), errors.shape[1], **how)
    return choose(request, L2S, errors, np.broadcast_to(rounding, errors.shape))


def test_the_least_mean_error_of_the_folds_is_best():
    selection, warnings = chosen([[3, 3], [1, 2], [0, 4], [5, 5]])
    assert selection.l2 == 2
    assert selection.best_score == -1.5
    assert warnings == []


@pytest.mark.parametrize("errors", [[[1], [1], [1], [2]], [[1], [1 + 1e-15], [1 - 1e-15], [2]]])
def test_of_equal_errors_the_larger_penalty_is_taken(errors):
    assert chosen(errors)[0].l2 == 3


def test_each_target_has_its_own_best_penalty_if_that_is_asked_for():
    errors = np.array([[3, 9], [1, 8], [2, 7], [4, 8]])[:, None, :]
    assert chosen(errors, per_target=True)[0].l2.tolist() == [2, 3]
    # by the mean over targets: 6, 4.5, 4.5, 6
    selection, _ = chosen(errors)
    assert selection.l2.tolist() == [3, 3]
    assert selection.best_score.tolist() == [-2, -7]


def test_one_standard_error_allows_the_largest_penalty_within_it():
    # the best has errors 1 and 3: their deviation is √2, and one standard error 1
    errors = [[9, 9], [1, 3], [2, 3.9], [2, 4.1]]
    assert chosen(errors)[0].l2 == 2
    assert chosen(errors, one_standard_error=True)[0].l2 == 3


@pytest.mark.parametrize(
    ("errors", "word"), [([[1], [2], [3], [4]], "smallest"), ([[4], [3], [2], [1]], "largest")]
)
def test_a_best_penalty_at_the_edge_of_the_grid_is_a_warning(errors, word):
    (warning,) = chosen(errors)[1]
    assert word in warning
    assert "extend l2" in warning


def test_an_edge_that_is_not_better_than_its_neighbour_is_no_warning():
    selection, warnings = chosen([[2], [1], [1], [1]])
    assert selection.l2 == 4
    assert warnings == []


def test_errors_that_are_rounding_are_raised_to_it_and_told():
    selection, (warning,) = chosen([[1e-3], [-1e-20], [1e-21], [1.0]], rounding=1e-17)
    # both are equal: the larger is taken
    assert selection.l2 == 3
    assert (selection.scores < 0).all()
    assert "fewer than 3 digits" in warning


def test_singular_equations_are_never_best():
    selection, (warning,) = chosen([[np.inf, 1], [2, 2], [3, 3], [4, 4]])
    assert selection.l2 == 2
    assert "1 penalty up to 1 cannot be compared" in warning


def test_the_grid_spans_all_variances():
    grid = default_grid(np.array([4.0, 0.0, 100.0]))
    assert len(grid) == 25
    assert grid[[0, -1]] == pytest.approx([4e-8, 1040])
    assert np.allclose(np.diff(np.log(grid)), np.log(grid[1] / grid[0]))
