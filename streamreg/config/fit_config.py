"""Everything about a fit but its data: each parameter is parsed and checked once."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from streamreg import validate
from streamreg.engines.fold_scan import GCV, SPLIT_NBYTES, GivenSplits
from streamreg.errors import InputError, Message, Parameter, PythonOnly, Remedy
from streamreg.formatting import count, given
from streamreg.inference.groups import Groups
from streamreg.inference.request import InferenceRequest
from streamreg.inference.result import CLUSTER, COV_TYPES, NONROBUST
from streamreg.machine import available_nbytes
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.dual import Dual
from streamreg.solvers.dual_search import DualSearch
from streamreg.solvers.penalty_search import PenaltySearch
from streamreg.solvers.registry import AUTO, SOLVERS, SolverSettings
from streamreg.solvers.selection import SelectionRequest
from streamreg.sources.folds import MOST_FOLDS
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Float64
    from streamreg.engines.fold_scan import FoldedRows
    from streamreg.solvers.base import Solver
    from streamreg.sources.dataset import Dataset, NanPolicy

Result = TypeVar("Result")


def _nbytes(name: str, size: object) -> int:
    return validate.parse_nbytes(size, name=name)


def _learning_rate(name: str, value: object) -> float | Literal["auto"]:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return validate.number(
        name,
        value,
        lambda rate: 0 < rate < np.inf,
        'a number above 0, or "auto" for the best step of each epoch',
    )


def _precondition(name: str, value: object) -> int | Literal["auto"] | None:
    """Return a number of directions, ``"auto"`` or ``None``, which is ``"none"`` as a text."""
    if value is None or (isinstance(value, str) and value == "none"):
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    what = Message('at least 1, or "auto" or "none"', PythonOnly(", or None"))
    return validate.whole(name, value, what=what)


def _columns(name: str, value: object) -> tuple[str | int, ...]:
    """Return the names or numbers of columns; one text holds names between commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    columns: list[Any] = list(value) if isinstance(value, Iterable) else []
    columns = [each.item() if isinstance(each, np.generic) else each for each in columns]
    if not columns or not all(type(each) in {str, int} for each in columns):
        raise InputError(given(name, value), " must list names or numbers of columns")
    if len({*columns}) < len(columns):
        raise InputError(given(name, value), " names a column twice")
    return tuple(columns)


def _or_none(parse: Callable[[str, object], Result]) -> Callable[[str, object], Result | None]:
    return lambda name, value: None if value is None else parse(name, value)


def _l2(name: str, value: object) -> float:
    return validate.number(name, value, lambda l2: 0 <= l2 < np.inf, "a finite number, 0 or more")


def _is_list(value: object) -> bool:
    """Whether a value holds several numbers; an array without axes is one."""
    is_text = isinstance(value, str | bytes)
    return isinstance(value, Iterable) and not is_text and getattr(value, "ndim", 1) > 0


def _l2_of_targets(value: object) -> tuple[float, ...]:
    """Return the penalty of each target, (K,)."""
    values = np.asarray(value, dtype=object)
    if values.ndim != 1 or not len(values):
        raise InputError(given("l2", value), " must be a number, or one for each target, (K,)")
    return tuple(_l2("l2", each) for each in values.tolist())


def _l2s(value: object) -> tuple[float, ...] | None:
    """Return penalties to compare, in ascending order and each once; ``None``: from the data."""
    if value is None:
        return None
    is_one = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    values: list[Any] = [value] if is_one else np.ravel(np.asarray(value, object)).tolist()
    if not values:
        raise InputError(given("l2", value), " must list penalties, each a finite number")
    return tuple(sorted({_l2("l2", each) for each in values}))


def _splits(name: str, value: Iterable[Any]) -> GivenSplits:
    """Return the splitter of pairs of row numbers, for training and for testing."""
    pairs = list(value)
    if not pairs:
        raise InputError(
            Parameter(name),
            " has no folds: it is empty, or an iterator that an earlier fit used up; pass a list "
            "of pairs (train, test)",
        )
    if not all(isinstance(each, tuple | list) and len(each) == 2 for each in pairs):  # noqa: PLR2004
        raise InputError(given(name, value), " must list pairs of row numbers, (train, test)")
    return GivenSplits(pairs)


def _cv(name: str, value: object) -> Any:  # noqa: ANN401  (a splitter)
    """Return ``"gcv"``, a number of folds, or a splitter."""
    if isinstance(value, str) and value == GCV:
        return value
    if callable(getattr(value, "split", None)) and callable(getattr(value, "get_n_splits", None)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return _splits(name, value)
    what = f'from 2 to {MOST_FOLDS - 1:,}, "{GCV}", or a splitter of scikit-learn'
    folds = validate.whole(name, value, MOST_FOLDS - 1, what)
    if folds < 2:  # noqa: PLR2004
        raise InputError(given(name, value), " must be a whole number, ", what)
    return folds


class _Targets(Protocol):
    """What is known of y."""

    @property
    def n_targets(self) -> int:
        """K."""

    @property
    def has_one_target(self) -> bool:
        """Whether y is (N,)."""


# parsers of all parameters but init, random_state and client, which are used as they are
_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    # a function, because solvers may be registered after this module is imported
    "solver": lambda name, value: validate.choice(name, value, (AUTO, *SOLVERS)),
    "fit_intercept": validate.flag,
    "l2": _l2,
    "cv": _or_none(_cv),
    "l2_per_target": validate.flag,
    "one_standard_error": validate.flag,
    "cov_type": _or_none(partial(validate.choice, known=COV_TYPES)),
    "inference_for": _or_none(_columns),
    "standardize": validate.flag,
    "learning_rate": _learning_rate,
    "precondition": _precondition,
    "max_epochs": validate.whole,
    "tol": partial(
        validate.number, accepts=lambda tol: 0 <= tol < 1, what="a number from 0 to below 1"
    ),
    "memory_limit": _or_none(_nbytes),
    "n_threads": _or_none(validate.threads),
    "device": partial(validate.choice, known=("cpu", "cuda")),
    "device_memory_limit": _or_none(_nbytes),
    "checkpoint": _or_none(validate.path_text),
    "coef_out": _or_none(validate.path_text),
    "missing_chunks": partial(validate.choice, known=("error", "fill")),
    "decode_cf": validate.flag,
    "nan_policy": partial(validate.choice, known=("raise", "omit")),
}


@dataclass(frozen=True, eq=False)
class FitConfig:
    """The parameters of ``LinearRegression``, as numbers; :meth:`parse` also accepts texts."""

    solver: str = AUTO
    fit_intercept: bool = True
    l2: float = 0.0
    cv: Any = None  # "gcv", a number of folds or a splitter: the penalty is one of ``l2s``
    l2s: tuple[float, ...] | None = None  # ascending; ``None``: a grid from the data
    l2_per_target: bool = False
    l2_of_targets: tuple[float, ...] | None = None  # (K,) instead of ``l2``
    one_standard_error: bool = False
    cov_type: str | None = None
    inference_for: tuple[str | int, ...] | None = None
    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    precondition: int | Literal["auto"] | None = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Any = "zeros"
    random_state: Any = None
    memory_limit: int | None = None  # bytes
    n_threads: int | None = None
    device: str = "cpu"
    device_memory_limit: int | None = None  # bytes
    client: Any = None
    checkpoint: str | None = None
    coef_out: str | None = None
    missing_chunks: str = "error"
    decode_cf: bool = True
    nan_policy: NanPolicy = "raise"

    @classmethod
    def parse(cls, **parameters: object) -> FitConfig:
        """Parse and check what users pass; an ``InputError`` names the parameter."""
        if parameters.get("cv") is not None:
            parameters["l2s"] = _l2s(parameters.pop("l2", None))
        elif _is_list(parameters.get("l2")):
            parameters["l2_of_targets"] = _l2_of_targets(parameters.pop("l2"))
        parsed: dict[str, Any] = {
            name: _PARSERS[name](name, value) if name in _PARSERS else value
            for name, value in parameters.items()
        }
        config = cls(**parsed)
        config._require_consistent_inference()
        config._require_consistent_selection()
        config._require_consistent_targets()
        if config.device_memory_limit is not None and config.device != "cuda":
            raise InputError(
                Parameter("device_memory_limit"),
                " limits the memory of a GPU, and ",
                Parameter("device", "cpu"),
                " uses none: pass ",
                Remedy("device", "cuda"),
                ", or leave it out",
            )
        if config.device == "cuda" and isinstance(config.precondition, int):
            raise InputError(
                Parameter("precondition", config.precondition),
                " has no plan for the memory of a GPU: pass ",
                Remedy("device", "cpu"),
                ", or leave it out",
            )
        is_gpu_cluster = config.client is not None and config.device == "cuda"
        if is_gpu_cluster and config.device_memory_limit is None:
            raise InputError(
                Parameter("device", "cuda"),
                " with ",
                Parameter("client"),
                " needs ",
                Remedy("device_memory_limit"),
                ": the memory that a fit may use on the GPU of each worker",
            )
        return config

    def _require_consistent_targets(self) -> None:
        """Refuse parameters that are not of many targets."""
        if self.coef_out is not None:
            for name in ("cov_type", "checkpoint", "client"):
                if getattr(self, name) is not None:
                    raise InputError(
                        Parameter("coef_out"),
                        " writes weights as they are found, which ",
                        Parameter(name),
                        " does not allow: leave one of them out",
                    )
        if self.l2_of_targets is None:
            return
        if self.solver not in {AUTO, ClosedForm.name}:
            raise InputError(
                given("l2", np.array(self.l2_of_targets)),
                " has a penalty for each target, which ",
                Parameter("solver", self.solver),
                " does not take: pass ",
                Remedy("solver", ClosedForm.name),
                ", or one number",
            )
        if self.cov_type is not None:
            raise InputError(
                Parameter("cov_type", self.cov_type),
                " gives standard errors of least squares, and a penalty biases the weights: pass ",
                Remedy("l2", 0.0),
            )
        if self.device == "cuda":
            raise InputError(
                Parameter("l2"),
                " with a penalty for each target has no kernels for a GPU: pass ",
                Remedy("device", "cpu"),
            )

    def _require_consistent_selection(self) -> None:
        """Refuse parameters with which no penalty can be chosen."""
        if self.cv is None:
            for name in ("l2_per_target", "one_standard_error"):
                if getattr(self, name):
                    raise InputError(
                        Parameter(name, value=True),
                        " chooses a penalty: pass ",
                        Remedy("cv", 5),
                        " too, or leave it out",
                    )
            return
        if self.solver == Dual.name and self.cv != GCV:
            raise InputError(
                Parameter("solver", Dual.name),
                " compares penalties by GCV only: pass ",
                Remedy("cv", GCV),
                ", or ",
                Remedy("solver", ClosedForm.name),
            )
        if self.solver not in {AUTO, ClosedForm.name, Dual.name}:
            raise InputError(
                Parameter("solver", self.solver),
                " does not compare penalties: pass ",
                Remedy("solver", ClosedForm.name),
                ", or a single ",
                Remedy("l2"),
                " without ",
                Parameter("cv"),
            )
        if self.cov_type is not None:
            raise InputError(
                Parameter("cov_type", self.cov_type),
                " gives standard errors of least squares, and a penalty biases the weights: leave "
                "it out",
            )
        if self.device == "cuda":
            raise InputError(
                Parameter("cv"), " has no kernels for a GPU: pass ", Remedy("device", "cpu")
            )
        if self.one_standard_error and self.cv == GCV:
            raise InputError(
                Parameter("one_standard_error", value=True),
                " needs the errors of folds, which ",
                Parameter("cv", GCV),
                " has not: pass ",
                Remedy("cv", 5),
            )

    def selection(self, rows: FoldedRows | None = None) -> SelectionRequest:
        """Return which penalties are compared, and how; without rows, by GCV."""
        request = SelectionRequest(
            self.l2s,
            n_folds=1,
            per_target=self.l2_per_target,
            one_standard_error=self.one_standard_error,
        )
        if rows is None:
            return request
        is_split = not isinstance(self.cv, str | int)
        return replace(
            request,
            n_folds=rows.n_folds,
            folds_alternate=rows.alternate,
            folds_nbytes=SPLIT_NBYTES * rows.dataset.n_rows if is_split else 0,
        )

    def _require_consistent_inference(self) -> None:
        """Refuse parameters for which standard errors are not defined, or not computed."""
        if self.cov_type is None:
            if self.inference_for is not None:
                raise InputError(
                    Parameter("inference_for"),
                    " chooses standard errors: pass ",
                    Remedy("cov_type", NONROBUST),
                    " too, or leave it out",
                )
            return
        asked = Parameter("cov_type", self.cov_type)
        if self.inference_for is not None and self.checkpoint is not None:
            raise InputError(
                Parameter("checkpoint"),
                " cannot save a fit with ",
                Parameter("inference_for"),
                "; leave one of them out",
            )
        if self.l2:
            raise InputError(
                asked,
                " gives standard errors of least squares, and a penalty biases the weights: pass ",
                Remedy("l2", 0.0),
                ", or leave it out",
            )
        if self.device == "cuda" and self.cov_type != NONROBUST:
            raise InputError(
                asked,
                " has no kernels for a GPU: pass ",
                Remedy("device", "cpu"),
                ", or ",
                Remedy("cov_type", NONROBUST),
            )

    def open_dataset(
        self,
        X: object,
        y: object = None,
        sample_weight: object = None,
        groups: object = None,
        *,
        needs_y: bool = True,
    ) -> Dataset:
        """Return the data set that users pass; only metadata are read."""
        return open_dataset(
            X,
            y,
            sample_weight,
            groups,
            missing_chunks=self.missing_chunks,
            decode_cf=self.decode_cf,
            nan_policy=self.nan_policy,
            needs_y=needs_y,
        )

    def inference(self, dataset: Dataset, groups: Groups | None = None) -> InferenceRequest | None:
        """Return what is asked for beside the weights; ``groups`` are those of ``"cluster"``."""
        if self.cov_type is None:
            return None
        if self.cov_type != NONROBUST and dataset.n_targets > 1:
            raise InputError(
                Parameter("cov_type", self.cov_type),
                f" is of one target, and y has {dataset.n_targets:,}: fit each alone, or pass ",
                Remedy("cov_type", NONROBUST),
            )
        if self.cov_type == CLUSTER:
            groups = groups or Groups()
        columns = None
        if self.inference_for is not None:
            columns = tuple(_number_of(each, dataset) for each in self.inference_for)
        return InferenceRequest(self.cov_type, groups, columns)

    def build_solver(
        self,
        name: str,
        init: Float64 | None = None,
        inference: InferenceRequest | None = None,
        selection: SelectionRequest | None = None,
    ) -> Solver:
        """Return the solver of that name with these parameters; ``init`` is w (D, K)."""
        writes = self.coef_out is not None
        if self.l2_of_targets is not None:
            selection = self.given_penalties()
        if selection is not None:
            if name == Dual.name:
                return DualSearch(request=selection)
            return PenaltySearch(selection, writes=writes)
        settings = SolverSettings(
            self.standardize,
            self.learning_rate,
            self.max_epochs,
            self.tol,
            init,
            inference,
            None if self.device == "cuda" else self.precondition,
            writes,
        )
        return SOLVERS[name](settings)

    def given_penalties(self, rows: _Targets | None = None) -> SelectionRequest:
        """Return the penalty of each target; refuse another number than that of ``rows``."""
        values = np.array(self.l2_of_targets)
        if rows is not None and (rows.has_one_target or len(values) != rows.n_targets):
            one = "is (N,)" if rows.has_one_target else f"has {count(rows.n_targets, 'target')}"
            raise InputError(
                given("l2", values),
                f" has {count(len(values), 'penalty')}, and y {one}: pass one number",
                "" if rows.has_one_target else ", or one for each target",
            )
        return SelectionRequest((), n_folds=1, per_target=True, given=values)

    def initial_weights(self, d: int, k: int) -> Float64 | None:
        """Return w to start from, (D, K), in the user's units; ``None`` for zeros."""
        if isinstance(self.init, str):
            if self.init == "zeros":
                return None
            if self.init == "random":
                return np.asarray(self._random_normal((d, k)) / np.sqrt(d))
            raise InputError(
                given("init", self.init),
                ' must be "zeros" or "random"',
                PythonOnly(", or an array (D,)"),
            )
        try:
            values = np.asarray(self.init, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                given("init", self.init), f' must be "zeros", "random" or numbers (D,): {error}'
            ) from error
        rows = values[None, :] if values.ndim == 1 else values
        if rows.shape not in {(1, d), (k, d)}:
            either = f" or ({k}, {d})" if k > 1 else ""
            raise InputError(
                f"init has shape {values.shape} but the fit has {count(d, 'feature')} and "
                f"{count(k, 'target')}; pass ({d},){either}"
            )
        if not np.isfinite(rows).all():
            raise InputError("init has NaN or inf; every starting weight must be finite")
        return np.broadcast_to(rows, (k, d)).T.copy()

    def _random_normal(self, shape: tuple[int, int]) -> Float64:
        """Draw normal numbers; ``random_state`` is as in scikit-learn, or a NumPy generator."""
        seed = self.random_state
        if isinstance(seed, np.random.RandomState | np.random.Generator):
            return np.asarray(seed.standard_normal(shape))
        if seed is None and self.checkpoint is not None:
            # the seed is the same when the fit is resumed
            seed = zlib.crc32(os.path.realpath(self.checkpoint).encode())
        try:
            return np.random.default_rng(seed).standard_normal(shape)
        except (TypeError, ValueError) as error:
            raise InputError(
                given("random_state", seed), f" cannot seed a generator: {error}"
            ) from error

    def identity(self, solver: Solver) -> dict[str, Any]:
        """Return the parameters that the answer depends on, as JSON values."""
        return {
            **solver.identity(),
            "fit_intercept": self.fit_intercept,
            "l2": self.l2,
            # the folds themselves are compared as the data's are
            "cv": self.cv if isinstance(self.cv, str | int | None) else type(self.cv).__name__,
            "l2s": self.l2s,
            "l2_of_targets": self.l2_of_targets,
            "cov_type": self.cov_type,
            "inference_for": self.inference_for,
            "missing_chunks": self.missing_chunks,
            "decode_cf": self.decode_cf,
            "nan_policy": self.nan_policy,
        }


def _number_of(column: str | int, dataset: Dataset) -> int:
    """Return the number of a column that is named, or numbered from 0."""
    names = dataset.feature_names or ()
    number = column if isinstance(column, int) else -1
    if isinstance(column, str):
        # a command line has texts only
        is_number = column.isascii() and column.isdigit() and column not in names
        number = names.index(column) if column in names else int(column) if is_number else -1
    if not 0 <= number < dataset.n_features:
        raise InputError(
            Parameter("inference_for"),
            f" names {column!r}, which is no column of {dataset.X.name}",
        )
    return number


def memory_limit_or_default(memory_limit: int | None) -> int:
    """Return the limit in bytes; by default half of what the process may still use."""
    return available_nbytes() // 2 if memory_limit is None else memory_limit
