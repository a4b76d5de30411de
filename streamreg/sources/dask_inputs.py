"""Arrays on disk that a Dask graph reads, seen from its tasks."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from streamreg.sources.checked_array import CheckedHdf5, CheckedZarr
from streamreg.sources.packing import Packing, attributes_of
from streamreg.sources.zarr.metadata import cf_attributes, input_path, is_zarr, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# functions of tasks that pass on values as they are
_UNCHANGED = {
    "getter",
    "getter_inline",
    "getter_nofancy",
    "getitem",
    "concatenate3",
    "concatenate_shaped",
    "identity",
}
# attributes in which xarray's lazy arrays hold the array that they read
_INSIDE = ("array", "_array")


def is_hdf5(data: object) -> bool:
    """Whether ``data`` is an h5py.Dataset; h5py is not imported for the check."""
    return type(data).__module__.startswith("h5py.") and hasattr(data, "read_direct")


def is_stored(data: object) -> bool:
    """Whether ``data`` is an array of Zarr or HDF5."""
    return (is_zarr(data) and hasattr(data, "shape")) or is_hdf5(data)


def unwrapped(task: Any) -> Any:  # noqa: ANN401  (dask publishes no types)
    """Return the value of a task that Dask made only to hold data; other tasks as they are."""
    return getattr(task, "value", task)


def read_as_stored(tasks: Iterable[Any]) -> Any:  # noqa: ANN401
    """Return the one array on disk whose values the tasks pass on unchanged; else ``None``."""
    found: dict[int, Any] = {}
    for task in tasks:
        held = [unwrapped(task), *map(unwrapped, getattr(task, "args", ()))]
        found |= {id(data): data for data in held if is_stored(data)}
        function = getattr(task, "func", None)
        if function is not None and getattr(function, "__name__", "") not in _UNCHANGED:
            return None
        if function is None and not is_stored(unwrapped(task)) and not hasattr(task, "target"):
            return None  # a value of another kind; an alias has a target
    return next(iter(found.values())) if len(found) == 1 else None


def packed_arrays(tasks: Iterable[Any]) -> list[str]:
    """Return the names of arrays on disk, with CF attributes, that tasks read without decoding."""
    names: dict[str, None] = {}
    for task in tasks:
        for data in (unwrapped(task), *map(unwrapped, getattr(task, "args", ()))):
            if is_stored(data):
                name = stored_name(data)
                if Packing.of(cf_attributes_of(data), data.dtype, name) is not None:
                    names[name] = None
    return list(names)


def cf_attributes_of(data: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the CF attributes of an array of Zarr or HDF5."""
    return cf_attributes(data) if is_zarr(data) else attributes_of(data.attrs)


def stored_name(data: Any) -> str:  # noqa: ANN401
    """Return what messages call an array of Zarr or HDF5."""
    if is_zarr(data):
        return printable(str(input_path(data) or data.store_path))
    return printable(data.file.filename + data.name)


def checked(data: Any) -> Any:  # noqa: ANN401
    """Return data of a task with its arrays on disk checked for absent chunks.

    xarray's lazy arrays are copied down to the array that they read. Data in which no array on
    disk is seen are returned as they are.
    """
    if is_zarr(data) and hasattr(data, "shape"):
        return CheckedZarr(data, stored_name(data))
    if is_hdf5(data):
        return CheckedHdf5(data, stored_name(data))
    return _with_inside(data, checked)


def hides_its_store(data: Any) -> bool:  # noqa: ANN401
    """Whether data are a lazy array of xarray, and the file that it reads is not seen."""
    if not type(data).__module__.startswith("xarray."):
        return False
    inside = _inside(data)
    if inside is None:
        return type(data).__module__.startswith("xarray.backends.")
    return hides_its_store(inside[1])


def holds_arrays_inline(layers: Iterable[Any]) -> bool:
    """Whether tasks hold an array on disk as an argument, where it cannot be checked."""
    for layer in layers:
        # tasks of a layer are alike
        task = next(iter(layer.values()), None)
        if any(is_stored(unwrapped(part)) for part in getattr(task, "args", ())):
            return True
    return False


def _inside(data: Any) -> tuple[str, Any] | None:  # noqa: ANN401
    for name in _INSIDE:
        inner = getattr(data, name, None)
        if inner is not None and inner is not data:
            return name, inner
    return None


def _with_inside(data: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    if not type(data).__module__.startswith("xarray."):
        return data
    inside = _inside(data)
    if inside is None:
        return data
    name, inner = inside
    new = change(inner)
    if new is inner:
        return data
    made = copy(data)
    setattr(made, name, new)
    return made
