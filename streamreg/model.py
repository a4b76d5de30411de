"""A fitted model, and the file that it is saved to."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError, MemoryLimitError
from streamreg.formatting import as_json, count, format_nbytes
from streamreg.inference.result import Inference
from streamreg.machine import available_nbytes
from streamreg.output.archive import Archive, parse_header, write_archive
from streamreg.output.atomic import atomic_write, require_folder
from streamreg.schema import Schema
from streamreg.validate import path_text

if TYPE_CHECKING:
    import os

    from streamreg.blocks import Array, Float64

_FORMAT = "streamreg-model"
_VERSION = 1
# attributes of the fitted estimator, without their underscore, that are saved too
DETAILS = (
    "solver",
    "status",
    "converged",
    "n_iter",
    "loss_history",
    "n_rows",
    "rows_omitted",
    "peak_memory",
    "planned_peak",
    "memory_limit",
    "warnings",
    "digits",
    "condition",
)
# those of a fit that chose its penalty
SELECTION = ("l2", "l2s", "cv_scores", "best_score")


@dataclass(frozen=True, eq=False)
class Model:
    """Weights in the user's units."""

    coefficients: Float64  # (K, D)
    intercept: Float64  # (K,)
    one_target: bool = True  # whether y was (N,); predictions then are (N,) too
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)  # plain numbers and texts
    inference: Inference | None = None  # standard errors, if the fit gave them
    schema: Schema | None = None  # how X was made of the columns of a table

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.coefficients.shape[1])

    @property
    def n_targets(self) -> int:
        """K."""
        return int(self.coefficients.shape[0])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a ``.json`` or ``.npz`` file, whole or not at all.

        :meth:`load` returns bitwise identical weights; NaN and inf in the details become ``None``.
        """
        path = Path(path_text("path", path))
        if path.suffix not in {".json", ".npz"}:
            raise InputError(
                f"model files end in .json or .npz, not {path.suffix!r}: {path.name!r}"
            )
        if not (np.isfinite(self.coefficients).all() and np.isfinite(self.intercept).all()):
            raise InputError("the model has weights that are NaN or inf; fit it again")
        require_folder(path, f"model {str(path)!r}")
        header: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "one_target": self.one_target,
            "feature_names": self.feature_names,
            "target_names": self.target_names,
            "schema": None if self.schema is None else self.schema.to_json(),
            "details": as_json(self.details),
        }
        if self.inference is not None:
            header["inference"] = as_json(self.inference.to_dict())
        arrays = {"coefficients": self.coefficients, "intercept": self.intercept}
        # a random name, because another process may save to the same path
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            with atomic_write(partial, path) as file:
                if path.suffix == ".json":
                    lists = {name: array.tolist() for name, array in arrays.items()}
                    file.write(json.dumps(header | lists, indent=1, allow_nan=False).encode())
                else:
                    write_archive(file, header, arrays)
        except OSError as error:
            raise InputError(
                f"the model cannot be written to {str(path)!r}: {error.strerror}"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model; no code in the file is ever run."""
        path = Path(path_text("path", path))
        if not path.is_file():
            raise InputError(f"there is no model file at {str(path)!r}")
        try:
            if path.suffix == ".npz":
                with closing(Archive(path)) as archive:
                    header = archive.header
                    header |= {name: archive.read(name) for name in ("coefficients", "intercept")}
            else:
                header = parse_header(path.read_bytes())
            return cls._from_header(header)
        except MemoryError as error:
            raise MemoryLimitError(
                f"the system refused memory for the model in {str(path)!r}: "
                f"{str(error) or 'none is left'}; {format_nbytes(available_nbytes())} are available"
            ) from error
        # a damaged file makes json, zipfile and NumPy raise many kinds of errors
        except Exception as error:
            raise InputError(
                f"{str(path)!r} is not a model of streamreg ({type(error).__name__}: {error}); "
                "fit and save the model again"
            ) from error

    @classmethod
    def _from_header(cls, header: dict[str, Any]) -> Model:
        for name, expected in (("format", _FORMAT), ("version", _VERSION)):
            if header.get(name) != expected:
                raise ValueError(f"its {name} is {header.get(name)!r}, not {expected!r}")
        coefficients = _weights(header["coefficients"], n_dimensions=2)
        intercept = _weights(header["intercept"], n_dimensions=1)
        n_targets, n_features = coefficients.shape
        if intercept.shape != (n_targets,) or 0 in coefficients.shape:
            raise ValueError(f"shapes {coefficients.shape} and {intercept.shape} do not fit")
        one_target, details = header["one_target"], header["details"]
        if not isinstance(one_target, bool) or (one_target and n_targets > 1):
            raise ValueError(f"one_target={one_target!r} with {count(n_targets, 'target')}")
        if not isinstance(details, dict):
            raise TypeError(f"its details are {type(details).__name__}, not a dictionary")
        return cls(
            coefficients=coefficients,
            intercept=intercept,
            one_target=one_target,
            feature_names=names_from_json(header["feature_names"], n_features, "feature"),
            target_names=names_from_json(header["target_names"], n_targets, "target"),
            schema=schema_from_json(header.get("schema"), n_features),
            details=details,
            inference=_inference(header.get("inference"), n_targets, n_features),
        )


def _inference(known: object, n_targets: int, n_features: int) -> Inference | None:
    """Return what a file says of standard errors; a file of an earlier version says nothing."""
    if known is None:
        return None
    inference = Inference.from_dict(known)
    expected = (n_targets, n_features + inference.has_intercept)
    if inference.params.shape != expected:
        raise ValueError(f"its standard errors are {inference.params.shape}, not {expected}")
    return inference


def schema_from_json(document: object, n_features: int) -> Schema | None:
    """Return the schema in a file; raise an error that says what is wrong."""
    # files of earlier versions have none
    if document is None:
        return None
    schema = Schema.from_json(document)
    if schema.n_columns != n_features:
        raise ValueError(f"its schema has {count(schema.n_columns, 'column')}, not {n_features:,}")
    return schema


def _weights(values: list[Any] | Array, *, n_dimensions: int) -> Float64:
    array = np.asarray(values)
    # checked before astype, which would convert "1.5" and True to numbers
    if array.dtype.kind not in "fi" or array.ndim != n_dimensions:
        raise TypeError(f"weights are {array.dtype} of {count(array.ndim, 'dimension')}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a weight is not finite")
    return array


def names_from_json(names: object, length: int, what: str) -> tuple[str, ...] | None:
    """Return the names in a file; ``ValueError`` if they are not this many texts."""
    if names is None:
        return None
    if not isinstance(names, list) or {*map(type, names)} != {str} or len(names) != length:
        raise ValueError(f"its {what} names are not {count(length, 'text')}")
    return tuple(names)
