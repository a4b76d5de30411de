"""Kernels: the hot loops behind accumulators, by name and for each kind of block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64

Kernel = Callable[..., Any]
# factors of columns, (D,) or (K,); None means ones
Scale: TypeAlias = "Float64 | None"


class Affine(NamedTuple):
    """How a kernel reads columns: x·scale - shift; ``None`` means ones, and zeros."""

    scale: Scale = None  # powers of two: rounds nothing
    shift: Float64 | None = None  # (D,) or (K,)


AS_STORED = Affine()


class Parallel(NamedTuple):
    """How the parts of an update run."""

    # run(task, count, prepare) calls task(0) … task(count - 1), perhaps on several threads, and,
    # after or beside them, prepare(), which prepares the next tile
    run: Callable[[Callable[[int], None], int, Callable[[], None]], None]
    n_tiles: int = 1  # in memory at once: two, if prepare() runs beside the tasks


def _one_by_one(task: Callable[[int], None], count: int, prepare: Callable[[], None]) -> None:
    for number in range(count):
        task(number)
    prepare()


SERIAL = Parallel(_one_by_one)


class Kernels(NamedTuple):
    """The kernels for one kind of block, by name, and what runs the parts of an update."""

    by_name: Mapping[str, Kernel]
    parallel: Parallel = SERIAL

    def find(self, name: str) -> Kernel:
        """Return the kernel of that name, such as ``"products"``, ``"moments"`` or ``"gram"``."""
        try:
            return self.by_name[name]
        except KeyError:
            known = ", ".join(sorted(self.by_name))
            raise LookupError(f"no kernel {name!r} for these blocks; known: {known}") from None


class KernelSet(NamedTuple):
    """One implementation of the kernels, for each kind of block that it can reduce."""

    by_kind: Mapping[str, Kernels]

    def for_block(self, block: Block) -> Kernels:
        """Return the kernels for this kind of block."""
        return self.by_kind[block.kind]

    def shared_by(self, parallel: Parallel) -> KernelSet:
        """Return the same kernels, with the parts of an update run by ``parallel``."""
        kinds = self.by_kind.items()
        return KernelSet({kind: each._replace(parallel=parallel) for kind, each in kinds})
