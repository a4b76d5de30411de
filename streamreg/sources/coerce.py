"""Lists become NumPy arrays; frames and labelled arrays are read a block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Number
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import InputError
from streamreg.sources.checks import require_dense
from streamreg.sources.frames.convert import frame_rows, is_frame
from streamreg.sources.frames.objects import floats_of_objects
from streamreg.sources.kinds import is_streamable
from streamreg.sources.labelled import is_labelled
from streamreg.sources.scipy_csr import is_scipy

if TYPE_CHECKING:
    from streamreg.blocks import Array


# arrays that scipy.sparse.save_npz writes, whatever the format is
_NPZ_OF_SCIPY = {"format", "shape", "data"}


class Streamable(NamedTuple):
    """Data that can be read in blocks, and whether integers beyond 2^53 were rounded."""

    data: object
    is_rounded: bool = False


def as_streamable(data: object, name: str) -> Streamable:
    """Return data that can be read in blocks: unchanged if possible, else as a NumPy array."""
    _refuse_containers(data, name)
    # SciPy's are read as they are, if their format allows it
    require_dense(None if is_scipy(data) else data, name)
    if is_labelled(data) and getattr(data, "dtype", None) == np.dtype(object):
        data = np.asarray(data)
    is_objects = isinstance(data, np.ndarray) and data.dtype == object
    if is_frame(data):
        return Streamable(frame_rows(data, name))
    if not (is_objects or _is_for_numpy(data)) or (is_streamable(data) and not is_objects):
        return Streamable(data)  # as it is, or to be refused by open_source, which names its type
    try:
        rows = data if isinstance(data, list | tuple) else ()
        if any(isinstance(row, np.ma.MaskedArray) for row in rows):
            # np.asarray would drop the masks
            return Streamable(np.ma.array(data))
        array = np.asarray(data)
    # rows of different lengths raise ValueError; other libraries may raise any error
    except Exception as error:
        raise InputError(f"{name} cannot be made an array: {error}") from error
    if array.ndim == 0:
        return Streamable(data)  # not rows: open_source refuses it, and names its type
    if array.dtype == object:
        return Streamable(*floats_of_objects(array, name))
    return Streamable(array, array.dtype.kind == "f" and _rounds(data, array))


def _is_for_numpy(data: object) -> bool:
    """Whether NumPy reads ``data`` as an array: of other objects it takes slices of slices."""
    if isinstance(data, Sequence | Number | memoryview) and not isinstance(data, str):
        return True
    return any(hasattr(data, f"__array{what}__") for what in ("", "_interface", "_struct"))


def _refuse_containers(data: object, name: str) -> None:
    """Raise :class:`InputError` for what is no array but leads to some."""
    if isinstance(data, bytes):
        raise InputError(f"{name} is of type bytes; paths must be text: pass {name}.decode()")
    if isinstance(data, np.lib.npyio.NpzFile):
        if set(data) >= _NPZ_OF_SCIPY:
            raise InputError(
                f"{name} is the .npz file of a sparse array: pass "
                "scipy.sparse.load_npz(PATH).tocsr()"
            )
        raise InputError(
            f"{name} is an .npz file, which holds arrays by name: pass one of them, as "
            f"{name}[{next(iter(data), 'NAME')!r}]"
        )
    if type(data).__module__.partition(".")[0] == "anndata" and hasattr(data, "obs"):
        raise InputError(
            f"{name} is an AnnData object, which holds several arrays: pass one of them, as "
            'adata.X or adata.layers["counts"], and as y a column, as adata.obs["COLUMN"]'
        )


def _rounds(data: Any, floats: Array) -> bool:  # noqa: ANN401
    """Return whether an integer of a list was rounded to a float."""
    is_large = np.abs(floats) >= EXACT_INTEGERS
    if not is_large.any():
        return False
    large = np.asarray(data, object)[is_large]
    return any(isinstance(value, Integral) and abs(int(value)) > EXACT_INTEGERS for value in large)
