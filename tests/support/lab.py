"""A folder in which data are broken, and a check that every fault must pass."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import pytest
import zarr
from stores import write_zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

# imported before memory is traced, because the modules of scikit-learn take 60 MiB
import streamreg.estimators.linear_regression  # noqa: F401
from streamreg.engines.partition import Blocks
from streamreg.formatting import MIB
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N, D, ROWS = 1003, 4, 100
X = np.random.default_rng(0).normal(size=(N, D))
Y = X @ np.arange(1.0, D + 1) + 5
LAST = "rows 1,000.1,002"  # a pattern: the rows of the last chunk

TRANSPOSED = (TransposeCodec(order=(1, 0)),)
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"compressors": None},
    "zstd": {"compressors": ZstdCodec()},
    "zstd checked": {"compressors": ZstdCodec(checksum=True)},
    "blosc": {"compressors": BloscCodec()},
    "gzip": {"compressors": GzipCodec()},
    "crc32c": {"compressors": Crc32cCodec()},
    "v2 zlib": {"compressors": numcodecs.Zlib(), "zarr_format": 2},
    "v2 lz4": {"compressors": numcodecs.LZ4(), "zarr_format": 2},
    "shards": {"shards": (2 * ROWS, D)},
    "index first": {"shards": {"shape": (2 * ROWS, D), "index_location": "start"}},
    "zarr-python": {"filters": TRANSPOSED, "compressors": Crc32cCodec()},
    "zarr-python shards": {"filters": TRANSPOSED, "shards": (2 * ROWS, D)},
}


DIRECT = ("plain", "zstd", "shards")
BOTH = (*DIRECT, "zarr-python", "zarr-python shards")


class Lab:
    """A folder in which things are broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, values: np.ndarray = X, name: str = "X.zarr", **layout: Any) -> Path:
        layout.setdefault("chunks", (ROWS, *values.shape[1:])[: values.ndim])
        return Path(write_zarr(self.folder / name, values, **layout))

    def named(self, layout: str) -> Path:
        return self.store(**LAYOUTS[layout])

    def last_chunk(self, path: Path) -> Path:
        """Return the file of the last rows."""
        array = zarr.open_array(path)
        rows = (array.shards or array.chunks)[0]
        return path / array.metadata.encode_chunk_key(((N - 1) // rows, 0))

    def declared(self, name: str = "X.zarr", **options: Any) -> Path:
        """Return the path of an array that has metadata and no chunks."""
        path = self.folder / name
        zarr.create_array(store=path, dtype="f8", **{"compressors": None, **options})
        return path

    def edit(self, path: Path, **changes: Any) -> Path:
        """Change keys of a metadata document; None removes them."""
        file = path / "zarr.json" if (path / "zarr.json").exists() else path / ".zarray"
        document = json.loads(file.read_text())
        document.update(changes)
        file.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
        return path

    def dataset(self, **arrays: np.ndarray) -> Path:
        group = zarr.create_group(self.folder / "d.zarr")
        for name, values in {"X": X, "y": Y, **arrays}.items():
            group.create_array(name, data=values, chunks=(ROWS, *values.shape[1:]))
        return self.folder / "d.zarr"


@dataclass(frozen=True)
class Fault:
    """A row of the table of faults.

    Attributes
    ----------
    row
        Its number, and which case.
    act
        Breaks something, and returns what a user would then do.
    error
        What that must raise.
    says
        Patterns that the message must have.
    reads
        Whether chunks may be opened before the error is raised.
    """

    row: str
    act: Callable[[Lab], Callable[[], object]]
    error: type[Exception]
    says: tuple[str, ...]
    reads: bool = False


class Faults(list[Fault]):
    """A table, filled by decorated functions."""

    def row(self, row: str, error: type[Exception], *says: str, reads: bool = False) -> Any:
        def add(act: Callable[[Lab], Callable[[], object]]) -> None:
            self.append(Fault(row, act, error, says, reads))

        return add


def read_all(*arrays: Any, **options: Any) -> np.ndarray:
    dataset = open_dataset(*arrays, needs_y=len(arrays) > 1, **options)
    reader = BlockReader(dataset)
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    try:
        return np.concatenate([np.array(reader.read(*span).X, float) for span in blocks])
    finally:
        reader.close()


def assert_error(fault: Fault, lab: Lab, chunks_opened: Callable[[], list[str]]) -> None:
    """Run a fault: its error has the type and the message, and no file was added or removed."""
    act = fault.act(lab)
    before, files = len(chunks_opened()), sorted(lab.folder.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(fault.error) as caught:
            act()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for pattern in fault.says:
        assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in {caught.value}"
    if not fault.reads:
        assert chunks_opened()[before:] == []
    assert sorted(lab.folder.rglob("*")) == files
    # 40 MiB: a metadata document at its largest, and imports of libraries of data
    assert peak < 40 * MIB


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as the user ``nobody``, because root may read and write every file."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Yield a lab that other users may enter, unlike the folders that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Lab(Path(folder))
        Path(folder).chmod(0o755)
