"""CONTRIBUTING.md's recipe "a source", followed: a folder of .npy files, found by its path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import read_all

from streamreg import DataCorruptionError, InputError, LinearRegression
from streamreg.sources import kinds
from streamreg.sources.base import Kind, Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import ChunkReader, joined_nbytes

# 1. a source, and a reader for one thread


@dataclass(frozen=True)
class Shard:
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def of(cls, path: Path) -> Shard:
        """Read the header of a file."""
        mapped = np.load(path, mmap_mode="r")
        return cls(path, mapped.shape, mapped.dtype, mapped.offset)


class NpyFolderSource(RowSource):
    """The rows of all .npy files of a folder, in the order of their names; a file is a chunk."""

    # empty: workers can read the folder if they see it under the same path
    why_unreachable_from_workers = ""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.folder = folder
        self.shards = [Shard.of(path) for path in sorted(folder.glob("*.npy"))]
        first = self.shards[0]
        if any((s.shape[1:], s.dtype) != (first.shape[1:], first.dtype) for s in self.shards):
            raise InputError(f"the files of {folder} differ in columns or dtype; rewrite them")
        self.grid = RowGrid.irregular([shard.shape[0] for shard in self.shards])
        self.shape = (self.grid.n_rows, *first.shape[1:])
        self.dtype = first.dtype

    def open(self) -> Reader:
        return _NpyReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        return self.grid.chunk_rows * self.row_nbytes + joined_nbytes(self, block_rows)

    def local_paths(self) -> list[Path]:
        return [self.folder]

    def place(self, row: int, column: int = 0) -> str:  # noqa: ARG002
        return str(self.shards[self.grid.chunk_at(row)].path)


class _NpyReader(ChunkReader):
    _source: NpyFolderSource

    def load(self, chunk: int, out: np.ndarray) -> None:
        shard = self._source.shards[chunk]
        rows = out[: shard.shape[0]]
        with shard.path.open("rb") as file:
            file.seek(shard.offset)
            n_read = file.readinto(rows.reshape(-1).view(np.uint8).data)
        if n_read != rows.nbytes:
            raise DataCorruptionError(f"{shard.path} is truncated; restore it from a copy")


# 2. a kind: what it claims, and how it opens that


def claims(data: object) -> bool:
    return isinstance(data, str | Path) and any(Path(data).glob("*.npy"))


def open_rows(data: str | Path, _name: str, _missing_chunks: str) -> RowSource:
    return NpyFolderSource(Path(data))


KIND = Kind(claims, open_rows)


# 3. a line in the registry, before Zarr, which claims every path


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(kinds, "KINDS", (KIND, *kinds.KINDS))


@pytest.fixture
def data(tmp_path):
    """X (60 000, 8) in files of unequal height, y (60 000,)."""
    random = np.random.default_rng(0)
    X = random.standard_normal((60_000, 8)) + 3
    y = X @ np.arange(8) + random.standard_normal(len(X))
    for number, rows in enumerate(np.split(X, [7_000, 30_000, 31_000])):
        np.save(tmp_path / f"{number:03}.npy", rows)
    return str(tmp_path), X, y


@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_a_folder_is_fitted_like_the_array_that_it_holds(data, solver):
    path, X, y = data
    model = LinearRegression(solver=solver, n_threads=2).fit(path, y)
    expected = np.linalg.lstsq(np.c_[X, np.ones(len(X))], y)[0]
    # cg stops at a gradient of 1e-8 of that at the start
    np.testing.assert_allclose([*model.coef_, model.intercept_], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.predict(path), X @ expected[:-1] + expected[-1], rtol=1e-6)


def test_threads_and_a_cluster_give_bitwise_identical_coefficients(data, client_here, store):
    path, _, y = data
    y = store(y, chunks=(25_000,))
    one, two, cluster = (
        LinearRegression(solver="cg", **where).fit(path, y).coef_.tobytes()
        for where in ({"n_threads": 1}, {"n_threads": 2}, {"client": client_here})
    )
    assert one == two == cluster


def test_zarr_still_opens_all_other_paths(store):
    X = np.random.default_rng(0).standard_normal((100, 3))
    model = LinearRegression().fit(store(X), X[:, 0])
    np.testing.assert_allclose(model.coef_, [1, 0, 0], atol=1e-12)
    with pytest.raises(InputError, match="there is nothing at /nowhere"):
        LinearRegression().fit("/nowhere", X[:, 0])


def test_a_file_that_is_truncated_later_is_named(data):
    path, _, _ = data
    source = kinds.open_source(path, "X")
    np.save(Path(path, "002.npy"), np.ones((3, 8)))
    with pytest.raises(DataCorruptionError, match=r"002\.npy is truncated"):
        read_all(source)
