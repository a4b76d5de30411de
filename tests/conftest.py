"""What tests share: the Hypothesis profile, stores to read, and witnesses of what was read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# derandomised, so that a red run repeats; a deadline would time what a busy machine does
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ci")

_METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_opened: list[str] | None = None


def _record_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


# a hook cannot be taken away again: it does nothing but while the fixture below is in use
sys.addaudithook(_record_opened)


@pytest.fixture
def chunks_opened(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Return a function that lists the files below ``tmp_path``, other than metadata, opened."""
    global _opened  # noqa: PLW0603  (the hook outlives the test)
    _opened = opened = []

    def chunks() -> list[str]:
        below = f"{tmp_path}{os.sep}"
        # opening a folder locks or lists it; what was asked for and is not there counts too
        return [
            path
            for path in opened
            if os.path.realpath(path).startswith(below)
            and Path(path).name not in _METADATA
            and not Path(path).is_dir()
        ]

    yield chunks
    _opened = None


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes an array to a Zarr store and returns its path."""

    def write(values: np.ndarray, name: str = "X.zarr", **layout: Any) -> str:
        return write_zarr(tmp_path / name, values, **layout)

    return write


def write_zarr(path: Any, values: np.ndarray, **layout: Any) -> str:
    """Write an array with every chunk in place, those that are all zeros too."""
    dtype = values.dtype
    if layout.get("zarr_format", 3) == 3:
        dtype = dtype.newbyteorder("=")
    array = zarr.create_array(
        store=path,
        shape=values.shape,
        dtype=dtype,
        config={"write_empty_chunks": True},
        overwrite=True,
        **layout,
    )
    array[...] = values
    return str(path)


def read_all(source: Any, rows: int | None = None) -> np.ndarray:
    """Return all rows of a source, read ``rows`` at a time."""
    n_rows = source.shape[0]
    step = rows or source.grid.chunk_rows
    reader = source.open()
    try:
        parts = [
            np.array(reader.read(start, min(start + step, n_rows)))
            for start in range(0, n_rows, step)
        ]
    finally:
        reader.close()
    return np.concatenate(parts)


_MEASURE = """
import gc, re
from pathlib import Path
from streamreg.layout import Blocks
from streamreg.sources.opening import open_source

def nbytes(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def read(source):
    reader = source.open()
    for start, stop in Blocks.of(source.grid, source.row_nbytes):
        # as a fold does: the block before is still there while the next is read
        block = reader.read(start, stop)
    reader.close()

{source}

read(open_source(data(SMALL), "X"))  # what is imported, and kept for ever, on first use
gc.collect()
source = open_source(data(LARGE), "X")
Path("/proc/self/clear_refs").write_text("5")
before = nbytes("VmRSS")
read(source)
high = nbytes("VmHWM")
blocks = Blocks.of(source.grid, source.row_nbytes)
print(source.reader_nbytes(blocks.max_rows), high - before)
"""


def measured_reader(source: str, small: str, large: str) -> tuple[int, int]:
    """Return the bytes that a reader plans and those that it added, measured in a new process.

    Parameters
    ----------
    source
        Python that defines ``data(path)``.
    small, large
        Paths for ``data``: to warm up with, and to measure.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the high mark of a process can be reset on Linux only")
    code = _MEASURE.replace("{source}", source)
    result = subprocess.run(
        [sys.executable, "-c", f"SMALL, LARGE = {small!r}, {large!r}\n{code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        # what is freed goes back at once: the C library's own slack is the plan's to count
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    planned, measured = map(int, result.stdout.split())
    return planned, measured
