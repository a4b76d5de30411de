"""Zarr arrays, v2 and v3: opened from a path, a URL or a ``zarr.Array``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError, InputError
from streamreg.memory import MIB, format_nbytes
from streamreg.sources import codecs
from streamreg.sources.base import (
    ChunkReader,
    Reader,
    RowGrid,
    RowSource,
    joined_nbytes,
)
from streamreg.sources.chunk_files import ChunkFileReader, ChunkFiles, ShardIndex

if TYPE_CHECKING:
    import zarr

    from streamreg.blocks import Array

_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")
_METADATA_MAX_NBYTES = 16 * MIB


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a Zarr array or of the array at a path; ``None`` for anything else."""
    if isinstance(data, str | os.PathLike):
        node = open_node(data)
        label = printable(os.fspath(data))
    elif type(data).__module__.partition(".")[0] == "zarr":
        node = data
        label = _label(data, name)
    else:
        return None
    import zarr  # noqa: PLC0415  (imported only by who has Zarr arrays)

    if not isinstance(node, zarr.Array):
        children = ", ".join(sorted(node.array_keys())) or "none"
        raise InputError(f"{label} is a Zarr group; pass one of its arrays as {name}: {children}")
    return ZarrSource(node, label, missing_chunks=missing_chunks)


def open_node(path: str | os.PathLike[str]) -> zarr.Array[Any] | zarr.Group:
    """Open the array or group at a path or URL, to be read.

    Raises
    ------
    InputError
        There is nothing there, or nothing of Zarr.
    DataCorruptionError
        Its metadata cannot be understood.
    """
    import zarr  # noqa: PLC0415  (imported only by who has Zarr arrays)

    text = os.fspath(path)
    label = printable(text)
    if "://" not in text:
        _require_metadata(Path(text), label)
    try:
        return zarr.open(text, mode="r")
    # whatever a damaged document makes zarr-python raise: KeyError, TypeError, JSONDecodeError, …
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"nothing can be opened at {label}: {error}") from error
        raise DataCorruptionError(
            f"the metadata of {label} cannot be understood ({type(error).__name__}: {error}); "
            "restore its zarr.json, or .zarray and .zgroup"
        ) from error


def _require_metadata(path: Path, label: str) -> None:
    if not path.exists():
        raise InputError(f"there is nothing at {label}; is the path spelled as on disk?")
    if path.is_file() and path.suffix != ".zip":
        raise InputError(
            f"{label} is a file, not a Zarr array. Tables go through "
            "`streamreg ingest`; of HDF5 files pass the h5py.Dataset"
        )
    found = [path / name for name in _METADATA_FILES if (path / name).is_file()]
    if path.is_dir() and not found:
        raise InputError(
            f"{label} holds no Zarr array or group: it has none of {', '.join(_METADATA_FILES)}"
        )
    for file in found:
        if file.stat().st_size > _METADATA_MAX_NBYTES:
            raise DataCorruptionError(
                f"{printable(str(file))} has {format_nbytes(file.stat().st_size)}, "
                f"more than any metadata (at most {format_nbytes(_METADATA_MAX_NBYTES)})"
            )


class ZarrSource(RowSource):
    """The rows of a Zarr array: straight from its files where that can be, else by zarr-python."""

    def __init__(self, array: zarr.Array[Any], name: str, *, missing_chunks: str = "error") -> None:
        self.array = array
        self.name = name
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.missing_chunks = missing_chunks
        if array.metadata.to_dict().get("chunk_grid", {}).get("name", "regular") != "regular":
            raise InputError(f"{name} has chunks of unequal size, which are not read; rechunk it")
        self.files = _chunk_files(self)
        if self.files is not None:
            self.dtype = self.files.dtype
        chunk_rows = max(1, array.chunks[0]) if self.shape else 1
        self.grid = RowGrid(
            n_rows=self.shape[0] if self.shape else 0,
            chunk_rows=chunk_rows,
            divisible=self.files is not None and self.files.codec.is_plain,
        )

    @property
    def n_column_chunks(self) -> int:
        """How many chunks lie side by side."""
        return 1 if len(self.shape) == 1 else -(-self.shape[1] // self.array.chunks[1])

    @property
    def one_chunk_a_row(self) -> bool:
        """Whether a chunk's rows are the array's rows, so that nothing need be moved."""
        return len(self.shape) == 1 or self.array.chunks[1] == self.shape[1]

    def open(self) -> Reader:
        if self.files is None:
            return _ZarrPythonReader(self)
        if self.files.codec.is_plain:
            return _PlainReader(self, self.files)
        return _DecodingReader(self, self.files)

    def reader_nbytes(self, block_rows: int) -> int:
        band = self.grid.chunk_rows * self.row_nbytes
        join = joined_nbytes(self, block_rows)
        if self.files is None:
            # encoded chunks, decoded chunks, and the rows that zarr-python joins them to
            return 3 * band + join
        row_nbytes = self.row_nbytes
        moved = 0 if self.one_chunk_a_row else self.array.chunks[1] * self.dtype.itemsize
        if self.files.codec.is_plain:
            return block_rows * (row_nbytes + moved)
        chunk = self.files.chunk_nbytes
        in_place = self.files.codec.decodes_in_place
        return band + chunk * (1 + (not self.one_chunk_a_row) + (not in_place)) + join

    def place(self, row: int, column: int = 0) -> str:
        chunks = self.array.chunks
        at = (row // chunks[0],) if len(self.shape) == 1 else (row // chunks[0], column // chunks[1])
        if self.files is not None:
            return self.files.describe(at)
        return f"chunk {at} of {self.name}"


class _PlainReader(Reader):
    """Reads any rows of uncompressed chunks straight into one kept buffer."""

    def __init__(self, source: ZarrSource, files: ChunkFiles) -> None:
        self._source = source
        self._files = ChunkFileReader(files)
        self._rows = np.empty((0, *source.shape[1:]), files.dtype)
        self._moved = np.empty((0, *files.chunk_shape[1:]), files.dtype)

    def read(self, start: int, stop: int) -> Array:
        source, grid = self._source, self._source.grid
        if len(self._rows) < stop - start:
            self._rows = np.empty((stop - start, *source.shape[1:]), source.dtype)
            if not source.one_chunk_a_row:
                self._moved = np.empty((stop - start, *self._moved.shape[1:]), source.dtype)
        rows = self._rows[: stop - start]
        for chunk in range(grid.chunk_at(start), grid.chunk_at(stop - 1) + 1):
            low, high = grid.rows(chunk)
            first = low
            low, high = max(low, start), min(high, stop)
            self._read_chunk_rows(chunk, low - first, high - first, rows[low - start : high - start])
        return rows

    def _read_chunk_rows(self, chunk: int, start: int, stop: int, out: Array) -> None:
        if self._source.one_chunk_a_row:
            at = (chunk,) if out.ndim == 1 else (chunk, 0)
            self._files.read_rows(at, start, stop, out)
            return
        moved = self._moved[: stop - start]
        width = moved.shape[1]
        for column in range(self._source.n_column_chunks):
            self._files.read_rows((chunk, column), start, stop, moved)
            target = out[:, column * width : (column + 1) * width]
            target[...] = moved[:, : target.shape[1]]

    def close(self) -> None:
        self._files.close()


class _DecodingReader(ChunkReader):
    """Decodes chunks into one kept buffer."""

    def __init__(self, source: ZarrSource, files: ChunkFiles) -> None:
        super().__init__(source)
        self._source = source
        self._files = ChunkFileReader(files)
        self._band: Array | None = None
        self._moved: Array | None = None

    def load(self, chunk: int) -> Array:
        source = self._source
        if self._band is None:
            self._band = np.empty((source.grid.chunk_rows, *source.shape[1:]), source.dtype)
            if not source.one_chunk_a_row:
                self._moved = np.empty(source.array.chunks, source.dtype)
        if self._moved is None:
            self._files.read((chunk,) if self._band.ndim == 1 else (chunk, 0), self._band)
            return self._band
        width = self._moved.shape[1]
        for column in range(source.n_column_chunks):
            self._files.read((chunk, column), self._moved)
            target = self._band[:, column * width : (column + 1) * width]
            target[...] = self._moved[:, : target.shape[1]]
        return self._band

    def close(self) -> None:
        self._files.close()


class _ZarrPythonReader(ChunkReader):
    """Has zarr-python read whole rows of chunks: remote stores and unusual codecs."""

    def __init__(self, source: ZarrSource) -> None:
        super().__init__(source)
        self._source = source

    def load(self, chunk: int) -> Array:
        source = self._source
        start, stop = source.grid.rows(chunk)
        if source.missing_chunks == "error":
            self._require_chunks(chunk)
        try:
            return np.asarray(source.array[start:stop])
        # zarr-python passes on whatever its stores and codecs raise, without the chunk's key
        except Exception as error:
            raise DataCorruptionError(
                f"{source.place(start)} and those beside it (rows {start:,}–{stop - 1:,}) "  # noqa: RUF001
                f"cannot be read: {type(error).__name__}: {error}"
            ) from error

    def _require_chunks(self, chunk: int) -> None:
        from zarr.core.sync import sync  # noqa: PLC0415  (imported only by who has Zarr arrays)

        source, array = self._source, self._source.array
        files = array.shards or array.chunks
        row = source.grid.rows(chunk)[0] // files[0]
        n_columns = 1 if len(source.shape) == 1 else -(-source.shape[1] // files[1])
        for column in range(n_columns):
            key = array.metadata.encode_chunk_key(
                (row,) if len(source.shape) == 1 else (row, column)
            )
            if not sync(array.store_path.store.exists((array.store_path / key).path)):
                start, stop = source.grid.rows(chunk)
                raise DataCorruptionError(
                    f"chunk {key} of {source.name} (rows {start:,}–{stop - 1:,}) is missing. "  # noqa: RUF001
                    'Restore it, or pass missing_chunks="fill" if absent chunks mean the fill value'
                )


def _chunk_files(source: ZarrSource) -> ChunkFiles | None:
    """Return how to read the chunks from a local folder; ``None`` if zarr-python must do it."""
    from zarr.storage import LocalStore  # noqa: PLC0415  (imported only by who has Zarr arrays)

    array = source.array
    store = array.store_path.store
    if type(store) is not LocalStore or source.dtype.kind not in "biuf":
        return None
    metadata = array.metadata.to_dict()
    shards, dtype = None, source.dtype
    if array.metadata.zarr_format == 2:  # noqa: PLR2004
        codec = codecs.parse_v2(metadata)
    else:
        chain: Any = metadata["codecs"]
        if chain[0]["name"] == "sharding_indexed":
            if len(chain) > 1:
                return None
            shards = _shard_index(array, chain[0]["configuration"])
            chain = chain[0]["configuration"]["codecs"]
            if shards is None:
                return None
        parsed = codecs.parse_v3(chain)
        if parsed is None or metadata.get("storage_transformers"):
            return None
        codec, byte_order = parsed
        dtype = dtype.newbyteorder(byte_order)
    if codec is None:
        return None
    fill = array.fill_value
    return ChunkFiles(
        name=source.name,
        root=Path(store.root) / array.store_path.path,
        key=array.metadata.encode_chunk_key,
        chunk_shape=tuple(array.chunks),
        dtype=dtype,
        codec=codec,
        shards=shards,
        fill_value=(0 if fill is None else fill) if source.missing_chunks == "fill" else None,
    )


def _shard_index(array: zarr.Array[Any], options: dict[str, Any]) -> ShardIndex | None:
    names = [codec["name"] for codec in options["index_codecs"]]
    endian = (options["index_codecs"][0].get("configuration") or {}).get("endian")
    if names not in (["bytes"], ["bytes", "crc32c"]) or endian != "little":
        return None
    outer = array.shards or array.chunks
    return ShardIndex(
        shape=tuple(big // small for big, small in zip(outer, array.chunks, strict=True)),
        at_end=options.get("index_location", "end") == "end",
        crc32c=names[-1] == "crc32c",
    )


def _label(array: Any, name: str) -> str:  # noqa: ANN401  (zarr.Array or zarr.Group)
    root = getattr(array.store_path.store, "root", None)
    if root is None:
        return f"{name} ({printable(str(array.store_path))})"
    return printable(str(Path(root) / array.store_path.path))


def printable(text: str) -> str:
    """Return a name as it may stand in a message: quoted where it could be misread."""
    return text if text.isprintable() and " " not in text and text else repr(text)
