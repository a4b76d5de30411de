"""Which rows of an HDF5 dataset are stored: HDF5 reads all others as its fill value, in silence."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.errors import DataCorruptionError, Remedy
from streamreg.formatting import agree, count, rows_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource

# What netCDF fills new variables with (netcdf.h, NC_FILL_*). HDF5 has this fill value only in files
# of netCDF. Any byte may be a value.
_NETCDF_FILLS = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}


class Absent(NamedTuple):
    """Rows that are not stored, and why."""

    start: int
    stop: int
    why: str


def absent_rows(dataset: Any, noun: str = "row") -> list[Absent]:  # noqa: ANN401  (h5py publishes no types)
    """Return which rows of an HDF5 dataset are not stored, in order.

    Reads metadata only. Rows in a chunk that was written in part are not told from others. ``noun``
    is what messages call a row.
    """
    if not dataset.shape or not math.prod(dataset.shape):
        return []
    if dataset.is_virtual:
        return sorted(_absent_sources(dataset, noun)) or list(_unmapped(dataset))
    if dataset.external:
        return list(_short_external(dataset))
    if dataset.chunks is None:
        # compact datasets have a size, and no offset
        is_stored = dataset.id.get_offset() is not None or dataset.id.get_storage_size() > 0
        return [] if is_stored else [Absent(0, dataset.shape[0], "no value was ever written")]
    return list(_absent_chunks(dataset))


def require_stored(dataset: Any, source: RowSource) -> None:  # noqa: ANN401
    """Raise :class:`DataCorruptionError` if a row of ``source``, read from a dataset, is absent."""
    n_rows = source.shape[0]
    if dataset.shape[0] < n_rows:
        # h5netcdf fills a variable up to the length of its unlimited dimension
        why = f"the dataset has {count(dataset.shape[0], 'row')}, fewer than its dimension"
        absent = [Absent(dataset.shape[0], n_rows, why)]
    else:
        absent = absent_rows(dataset, source.noun)
    for start, stop, why in absent:
        what = f"{source.span_text(start, stop)} of {source.name}"
        raise not_stored(dataset, what, why, source.noun)


def not_stored(dataset: Any, what: str, why: str, noun: str = "row") -> DataCorruptionError:  # noqa: ANN401
    """Return the error for rows, which ``what`` names, that are not stored."""
    return DataCorruptionError(
        f"{what} are not stored: {why}. HDF5 reads such {noun}s as its fill value, "
        f"{dataset.fillvalue}. Restore them, or pass ",
        Remedy("missing_chunks", "fill"),
        " if they mean the fill value",
    )


def netcdf_fill(dataset: Any) -> Any:  # noqa: ANN401
    """Return the value that netCDF gives to what was never written; ``None`` for other files."""
    fill = dataset.fillvalue
    known = _NETCDF_FILLS.get(dataset.dtype.str[1:])
    return fill if known is not None and fill == dataset.dtype.type(known) else None


def _absent_chunks(dataset: Any) -> Iterator[Absent]:  # noqa: ANN401
    chunks, shape = dataset.chunks, dataset.shape
    grid = tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
    if dataset.id.get_num_chunks() >= math.prod(grid):
        return
    stored = np.zeros(grid, bool)

    def record(chunk: Any) -> None:  # noqa: ANN401
        at = tuple(first // n for first, n in zip(chunk.chunk_offset, chunks, strict=True))
        if all(i < n for i, n in zip(at, grid, strict=True)):
            stored[at] = True

    dataset.id.chunk_iter(record)
    n_absent = int((~stored).sum())
    were = agree(n_absent, "was", "were")
    why = f"{n_absent:,} of its {count(stored.size, 'chunk')} {were} never written"
    absent: Array = np.asarray(~stored.reshape(grid[0], -1).all(axis=1))
    for first, last in _runs(absent):
        yield Absent(first * chunks[0], min(last * chunks[0], shape[0]), why)


def _runs(chosen: Array) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    yield from ((int(first), int(last)) for first, last in edges.reshape(-1, 2))


def _short_external(dataset: Any) -> Iterator[Absent]:  # noqa: ANN401
    """Yield the rows beyond the end of a file with raw values, which HDF5 reads as zeros."""
    row_nbytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    needed, begin = dataset.shape[0] * row_nbytes, 0
    for name, offset, size in dataset.external:
        length = min(size, needed - begin)
        file = Path(name)
        if not file.is_file():
            file = Path(dataset.file.filename).parent / name
        if file.is_file() and file.stat().st_size < offset + length:
            first = (begin + max(0, file.stat().st_size - offset)) // row_nbytes
            stop = -(-(begin + length) // row_nbytes)
            yield Absent(first, stop, f"the file {name!r} ends before them")
        begin += length


def _absent_sources(dataset: Any, noun: str) -> Iterator[Absent]:  # noqa: ANN401
    """Yield the rows of each part of a virtual dataset whose source cannot be read whole."""
    for part in dataset.virtual_sources():
        low, high = part.vspace.get_select_bounds()
        why = _why_absent(dataset, part, noun)
        if why:
            yield Absent(int(low[0]), min(int(high[0]) + 1, dataset.shape[0]), why)


def _why_absent(dataset: Any, part: Any, noun: str) -> str:  # noqa: ANN401
    """Return why a source of a virtual dataset is not read whole; empty if it is."""
    import h5py  # noqa: PLC0415  (imported already, for the dataset)

    what = f"{part.dset_name!r} of the file {part.file_name!r}"
    if "%b" in part.file_name or "%b" in part.dset_name:
        return ""  # sources by number, as many as there are
    if part.file_name == ".":
        return _why_source_is_short(dataset.file.get(part.dset_name), part, what, noun)
    paths = [path for path in _candidates(dataset, part.file_name) if path.is_file()]
    if not paths:
        return f"they are in {part.file_name!r}, which does not exist"
    try:
        with h5py.File(paths[0], "r") as file:
            return _why_source_is_short(file.get(part.dset_name), part, what, noun)
    except PermissionError:
        return f"they are in {part.file_name!r}, which this user may not read"
    except OSError:
        return ""  # HDF5 raises for a file that is damaged


def _why_source_is_short(source: Any, part: Any, what: str, noun: str) -> str:  # noqa: ANN401
    if source is None or not hasattr(source, "shape"):
        return f"they are in {what}, which has no such dataset"
    import h5py  # noqa: PLC0415  (imported already, for the dataset)

    # HDF5 raises for a source that is mapped whole and has fewer values
    if part.src_space.get_select_type() != h5py.h5s.SEL_ALL:
        _, high = part.src_space.get_select_bounds()
        if any(at >= length for at, length in zip(high, source.shape, strict=False)):
            return f"they are in {what}, whose shape is {source.shape}"
    for start, stop, _ in absent_rows(source):
        return f"they are in {what}, of which {rows_text(start, stop, noun)} are not stored"
    return ""


def _candidates(dataset: Any, name: str) -> list[Path]:  # noqa: ANN401
    """Return where HDF5 looks for the file of a source: H5Pset_virtual in its manual."""
    file = Path(dataset.file.filename)
    prefixes = [os.environ.get("HDF5_VDS_PREFIX", ""), _virtual_prefix(dataset)]
    origin = str(file.resolve().parent)
    folders = [
        *(Path(prefix.replace("${ORIGIN}", origin)) for prefix in prefixes if prefix),
        file.parent,
        Path(),
        Path(origin),
    ]
    inside = Path(name).name if Path(name).is_absolute() else name
    return [*([Path(name)] if Path(name).is_absolute() else []), *(at / inside for at in folders)]


def _virtual_prefix(dataset: Any) -> str:  # noqa: ANN401
    prefix = dataset.id.get_access_plist().get_virtual_prefix()
    return prefix.decode() if isinstance(prefix, bytes) else str(prefix or "")


def _unmapped(dataset: Any) -> Iterator[Absent]:  # noqa: ANN401
    """Yield the rows of a virtual dataset that no source fills."""
    size = math.prod(dataset.shape)
    n_mapped = 0
    # values of each row that are mapped: exact if every part is a box, as nearly all are
    changes: Array = np.zeros(dataset.shape[0] + 1, np.int64)
    for part in dataset.virtual_sources():
        if "%b" in part.file_name or "%b" in part.dset_name:
            return
        low, high = part.vspace.get_select_bounds()
        n_values = int(part.vspace.get_select_npoints())
        n_mapped += n_values
        height = int(high[0]) - int(low[0]) + 1
        changes[int(low[0])] += n_values // height
        changes[int(high[0]) + 1] -= n_values // height
    if n_mapped < size:
        have = agree(size - n_mapped, "has", "have")
        why = f"{count(size - n_mapped, 'value')} of the virtual dataset {have} no source"
        for first, stop in _runs(np.cumsum(changes[:-1]) < size // dataset.shape[0]):
            yield Absent(first, stop, why)
