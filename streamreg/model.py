"""A fitted model, and the file that it is saved to."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, MemoryLimitError
from streamreg.formatting import as_json, count, format_nbytes
from streamreg.inference.result import Inference
from streamreg.machine import available_nbytes
from streamreg.output.archive import Archive, parse_header, write_archive
from streamreg.output.atomic import atomic_write, require_folder
from streamreg.output.stored_coefficients import StoredCoefficients
from streamreg.schema import Schema
from streamreg.validate import path_text

if TYPE_CHECKING:
    import os

    from streamreg.blocks import Array, Float64

_FORMAT = "streamreg-model"
# a file of version 2 refers to weights in a Zarr array; version 1 holds them
_VERSION, _REFERRING_VERSION = 1, 2
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

    coefficients: Float64 | StoredCoefficients  # (K, D)
    intercept: Float64  # (K,)
    one_target: bool = True  # whether y was (N,); predictions then are (N,) too
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)  # plain numbers and texts
    inference: Inference | None = None  # standard errors, if the fit gave them
    schema: Schema | None = None  # how X was made of the columns of a table

    @property
    def stored(self) -> StoredCoefficients | None:
        """The weights if they stay in a Zarr array."""
        return self.coefficients if isinstance(self.coefficients, StoredCoefficients) else None

    def weights_of(self, start: int, stop: int) -> Float64:
        """Return the weights of targets ``start`` to ``stop``, (k, D): a view if in memory."""
        if isinstance(self.coefficients, StoredCoefficients):
            return self.coefficients.rows(start, stop)
        return self.coefficients[start:stop]

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
        Of weights in a Zarr array the file holds the path, relative if the array is in the folder
        of the file or below it, and the identity. ``InputError`` if the array was removed or
        replaced.
        """
        path = Path(path_text("path", path))
        if path.suffix not in {".json", ".npz"}:
            raise InputError(
                f"model files end in .json or .npz, not {path.suffix!r}: {path.name!r}"
            )
        stored = self.stored
        if stored is not None:
            stored.require_present()
        # stored weights were checked as they were written
        values = [self.intercept] if stored is not None else [self.intercept, self.coefficients]
        if not all(np.isfinite(each).all() for each in values):
            raise InputError("the model has weights that are NaN or inf; fit it again")
        require_folder(path, f"model {str(path)!r}")
        header: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION if stored is None else _REFERRING_VERSION,
            "one_target": self.one_target,
            "feature_names": self.feature_names,
            "target_names": self.target_names,
            "schema": None if self.schema is None else self.schema.to_json(),
            "details": as_json(self.details),
        }
        if self.inference is not None:
            header["inference"] = as_json(self.inference.to_dict())
        arrays = {"intercept": self.intercept}
        if isinstance(self.coefficients, StoredCoefficients):
            header["coefficients"] = _reference_to(self.coefficients, path)
        else:
            arrays["coefficients"] = self.coefficients
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
        """Read a model; no code in the file is ever run.

        Weights in a Zarr array are opened, not read. If the array is absent, or that of another
        fit, an ``InputError`` names it; a ``DataCorruptionError`` if its metadata are damaged.
        """
        path = Path(path_text("path", path))
        if not path.is_file():
            raise InputError(f"there is no model file at {str(path)!r}")
        try:
            if path.suffix == ".npz":
                with closing(Archive(path)) as archive:
                    header = archive.header
                    if header.get("format") == "streamreg-statistics":
                        raise _OtherFileError(  # noqa: TRY301
                            f"{str(path)!r} holds statistics, not a model: fit them, with "
                            f"`streamreg fit {path} --out model.json`"
                        )
                    is_referring = header.get("version") == _REFERRING_VERSION
                    names = ("intercept",) if is_referring else ("coefficients", "intercept")
                    header |= {name: archive.read(name) for name in names}
            else:
                header = parse_header(path.read_bytes())
            return cls._from_header(header, path)
        except _OtherFileError as error:
            raise InputError(str(error)) from None
        except _StoredWeightsError as error:
            raise error.why from error.why.__cause__
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
    def _from_header(cls, header: dict[str, Any], path: Path) -> Model:
        known = (("format", [_FORMAT]), ("version", [_VERSION, _REFERRING_VERSION]))
        for name, expected in known:
            if header.get(name) not in expected:
                raise ValueError(f"its {name} is {header.get(name)!r}, not {expected[0]!r}")
        intercept = _weights(header["intercept"], n_dimensions=1)
        coefficients: Float64 | StoredCoefficients
        if header["version"] == _REFERRING_VERSION:
            coefficients = _referred(header["coefficients"], path)
        else:
            coefficients = _weights(header["coefficients"], n_dimensions=2)
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


class _OtherFileError(Exception):
    """The file holds something else; the message is for the user."""


class _StoredWeightsError(Exception):
    """The weights that a model refers to cannot be opened; ``why`` is the error for the user."""

    def __init__(self, why: InputError | DataCorruptionError) -> None:
        super().__init__(str(why))
        self.why = why


def _reference_to(stored: StoredCoefficients, path: Path) -> dict[str, Any]:
    """Return what a model at ``path`` says of its stored weights."""
    folder = path.resolve().parent
    is_beside = stored.path.is_relative_to(folder)
    return {
        "path": str(stored.path.relative_to(folder) if is_beside else stored.path),
        "identity": stored.identity,
        "shape": list(stored.shape),
    }


def _referred(reference: object, path: Path) -> StoredCoefficients:
    """Return the weights that the model at ``path`` refers to."""
    if not isinstance(reference, dict):
        raise TypeError(f"its coefficients are {type(reference).__name__}, not a reference")
    store, identity, shape = (reference[name] for name in ("path", "identity", "shape"))
    if not (isinstance(store, str) and store and isinstance(identity, str)):
        raise TypeError(f"it refers to weights at {store!r} with identity {identity!r}")
    try:
        # a path is joined as it is if it is absolute
        stored = StoredCoefficients(path.parent / store, identity)
    except (InputError, DataCorruptionError) as error:
        kind = InputError if isinstance(error, InputError) else DataCorruptionError
        why = kind(f"the weights of the model in {str(path)!r} cannot be used: {error}")
        raise _StoredWeightsError(why) from error
    if [*stored.shape] != shape:
        raise ValueError(f"its weights are {stored.shape}, not {shape}")
    return stored


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
