"""Sums of residuals by groups of rows, whose products are the meat of clustered covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.merging import add_fields, merge_if_empty
from streamreg.accumulators.panels import PanelAccumulator
from streamreg.kernels import blas
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.groups import append_groups, groups_scratch_nbytes, whitened_groups
from streamreg.kernels.states import GroupSumsState, SortedGroupsState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64, Int64
    from streamreg.kernels.base import Kernels
    from streamreg.kernels.meat import FittedRows
    from streamreg.kernels.triangle import Triangle

# with fewer rows, reading and writing the D² state would take most of a rank-k update
_LEAST_ROWS = 256


class GroupSumsResult(NamedTuple):
    """Sums over the rows of each group."""

    rows: Float64  # (G,) rows that count
    sums: Float64  # (G, 1 + D) Σ sᵢ rᵢ [1, zᵢ]


class SortedGroupsResult(NamedTuple):
    """Products of the sums of groups."""

    n_groups: int
    meat: Float64  # (1 + D, 1 + D) Σ_g u_g u_gᵀ, u = Σ sᵢ rᵢ [1, Wzᵢ], lower triangle
    rest: Float64  # (m, 1 + D) the u of the first and the last group, which are not in the meat


@dataclass(frozen=True, eq=False)
class GroupSums(Accumulator[GroupSumsState, GroupSumsResult]):
    """Σ sᵢ rᵢ [1, zᵢ] of each group, whatever the order of rows: 8·G·(D + 2) bytes a state."""

    reads_tiles = True

    fitted: FittedRows
    numbers: Int64  # (G,) of the groups, ascending

    @property
    def state_nbytes(self) -> int:
        return group_sums_nbytes(len(self.fitted.scale), len(self.numbers))[0]

    @property
    def scratch_nbytes(self) -> int:
        return group_sums_nbytes(len(self.fitted.scale), len(self.numbers))[1]

    def zero(self) -> GroupSumsState:
        return GroupSumsState.zero(len(self.numbers), len(self.fitted.scale))

    def update(self, state: GroupSumsState, block: Block, kernels: Kernels) -> GroupSumsState:
        kernels.find("group_sums")(
            block,
            state,
            fitted=self.fitted,
            numbers=self.numbers,
            rows=group_sums_rows(len(self.fitted.scale)),
        )
        return state

    def merge(self, a: GroupSumsState, b: GroupSumsState) -> GroupSumsState:
        add_fields(a, b)
        return a

    def finalize(self, state: GroupSumsState) -> GroupSumsResult:
        return GroupSumsResult(state.rows, state.sums)

    def is_finite(self, state: GroupSumsState) -> bool:
        return bool(np.isfinite(state.sums).all())


@dataclass(frozen=True, eq=False)
class SortedGroups(PanelAccumulator[SortedGroupsState, SortedGroupsResult]):
    """Σ_g u_g u_gᵀ with u_g = Σ sᵢ rᵢ [1, Wzᵢ], of groups whose rows are consecutive.

    Groups that are complete are multiplied; the first and the last one of a state are joined with
    those of its neighbours when states merge. One state holds 8·((1 + D)² + 2D + 6) bytes.
    """

    square = "meat"
    reads_tiles = True

    fitted: FittedRows
    triangle: Triangle

    @property
    def n_columns(self) -> int:
        return 1 + len(self.fitted.scale)

    @property
    def state_nbytes(self) -> int:
        return sorted_groups_nbytes(len(self.fitted.scale))[0]

    @property
    def scratch_nbytes(self) -> int:
        return sorted_groups_nbytes(len(self.fitted.scale))[1]

    def zero(self) -> SortedGroupsState:
        d = len(self.fitted.scale)
        return SortedGroupsState.zero(d, 1 + d)

    def update(self, state: SortedGroupsState, block: Block, kernels: Kernels) -> SortedGroupsState:
        kernels.find("sorted_groups")(
            block,
            state,
            kernels.parallel,
            fitted=self.fitted,
            triangle=self.triangle,
            rows=sorted_groups_rows(len(self.fitted.scale)),
        )
        return state

    def merge(self, a: SortedGroupsState, b: SortedGroupsState) -> SortedGroupsState:
        if merge_if_empty(a, b):
            return a
        n = a.n + b.n
        ends = [(b.first, b.first_sums), (b.last, b.last_sums)][: min(int(b.n_groups), 2)]
        numbers = np.concatenate([bits for bits, _ in ends]).view(np.int64)
        ended = append_groups(a, numbers, np.stack([sums for _, sums in ends]))
        np.add(a.meat, b.meat, out=a.meat)
        # groups of b between its first and its last one
        np.add(a.n_groups, max(0.0, float(b.n_groups) - 2), out=a.n_groups)
        a.n[...] = n
        if len(ended):
            rows = whitened_groups(self.triangle, ended)
            blas.add_gram_panel(rows, a.meat, 0, len(a.meat))
        return a

    def finalize(self, state: SortedGroupsState) -> SortedGroupsResult:
        ends = np.stack([state.first_sums, state.last_sums])[: min(int(state.n_groups), 2)]
        return SortedGroupsResult(
            int(state.n_groups), state.meat, whitened_groups(self.triangle, ends)
        )

    def is_finite(self, state: SortedGroupsState) -> bool:
        sums = (state.meat.diagonal(), state.first_sums, state.last_sums)
        return all(bool(np.isfinite(each).all()) for each in sums)


def sorted_groups_rows(n_features: int) -> int:
    """Return the rows of a tile of :class:`SortedGroups`."""
    return max(_LEAST_ROWS, group_sums_rows(n_features))


def group_sums_rows(n_features: int) -> int:
    """Return the rows of a tile of :class:`GroupSums`."""
    return min(numpy_kernels.MOST_ROBUST_ROWS, numpy_kernels.tile_rows(n_features))


def group_sums_nbytes(n_features: int, n_groups: int) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory."""
    rows = group_sums_rows(n_features)
    scratch = groups_scratch_nbytes(n_features, rows)
    return 8 * (n_groups * (n_features + 2) + 1), scratch


def sorted_groups_nbytes(n_features: int) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory."""
    scratch = groups_scratch_nbytes(n_features, sorted_groups_rows(n_features))
    return 8 * ((1 + n_features) ** 2 + 2 * n_features + 6), scratch
