"""Everything about a fit but its data: each parameter is parsed and checked once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamreg import validate
from streamreg.config import parsers
from streamreg.engines.fold_scan import GCV
from streamreg.errors import InputError, Parameter, Remedy
from streamreg.formatting import given
from streamreg.inference.result import COV_TYPES, NONROBUST
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.dual import Dual
from streamreg.solvers.registry import AUTO
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.sources.dataset import Dataset, NanPolicy


def _parsed(default: object, parser: Callable[[str, Any], object]) -> Any:  # noqa: ANN401
    """Return a field with the parser of what users pass."""
    return field(default=default, metadata={"parser": parser})


@dataclass(frozen=True, eq=False)
class FitConfig:
    """The parameters of ``LinearRegression``, as numbers; :meth:`parse` also accepts texts."""

    solver: str = _parsed(AUTO, parsers.solver)
    fit_intercept: bool = _parsed(True, validate.flag)
    l2: float = _parsed(0.0, parsers.l2)
    # "gcv", a number of folds or a splitter: the penalty is one of ``l2s``
    cv: Any = _parsed(None, parsers.or_none(parsers.cv))
    l2s: tuple[float, ...] | None = None  # ascending; ``None``: a grid from the data
    l2_per_target: bool = _parsed(False, validate.flag)
    l2_of_targets: tuple[float, ...] | None = None  # (K,) instead of ``l2``
    one_standard_error: bool = _parsed(False, validate.flag)
    cov_type: str | None = _parsed(None, parsers.or_none(parsers.one_of(*COV_TYPES)))
    inference_for: tuple[str | int, ...] | None = _parsed(None, parsers.or_none(parsers.columns))
    standardize: bool = _parsed(True, validate.flag)
    learning_rate: float | Literal["auto"] = _parsed("auto", parsers.learning_rate)
    precondition: int | Literal["auto"] | None = _parsed("auto", parsers.precondition)
    max_epochs: int = _parsed(1000, validate.whole)
    tol: float = _parsed(1e-8, parsers.tol)
    init: Any = "zeros"
    random_state: Any = None
    memory_limit: int | None = _parsed(None, parsers.or_none(parsers.size))  # bytes
    n_threads: int | None = _parsed(None, parsers.or_none(validate.threads))
    device: str = _parsed("cpu", parsers.one_of("cpu", "cuda"))
    device_memory_limit: int | None = _parsed(None, parsers.or_none(parsers.size))  # bytes
    client: Any = None
    checkpoint: str | None = _parsed(None, parsers.or_none(validate.path_text))
    coef_out: str | None = _parsed(None, parsers.or_none(validate.path_text))
    missing_chunks: str = _parsed("error", parsers.one_of("error", "fill"))
    decode_cf: bool = _parsed(True, validate.flag)
    nan_policy: NanPolicy = _parsed("raise", parsers.one_of("raise", "omit"))

    @classmethod
    def parse(cls, **parameters: object) -> FitConfig:
        """Parse and check what users pass; an ``InputError`` names the parameter."""
        if parameters.get("cv") is not None:
            parameters["l2s"] = parsers.l2s(parameters.pop("l2", None))
        elif parsers.is_list(parameters.get("l2")):
            parameters["l2_of_targets"] = parsers.l2_of_targets(parameters.pop("l2"))
        parser_of = {each.name: each.metadata.get("parser") for each in fields(cls)}
        parsed: dict[str, Any] = {
            name: parser(name, value) if (parser := parser_of.get(name)) else value
            for name, value in parameters.items()
        }
        config = cls(**parsed)
        config._require_consistent_inference()
        config._require_consistent_selection()
        config._require_consistent_targets()
        config._require_consistent_device()
        return config

    def _require_consistent_device(self) -> None:
        """Refuse parameters of a GPU without one, and those that a GPU has no plan for."""
        if self.device_memory_limit is not None and self.device != "cuda":
            raise InputError(
                Parameter("device_memory_limit"),
                " limits the memory of a GPU, and ",
                Parameter("device", "cpu"),
                " uses none: pass ",
                Remedy("device", "cuda"),
                ", or leave it out",
            )
        if self.device == "cuda" and isinstance(self.precondition, int):
            raise InputError(
                Parameter("precondition", self.precondition),
                " has no plan for the memory of a GPU: pass ",
                Remedy("device", "cpu"),
                ", or leave it out",
            )
        is_gpu_cluster = self.client is not None and self.device == "cuda"
        if is_gpu_cluster and self.device_memory_limit is None:
            raise InputError(
                Parameter("device", "cuda"),
                " with ",
                Parameter("client"),
                " needs ",
                Remedy("device_memory_limit"),
                ": the memory that a fit may use on the GPU of each worker",
            )

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

    def identity(self) -> dict[str, Any]:
        """Return the parameters that any solver's answer depends on, as JSON values."""
        return {
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
