"""Segments of Dask arrays: a chain of tasks each, so that blocks stay on the workers they are on.

A state goes from block to block, and blocks are folded in the order in which one machine folds
them. That is O(D) numbers, but for the closed form: its D² go in parts, or whole to a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.cluster import worker_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.cluster.worker_tasks import ReadJob
    from streamreg.sources.dataset import Dataset


class DaskBlocks:
    """The blocks of a data set some of whose arrays are Dask's.

    Parameters
    ----------
    dataset
        X, y and weights, of which some are Dask arrays.
    bounds
        First row, and the row after the last, of each block.
    """

    def __init__(self, dataset: Dataset, bounds: list[tuple[int, int]]) -> None:
        self._bounds = bounds
        self._chunks = {
            name: chunks
            for name, source in dataset.named().items()
            if (chunks := source.delayed_chunks(bounds)) is not None
        }

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def made(
        self,
        job: ReadJob,
        accumulator: Any,  # noqa: ANN401  (bytes, or a future of them)
        segments: list[range],
        prefix: str,
        part: range | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield what a client is to compute for each segment."""
        from dask.delayed import delayed  # noqa: PLC0415  (an extra)

        fold = delayed(worker_tasks.fold_chunks, pure=False)
        for segment in segments:
            done = None
            for number in segment:
                chunks = {name: spans[number] for name, spans in self._chunks.items()}
                done = fold(
                    job, accumulator, done, self._bounds[number], chunks, part,
                    dask_key_name=worker_tasks.new_key(prefix),
                )  # fmt: skip
            yield (done,)
