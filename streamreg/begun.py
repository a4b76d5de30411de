"""What an earlier run left of predictions on their way to disk."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.sources.identity import folder_state, identity
from streamreg.sources.opening import open_source

if TYPE_CHECKING:
    import zarr

    from streamreg.model import Model
    from streamreg.sources.dataset import DataSet


def prediction_identity(model: Model, dataset: DataSet) -> str:
    """Return what tells these predictions from others."""
    weights = np.ascontiguousarray(model.coefficients), np.ascontiguousarray(model.intercept)
    known = {
        "weights": [zlib.crc32(each.data) for each in weights],
        "X": identity(dataset.X),
        "files": [folder_state(path) for path in dataset.X.inputs()],
        "nan_policy": dataset.nan_policy,
    }
    return json.dumps(known)


def rows_written(array: zarr.Array[Any]) -> int:
    """Return the rows of the chunks, from the first on, that were written whole."""
    written = open_source(array, array.name, missing_chunks="error")
    reader, done = written.open(), 0
    try:
        for chunk in range(len(written.grid)):
            start, stop = written.grid.rows(chunk)
            reader.read(start, stop)
            done = stop
    except DataCorruptionError:
        pass  # the first that is not
    finally:
        reader.close()
    return done
