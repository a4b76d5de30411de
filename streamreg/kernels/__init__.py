"""The hot loops behind the accumulators, one signature each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.states import GramState, MomentsState, ProductState

# runs task(0) … task(count - 1), perhaps on several threads
Parallel = Callable[[Callable[[int], None], int], None]


class Affine(NamedTuple):
    """How a kernel reads columns: x·scale - shift; ``None`` for ones, and for zeros."""

    scale: Float64 | None = None  # (D,) or (K,), powers of two: rounds nothing
    shift: Float64 | None = None  # (D,) or (K,)


AS_STORED = Affine()


def serial(task: Callable[[int], None], count: int) -> None:
    """Run ``task(0) … task(count - 1)`` one after another."""
    for number in range(count):
        task(number)


class Products(Protocol):
    """Adds residuals r = Xw + b - y, directions u = Xd + e, and uᵀsX of both."""

    def __call__(
        self, block: Block, state: ProductState, *, coefficients: Float64, bias: Float64,
        x: Affine = ..., y: Affine = ...,
    ) -> None: ...  # fmt: skip


class Moments(Protocol):
    """Adds a block to means and sums about them."""

    def __call__(
        self, block: Block, state: MomentsState, *, x_scale: Float64 | None, y_scale: Float64 | None
    ) -> None: ...


class Gram(Protocol):
    """Adds a block to second moments about the mean, or about zero."""

    def __call__(
        self, block: Block, state: GramState, parallel: Parallel, *, centred: bool,
        x_scale: Float64 | None, y_scale: Float64 | None,
    ) -> None: ...  # fmt: skip


class Kernels(NamedTuple):
    """One implementation of the loops, and who shares the work of a large update."""

    products: Products
    moments: Moments
    gram: Gram
    parallel: Parallel = serial
