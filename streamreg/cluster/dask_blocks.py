"""Segments of Dask arrays: a chain of tasks each, so that chunks stay on their workers.

A partial result is sent from block to block, in the order in which one machine reduces them. That
is O(D) numbers. A state of D² is sent in parts, or whole to a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.cluster import worker_tasks

if TYPE_CHECKING:
    from streamreg.cluster.worker_tasks import Job
    from streamreg.engines.partition import Blocks
    from streamreg.sources.dataset import Dataset


class DaskBlocks:
    """The blocks of a data set with Dask arrays; false if it has none."""

    def __init__(self, dataset: Dataset, blocks: Blocks) -> None:
        self._starts = [start for start, _ in blocks]
        self._chunks = {
            name: chunks
            for name, source in dataset.named().items()
            if (chunks := source.delayed_chunks(list(blocks))) is not None
        }

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def chain(
        self,
        job: Job,
        accumulator: Any,  # noqa: ANN401  (bytes, or a future of them)
        segment: range,
        prefix: str,
        part: range | None = None,
    ) -> Any:  # noqa: ANN401  (dask.delayed has no type)
        """Return a value that Dask computes: what a segment is reduced to."""
        from dask.delayed import delayed  # noqa: PLC0415  (an extra)

        reduce_block = delayed(worker_tasks.reduce_block, pure=False)
        done = None
        for number in segment:
            done = reduce_block(
                job,
                accumulator,
                done,
                number,
                self._starts[number],
                {name: chunks[number] for name, chunks in self._chunks.items()},
                part,
                dask_key_name=worker_tasks.new_key(prefix),
            )
        return done
