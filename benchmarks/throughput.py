"""Bytes a second of a gd epoch, beside reading or decoding alone in the same run.

python benchmarks/throughput.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numcodecs
import numpy as np
from harness import keep, ratio, turn_about, write_store

from streamreg.accumulators.gradient import Gradient
from streamreg.engines.threads import ThreadsEngine
from streamreg.memory import usable_cpus
from streamreg.sources.dataset import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER_NBYTES = 2 << 20


def read_only(files: list[Path], n_threads: int) -> Callable[[], None]:
    """Return a pass that reads all bytes, 2 MiB at a time, into one kept buffer a thread."""
    buffers = [bytearray(_BUFFER_NBYTES) for _ in range(n_threads)]

    def read(thread: int) -> None:
        view = memoryview(buffers[thread])
        for path in files[thread::n_threads]:
            file = os.open(path, os.O_RDONLY)
            while os.readv(file, [view]):
                pass
            os.close(file)

    return lambda: list_of(read, n_threads)


def decode_only(
    files: list[Path], codec: str, chunk_nbytes: int, n_threads: int
) -> Callable[[], None]:
    """Return a pass that reads and decodes all chunks into one kept buffer a thread."""
    decoder = numcodecs.get_codec({"id": codec.partition("-")[0]})
    outs = [np.empty(chunk_nbytes, np.uint8) for _ in range(n_threads)]
    encoded = [bytearray(2 * chunk_nbytes) for _ in range(n_threads)]

    def decode(thread: int) -> None:
        for path in files[thread::n_threads]:
            file = os.open(path, os.O_RDONLY)
            count = os.readv(file, [encoded[thread]])
            os.close(file)
            decoder.decode(memoryview(encoded[thread])[:count], outs[thread])

    return lambda: list_of(decode, n_threads)


def list_of(work: Callable[[int], None], n_threads: int) -> None:
    """Run the work on so many threads."""
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_threads)))


def measure(
    folder: Path, codec: str, dtype: str, n_features: int, nbytes: int, repeats: int
) -> dict[str, object]:
    """Return one row: an epoch beside the same bytes read or decoded alone."""
    n_rows = nbytes // (n_features * np.dtype(dtype).itemsize)
    path = write_store(
        folder / f"{codec}-{dtype}-{n_features}.zarr", n_rows, n_features, dtype=dtype, codec=codec
    )
    files = sorted(file for file in (path / "X" / "c").rglob("*") if file.is_file())
    threads = usable_cpus()
    dataset = open_dataset(path)
    rng = np.random.default_rng(1)
    gradient = Gradient(rng.standard_normal((n_features, 2)), np.zeros(2), 1)
    chunk_nbytes = int(np.prod(dataset.X.array.chunks)) * np.dtype(dtype).itemsize  # type: ignore[attr-defined]
    alone = (
        read_only(files, threads) if codec == "none"
        else decode_only(files, codec, chunk_nbytes, threads)
    )  # fmt: skip
    with ThreadsEngine(dataset, threads) as engine:
        seconds = turn_about({"alone": alone, "epoch": lambda: engine.reduce(gradient)}, repeats)
    size = n_rows * dataset.X.row_nbytes / 1e9
    return {
        "codec": codec, "dtype": dtype, "D": n_features, "threads": threads,
        "epoch GB/s": size / statistics.median(seconds["epoch"]),
        "alone GB/s": size / statistics.median(seconds["alone"]),
        "share": ratio(seconds, "alone", "epoch"),
    }  # fmt: skip


def main() -> None:
    """Measure every codec, dtype and D."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and not kept")
    quick = parser.parse_args().quick
    nbytes, repeats = (16 << 20, 1) if quick else (1 << 30, 7)
    rows = []
    for codec in ("none", "zstd", "blosc-lz4"):
        for dtype in ("float64", "float32"):
            for n_features in (256,) if quick else (16, 256, 4096, 100_000):
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(Path(folder), codec, dtype, n_features, nbytes, repeats))
    keep("throughput", rows, quick=quick)


if __name__ == "__main__":
    main()
