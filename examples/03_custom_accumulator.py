"""A new statistic, computed in one pass on two threads: the share of zeros in each column.

python examples/03_custom_accumulator.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.engines.threads import ThreadsEngine
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class Counts(NamedTuple):
    """Rows, and the zeros of each column."""

    rows: Float64  # ()
    zeros: Float64  # (D,)


@dataclass(frozen=True)
class Sparsity(Accumulator[Counts, "Float64"]):
    """The share of zeros in each column, (D,)."""

    n_features: int
    scratch_nbytes = 0

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.n_features + 1)

    def zero(self) -> Counts:
        return Counts(np.zeros(()), np.zeros(self.n_features))

    def update(self, state: Counts, block: Block, kernels: Kernels) -> Counts:  # noqa: ARG002
        return self.merge(state, Counts(np.array(block.n_rows), (block.X == 0).sum(axis=0)))

    def merge(self, a: Counts, b: Counts) -> Counts:
        return Counts(a.rows + b.rows, a.zeros + b.zeros)

    def finalize(self, state: Counts) -> Float64:
        return np.asarray(state.zeros / state.rows)

    def is_finite(self, state: Counts) -> bool:  # noqa: ARG002
        return True


def main() -> None:
    """Count the zeros of a million rows, whose columns get sparser from left to right."""
    rng = np.random.default_rng(0)
    X = (rng.random((1_000_000, 5)) > [0.0, 0.25, 0.5, 0.75, 1.0]).astype(np.uint8)
    dataset = open_dataset(X, needs_y=False)
    with ThreadsEngine(dataset, n_threads=2) as engine:
        print("share of zeros:", engine.reduce(Sparsity(dataset.n_features)).result.round(3))


if __name__ == "__main__":
    main()
