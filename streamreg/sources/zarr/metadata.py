"""Metadata of Zarr arrays and groups: checked before they are opened, and watched afterwards."""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from streamreg.errors import (
    DataCorruptionError,
    InputError,
    Parameter,
    PythonOnly,
    StreamregError,
)
from streamreg.formatting import MIB, format_nbytes
from streamreg.schema import Schema
from streamreg.sources.anndata import LAYERS, encoding_of, is_matrix
from streamreg.sources.base import ArrayGroup
from streamreg.sources.packages import package_of
from streamreg.sources.packing import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr

# the user and the password of a URL
_SECRET = re.compile(r"://[^/@]*@")
_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")
_DOCUMENT_MAX_NBYTES = 16 * MIB
# of the header of statistics and models in .npz, which begins with its format
_HEADER_NBYTES = 512


def open_group(data: object) -> ArrayGroup | None:
    """Return the Zarr group ``data``, or at the path ``data``; ``None`` if it is an array."""
    import zarr  # noqa: PLC0415  (imported only if there are Zarr arrays)

    node, label = opened(data, "X")
    # a sparse matrix is a group, but one array
    if not isinstance(node, zarr.Group) or is_matrix(node):
        return None
    if node.metadata.consolidated_metadata is not None:
        # they may be older than the arrays
        node = zarr.open_group(
            node.store_path.store, path=node.store_path.path, mode="r", use_consolidated=False
        )
    return ZarrGroup(node, label)


def group_of(data: object) -> tuple[ArrayGroup, str] | None:
    """Return the local group that holds an array, and the name of the array in it."""
    folder = (
        Path(data)
        if isinstance(data, str | os.PathLike)
        else local_folder(cast("zarr.Group", data))
    )
    if folder is None or "://" in str(data) or folder.name not in {"X", "y"}:
        return None
    if not any((folder.parent / name).is_file() for name in ("zarr.json", ".zgroup")):
        return None
    try:
        group = open_group(str(folder.parent))
    except (InputError, DataCorruptionError):
        return None
    return None if group is None else (group, folder.name)


class ZarrGroup(ArrayGroup):
    """The arrays of a Zarr group, with the names in its attributes."""

    def __init__(self, group: zarr.Group, label: str) -> None:
        self._group = group
        self._label = label
        self.feature_names = _names(group.attrs.get("feature_names"))
        self.target_names = _names(group.attrs.get("target_names"))
        self.schema = schema_of(group, label)

    def member(self, name: str, *, optional: bool = False) -> object:
        label = f"{self._label}/{name}"
        folder = local_folder(self._group)
        if folder is not None and (folder / name).exists():
            _require_metadata(folder / name, label)
        try:
            if name in self._group:
                return self._group[name]
            if optional:
                return None
            children = child_names(self._group)
        except Exception as error:
            raise _not_understood(label, error) from error
        if encoding_of(self._group) == "anndata":
            raise InputError(
                f"{self._label} is an AnnData object, which does not say what is predicted: pass ",
                Parameter("X", f"{self._label}/X"),
                ", or a layer, and ",
                Parameter("y", f"{self._label}/obs/COLUMN"),
            )
        raise InputError(f"the group {self._label} holds no array {name}; it holds: {children}")


class ArrayMetadata:
    """The metadata of an array in a local folder, as they were when the array was opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name
        version_2 = folder / ".zarray"
        self._file = version_2 if version_2.exists() else folder / "zarr.json"
        self._stamp = self._stat()
        self._content = self._read()

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Raise if an array was opened with another shape than its metadata have now."""
        stored = self._content.get("shape") if isinstance(self._content, dict) else None
        if isinstance(stored, list) and tuple(stored) != shape:
            raise InputError(
                f"{self._name} was opened with shape {shape} but its metadata now say "
                f"{tuple(stored)}: it was resized since, or its group's consolidated metadata are "
                "older than the array. Open it again, with zarr.open(PATH, use_consolidated=False)"
            )

    def require_exists(self) -> None:
        """Raise if this process cannot find the array, which another process opened."""
        try:
            self._file.read_bytes()
        except OSError as error:
            raise InputError(f"{str(self._file)!r}: {error.strerror}") from error

    def require_unchanged(self) -> None:
        """Raise if the array was resized or rewritten since it was opened."""
        stamp = self._stat()
        if stamp != self._stamp and self._read() != self._content:
            raise DataCorruptionError(
                f"{self._name} changed during the fit: it was resized, or rewritten. "
                "Start again when nothing writes to it"
            )
        self._stamp = stamp

    def _stat(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _read(self) -> object:
        try:
            content = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return None
        if isinstance(content, dict):
            content.pop("attributes", None)  # these may change
        return content


def schema_of(group: zarr.Group, label: str) -> Schema | None:
    """Return how X was made of a table, as ``ingest`` writes it; ``None`` if it does not say."""
    document = group.attrs.get("schema")
    # other programs may use the same name
    if not isinstance(document, dict) or "columns" not in document:
        return None
    try:
        return Schema.from_json(document)
    except ValueError as error:
        raise DataCorruptionError(
            f"the attribute schema of {label} is damaged ({error}); remove it, or ingest again"
        ) from error


def _names(value: Any) -> tuple[str, ...] | None:  # noqa: ANN401  (an attribute)
    """Return the names that an attribute lists; ``None`` if it is no list of texts."""
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else None


def is_zarr(data: object) -> bool:
    """Whether ``data`` is an object of zarr-python, which is not imported for the check."""
    return package_of(data) == "zarr"


def opened(data: Any, name: str) -> tuple[Any, str]:  # noqa: ANN401  (a path, or a node of Zarr)
    """Return the array or group ``data``, or at the path ``data``, and its name for messages."""
    import zarr  # noqa: PLC0415  (imported only if there are Zarr arrays)

    if not isinstance(data, str | os.PathLike):
        folder = local_folder(data)
        label = printable(str(folder or data.store_path))
        return _unshared(data), label if folder else f"{name} ({label})"
    text = os.fspath(data)
    label = printable(text)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    local = None if "://" in text else Path(text)
    if local is not None:
        _require_metadata(local, label)
    is_zip = local is not None and local.suffix == ".zip"
    inside = _folder_in_zip(text, label) if is_zip else ""
    try:
        store = zarr.storage.ZipStore(text, mode="r") if is_zip else text
        # consolidated metadata may be older than the arrays
        return zarr.open(store, path=inside, mode="r", use_consolidated=False), label
    # a damaged document makes zarr-python raise KeyError, TypeError, …
    except Exception as error:
        is_unknown = local is None and "Protocol not known" in str(error)
        if isinstance(error, ImportError) or (local is None and isinstance(error, OSError)):
            is_unknown = True
        if is_unknown:
            # the URL is empty, or its file system is not known or not installed
            raise InputError(f"nothing can be opened at {label}: {error}") from error
        raise _not_understood(label, error) from error


def _unshared(node: Any) -> Any:  # noqa: ANN401  (a node of Zarr)
    """Return a node of a ZIP archive from a file of its own.

    After ``fork``, processes that read by one open file move each other's position in it.
    """
    from zarr.storage import ZipStore  # noqa: PLC0415  (imported already, for the node)

    store = node.store_path.store
    if type(store) is not ZipStore or not store.read_only or not Path(store.path).is_file():
        return node
    import zarr  # noqa: PLC0415

    own = ZipStore(store.path, mode="r")
    return zarr.open(own, path=node.store_path.path, mode="r", use_consolidated=False)


def _folder_in_zip(text: str, label: str) -> str:
    """Return the folder of a ZIP archive that holds its Zarr; empty if it is at the top."""
    try:
        with zipfile.ZipFile(text) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataCorruptionError(
            f"{label} is no ZIP archive, or was cut off ({error}); copy it again"
        ) from error
    tops = {name.partition("/")[0] for name in names}
    if tops.isdisjoint(_DOCUMENTS) and len(tops) == 1:
        # as made by zip -r flights.zip flights.zarr
        return next(iter(tops))
    return ""


def cf_attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the CF attributes of an array.

    xarray keeps ``_FillValue`` of Zarr v2 as the array's fill value. Arrays of xarray list the
    names of their dimensions; the fill value of other arrays says nothing about written chunks.
    """
    stored = array.attrs.asdict()
    known = attributes_of(stored)
    is_version_2 = array.metadata.zarr_format == 2  # noqa: PLR2004
    if is_version_2 and "_ARRAY_DIMENSIONS" in stored and array.fill_value is not None:
        known["_FillValue"] = array.fill_value
    return known


def parents_of(node: zarr.Group) -> Iterator[zarr.Group]:
    """Yield the group that holds a matrix of AnnData; of a layer, the one that holds the layers."""
    import zarr  # noqa: PLC0415  (imported already, for the node)

    folder, store = local_folder(node), node.store_path.store
    inside = PurePosixPath("/", node.store_path.path) if folder is None else folder
    if folder is None and inside == inside.parent:
        return
    parent = inside.parent
    if parent.name == LAYERS:
        parent = parent.parent
    path = "" if folder is not None else str(parent).lstrip("/")
    # there may be no group
    with suppress(OSError, ValueError, KeyError):
        yield zarr.open_group(
            store if folder is None else str(parent), path=path, mode="r", use_consolidated=False
        )


def child_names(group: zarr.Group) -> str:
    """Return the names of a group's arrays and groups, for a message."""
    try:
        groups = (f"{name}/" for name in group.group_keys())
        return ", ".join(sorted([*group.array_keys(), *groups])) or "nothing"
    except Exception as error:
        if local_folder(group) is not None:
            raise  # a damaged document
        # a web server does not list what it has
        return f"names that its store cannot list ({error})"


def local_folder(node: zarr.Array[Any] | zarr.Group) -> Path | None:
    """Return the folder of an array or group; ``None`` if it is not in a local folder."""
    from zarr.storage import LocalStore  # noqa: PLC0415  (imported only if there are Zarr arrays)

    store = node.store_path.store
    return Path(store.root) / node.store_path.path if type(store) is LocalStore else None


def input_path(node: zarr.Array[Any] | zarr.Group) -> Path | None:
    """Return the path that an array may have on this machine, whatever its kind of store."""
    store, inside = node.store_path.store, node.store_path.path
    # a store of fsspec, by which dask.array.from_zarr opens a path
    path = getattr(store, "path", None)
    return Path(path) / inside if isinstance(path, str) else local_folder(node)


def printable(text: str) -> str:
    """Return a name for a message: without passwords, and quoted if it might be misread."""
    text = _SECRET.sub("://***@", text)
    return text if text.isprintable() and " " not in text and text else repr(text)


def _require_metadata(path: Path, label: str) -> None:
    try:
        if path.is_dir():
            _require_documents(path, label)
            return
    except StreamregError:
        raise
    except OSError as error:
        raise InputError(f"{label} cannot be read: {error.strerror}") from error
    if path.is_file() and path.suffix == ".zip":
        return
    if not path.exists():
        raise InputError(f"there is nothing at {label}; is the path spelled as on disk?")
    if path.suffix == ".npz":
        _refuse_own_file(path, label)
    raise InputError(
        f"{label} is a file, not a Zarr array. Tables go through `streamreg ingest`; an array in "
        f"an HDF5 file has its name behind the path, as {label}/X",
        PythonOnly(
            '; for .npy numpy.load(PATH, mmap_mode="r"), for '
            "sparse .npz scipy.sparse.load_npz(PATH).tocsr(), for statistics "
            "streamreg.Statistics.load(PATH)"
        ),
    )


def _refuse_own_file(path: Path, label: str) -> None:
    """Refuse statistics or a model in place of rows, and say what takes them."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("header.npy") as header:
            beginning = header.read(_HEADER_NBYTES)
    # a damaged archive makes zipfile raise many kinds of errors
    except Exception:  # noqa: BLE001
        return
    if b'"streamreg-statistics"' in beginning:
        raise InputError(
            f"{label} holds statistics, not rows: `streamreg fit {label}` fits them, and `plan`, "
            "`info` and `merge` take them too",
            PythonOnly("; in Python, fit takes streamreg.Statistics.load(PATH)"),
            ". Predictions, scores and residuals need the rows themselves",
        )
    if b'"streamreg-model"' in beginning:
        raise InputError(
            f"{label} holds a model, not rows: pass it as ",
            Parameter("model"),
            " of `streamreg predict` or `score`, together with rows",
        )


def _require_documents(folder: Path, label: str) -> None:
    found = [folder / name for name in _DOCUMENTS if (folder / name).is_file()]
    if not found:
        none = f"it has none of {', '.join(_DOCUMENTS)}"
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, 1000)]
        if any(name == "c" or name.replace(".", "").isdecimal() for name in names):
            raise DataCorruptionError(
                f"{label} holds chunks but no metadata: {none}. Restore its zarr.json, or .zarray"
            )
        raise InputError(f"{label} holds no Zarr array or group: {none}")
    for file in found:
        grid = _document(file).get("chunk_grid")
        if isinstance(grid, dict) and grid.get("name", "regular") != "regular":
            raise InputError(
                f"{label} has a {grid['name']!r} chunk grid, chunks of unequal size, which are not "
                "read; rewrite it in equal chunks"
            )


def _document(file: Path) -> dict[str, Any]:
    """Return a metadata document, once it is known to be a JSON object of moderate size."""
    label = printable(str(file))
    nbytes = file.stat().st_size
    if nbytes > _DOCUMENT_MAX_NBYTES:
        raise DataCorruptionError(
            f"{label} has {format_nbytes(nbytes)}, more than any metadata "
            f"(at most {format_nbytes(_DOCUMENT_MAX_NBYTES)})"
        )
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        what = "is empty" if nbytes == 0 else f"is not JSON ({error})"
        raise DataCorruptionError(f"{label} {what}; restore it from a copy") from error
    if not isinstance(document, dict):
        raise DataCorruptionError(f"{label} holds no JSON object; restore it from a copy")
    for key, value in document.items():
        # attributes are not checked: those of xarray often hold NaN
        if isinstance(value, float) and not math.isfinite(value):
            raise DataCorruptionError(
                f"{label} holds the token {json.dumps(value)} as {key}, which is not JSON; "
                f'write it as the text "{json.dumps(value)}"'
            )
    return document


def _not_understood(label: str, error: Exception) -> StreamregError:
    if isinstance(error, StreamregError):
        return error
    return DataCorruptionError(
        f"the metadata of {label} cannot be understood ({type(error).__name__}: {error}); "
        "restore its zarr.json, or .zarray and .zgroup"
    )
