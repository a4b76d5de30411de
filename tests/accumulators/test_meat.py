"""The meat of robust and clustered covariances: the laws, and sums by NumPy in 80 bits."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import laws
import numpy as np
import pytest
import strategies as ours
from hypothesis import given, settings
from hypothesis import strategies as st

from streamreg.accumulators.groups import GroupSums, SortedGroups
from streamreg.accumulators.meat import Meat
from streamreg.blocks import Block
from streamreg.kernels.meat import FittedRows, Leverage
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.kernels.triangle import Triangle

Wide = np.longdouble
# relative error of sums of some tens of terms, each of a triangular solution
ROUNDING = 1e-12


class Grouped(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    groups: np.ndarray

    def blocks(self, heights, start=0):
        bounds = pairwise(np.cumsum([start, *heights]).tolist())
        return [
            Block(
                self.X[a:b],
                self.y[a:b],
                None if self.weight is None else self.weight[a:b],
                a,
                groups=self.groups[a:b],
            )
            for a, b in bounds
        ]


@st.composite
def rows(draw, *, consecutive=True):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    X, y = rng.standard_normal((n, d)) + 3, rng.standard_normal((n, 1))
    # ids beyond 2^53, which float64 does not hold
    groups = 2**60 + rng.integers(0, draw(st.integers(1, n)), n)
    if consecutive:
        groups = np.sort(groups)[:: draw(st.sampled_from([1, -1]))].copy()
    weight = rng.uniform(0.1, 3.0, n) if draw(st.booleans()) else None
    return Grouped(X, y, weight, groups)


def fitted(d, rng):
    return FittedRows(
        scale=np.full(d, 0.5),
        origin=np.full(d, 1.25),
        offset=rng.standard_normal(d),
        weights=rng.standard_normal(d),
        y_scale=None,
        y_origin=np.array([0.5]),
        y_offset=0.25,
    )


def triangle(d, rng):
    lower = np.asfortranarray(np.tril(rng.standard_normal((d, d)), -1) + 2 * np.eye(d))
    return Triangle(lower, rng.permutation(d), d, np.ones((d, 1)))


def expected(data, fit, whitening, power=0, share=0.1, factor=0.05):
    """Return z, q, r and ω of each row."""
    X, y = data.X.astype(Wide), data.y[:, 0].astype(Wide)
    s = np.ones(len(X), Wide) if data.weight is None else data.weight.astype(Wide)
    z = X * fit.scale - fit.origin - fit.offset
    r = z @ fit.weights - (y - fit.y_origin[0] - fit.y_offset)
    q = z
    if whitening is not None:
        q = np.empty_like(z)
        for i in range(z.shape[1]):  # forward substitution
            known = q[:, :i] @ whitening.matrix[i, :i]
            q[:, i] = (z[:, whitening.pivots[i]] - known) / whitening.matrix[i, i]
    h = s * (share + factor * (q**2).sum(axis=1))
    return z, q, s * r, (s * r) ** 2 / np.maximum(1 - h, 1e-10) ** power


def close(found, value, size):
    assert np.all(np.abs(np.asarray(found, Wide) - value) <= ROUNDING * (size + 1e-300))


def statistics(data, rng):
    """Return each accumulator, and a check of its result."""
    d = data.X.shape[1]
    fit, whitening = fitted(d, rng), triangle(d, rng)
    numbers = np.unique(data.groups)
    z, q, sr, _ = expected(data, fit, whitening)

    def is_meat(power, whitened):
        _, columns, _, omega = expected(data, fit, whitened, power)

        def check(result):
            size = np.abs(columns)
            close(result.total, omega.sum(), omega.sum())
            close(result.sums, omega @ columns, omega @ size)
            meat = (columns * omega[:, None]).T @ columns
            close(np.tril(result.meat), np.tril(meat), (size * omega[:, None]).T @ size)

        return check

    def sums(values):
        return np.array([values[data.groups == number].sum(axis=0) for number in numbers])

    def is_group_sums(result):
        each = np.column_stack([sr, sr[:, None] * z])
        close(result.sums, sums(each), sums(np.abs(each)) + np.abs(each).sum())
        assert result.rows.tolist() == [np.count_nonzero(data.groups == n) for n in numbers]

    def is_products(result):
        u = sums(np.column_stack([sr, sr[:, None] * q]))
        size = sums(np.abs(np.column_stack([sr, sr[:, None] * q])))
        assert result.n_groups == len(numbers)
        found = np.tril(result.meat + result.rest.T @ result.rest)
        close(found, np.tril(u.T @ u), size.T @ size)

    return [
        (Meat(d, fit), is_meat(0, None)),
        (Meat(d, fit, whitening), is_meat(0, whitening)),
        (Meat(d, fit, whitening, Leverage(1, 0.1, 0.05, 1e-10)), is_meat(1, whitening)),
        (Meat(d, fit, whitening, Leverage(2, 0.1, 0.05, 1e-10)), is_meat(2, whitening)),
        (GroupSums(fit, numbers), is_group_sums),
        (SortedGroups(fit, whitening), is_products),
    ]


@pytest.fixture(autouse=True, params=["numpy", best_kernels()])
def _laws_of(request, monkeypatch):
    # not on a GPU
    monkeypatch.setattr(laws, "KERNELS", load_kernels(request.param).by_kind["dense"])


FEW = settings(max_examples=25)


@pytest.mark.usefixtures("tile_sizes")
@FEW
@given(data=st.data())
def test_any_split_into_blocks_and_segments_gives_numpys_sums(data):
    drawn = data.draw(rows())
    cuts = [data.draw(ours.heights(h)) for h in data.draw(ours.heights(len(drawn.X)))]
    starts = np.cumsum([0, *(sum(heights) for heights in cuts)])
    pieces = [drawn.blocks(cut, int(start)) for cut, start in zip(cuts, starts, strict=False)]
    for accumulator, check in statistics(drawn, np.random.default_rng(0)):
        check(accumulator.finalize(laws.reduce(accumulator, pieces)))


@FEW
@given(drawn=rows(consecutive=False))
def test_groups_in_any_order_of_rows_have_numpys_sums(drawn):
    *_, (accumulator, check), _ = statistics(drawn, np.random.default_rng(0))
    half = len(drawn.X) // 2
    pieces = [drawn.blocks([half]), drawn.blocks([len(drawn.X) - half], half)]
    check(accumulator.finalize(laws.reduce(accumulator, pieces)))


@pytest.mark.parametrize(
    "law",
    [
        laws.assert_zero_is_neutral,
        laws.assert_an_empty_block_adds_nothing,
        laws.assert_finalize_writes_nothing,
        laws.assert_second_arguments_are_left_alone,
    ],
)
@FEW
@given(drawn=rows())
def test_law(law, drawn):
    for accumulator, _ in statistics(drawn, np.random.default_rng(0)):
        law(accumulator, drawn)


@FEW
@given(drawn=rows())
def test_state_nbytes_is_the_size_of_a_state(drawn):
    for accumulator, _ in statistics(drawn, np.random.default_rng(0)):
        state = accumulator.zero()
        assert sum(field.nbytes for field in state) == accumulator.state_nbytes


@FEW
@given(drawn=rows())
def test_nan_in_any_row_is_detected(drawn):
    X = drawn.X.copy()
    X[len(X) // 2, 0] = np.nan
    broken = drawn._replace(X=X)
    for accumulator, _ in statistics(drawn, np.random.default_rng(0)):
        with np.errstate(all="ignore"):
            state = laws.state_of(accumulator, broken.blocks([len(X)]))
        assert not accumulator.is_finite(state)


def test_rows_of_leverage_1_are_counted_and_the_first_is_named():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((10, 1)), rng.standard_normal((10, 1))
    X[[3, 8]] = 1e8
    data = Grouped(X, y, None, np.zeros(10, np.int64))
    fit = fitted(1, rng)
    accumulator = Meat(1, fit, triangle(1, rng), Leverage(2, 0.0, 1.0, 1e-10))
    found = accumulator.finalize(laws.reduce(accumulator, [data.blocks([4]), data.blocks([6], 4)]))
    # another row may have a leverage above 1, because these numbers are of no fit
    assert found.n_exact >= 2
    assert found.first_exact <= 3
