"""What ``LinearRegression`` and ``LinearRegressionCV`` share: parameters, predictions, files."""

from __future__ import annotations

import os
import warnings
from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from streamreg import validate
from streamreg.config.fit_config import FitConfig
from streamreg.errors import DataWarning, InputError, warn
from streamreg.formatting import count
from streamreg.inference.attributes import InferenceAttributes
from streamreg.model import DETAILS, SELECTION, Model
from streamreg.output.stored_coefficients import StoredCoefficients
from streamreg.predict.predictions import predict, predict_to
from streamreg.predict.scores import Evaluation, score
from streamreg.progress import progress_of
from streamreg.solvers.registry import AUTO, SPARSE_SOLVERS
from streamreg.sources.kinds import is_streamable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sklearn.utils import Tags

    from streamreg.blocks import Float64
    from streamreg.fitting.result import Described, Fit
    from streamreg.solvers.base import EpochRecord
    from streamreg.statistics.statistics import Statistics

# paths, arrays of any library, data frames, lists
Rows: TypeAlias = Any
Path: TypeAlias = "str | os.PathLike[str]"
_MULTIOUTPUT = ("uniform_average", "raw_values")


# not a dataclass: Dask identifies those by their fields, which a fit does not change
class LinearEstimator(InferenceAttributes, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A linear model that is fitted in passes; the parameters are those of the fit."""

    def __init__(
        self,
        *,
        solver: str = "auto",
        fit_intercept: bool = True,
        l2: float | Sequence[float] | Float64 = 0.0,
        cov_type: str | None = None,
        inference_for: Sequence[str | int] | None = None,
        standardize: bool = True,
        learning_rate: float | Literal["auto"] = "auto",
        precondition: int | Literal["auto"] | None = "auto",
        max_epochs: int = 1000,
        tol: float = 1e-8,
        init: Rows = "zeros",
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        memory_limit: int | str | None = None,
        n_threads: int | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        device_memory_limit: int | str | None = None,
        client: object = None,
        checkpoint: Path | None = None,
        coef_out: Path | None = None,
        missing_chunks: str = "error",
        decode_cf: bool = True,
        nan_policy: Literal["raise", "omit"] = "raise",
        progress: bool | Callable[[EpochRecord], object] = False,
    ) -> None:
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.l2 = l2
        self.cov_type = cov_type
        self.inference_for = inference_for
        self.standardize = standardize
        self.learning_rate = learning_rate
        self.precondition = precondition
        self.max_epochs = max_epochs
        self.tol = tol
        self.init = init
        self.random_state = random_state
        self.memory_limit = memory_limit
        self.n_threads = n_threads
        self.device = device
        self.device_memory_limit = device_memory_limit
        self.client = client
        self.checkpoint = checkpoint
        self.coef_out = coef_out
        self.missing_chunks = missing_chunks
        self.decode_cf = decode_cf
        self.nan_policy = nan_policy
        self.progress = progress

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # a name that no solver has is refused by fit
        reads_sparse = self.solver == AUTO or self.solver in SPARSE_SOLVERS
        tags.input_tags.sparse = reads_sparse
        return tags

    def _finish(
        self, result: Fit, described: Described, statistics: Statistics | None = None
    ) -> Self:
        """Set the fitted attributes and warn; ``statistics`` are those of ``partial_fit``."""
        self._statistics: Statistics | None = statistics
        self._set_fitted(result.model(described))
        self.plan_ = result.plan
        for message in result.warnings:
            warn(message)
        if not self.converged_:
            epochs = count(self.n_iter_, "epoch")
            message = f"{self.solver_} did not converge in {epochs}. {self.status_}"
            warn(message, ConvergenceWarning)
        if result.checkpoint_error is not None:
            raise result.checkpoint_error
        return self

    def predict(self, X: Rows, *, out: Path | None = None, overwrite: bool = False) -> Rows:
        """Return Xw + b, (N,) or (N, K); or write it to the Zarr array ``out``, block by block.

        Then the path of that array is returned; ``overwrite`` lets it replace an existing one. If
        the weights of all targets do not fit ``memory_limit``, they are taken in batches, each of
        which reads X again unless X fits in memory too.

        Raises
        ------
        InputError
            X has other columns than the fit had, holds NaN or inf, or ``out`` exists.
        MemoryLimitError
            The predictions do not fit ``memory_limit``; pass ``out``.
        """
        model, config = self._model(), self._config()
        dataset = config.open_dataset(X, needs_y=False)
        self._check_columns(X, reset=False)
        progress = progress_of(self.progress, "predict")
        if out is None:
            return predict(model, dataset, config, progress)
        return predict_to(
            model,
            dataset,
            validate.path_text("out", out),
            config,
            progress,
            overwrite=validate.flag("overwrite", overwrite),
            inputs=[X] if isinstance(X, str | os.PathLike) else [],
        )

    def score(
        self,
        X: Rows,
        y: Rows = None,
        sample_weight: Rows = None,
        *,
        multioutput: Literal["uniform_average", "raw_values"] = "uniform_average",
    ) -> float | Float64:
        """Return R², streamed; of several targets the mean, or with ``"raw_values"`` each, (K,).

        NaN, with a warning, if y is constant or has one row. Another warning counts the rows that
        ``nan_policy="omit"`` leaves out. Targets are taken in batches if the weights of all do not
        fit ``memory_limit``.
        """
        validate.choice("multioutput", multioutput, _MULTIOUTPUT)
        r2 = self._evaluate(X, y, sample_weight).r2
        return r2 if multioutput == "raw_values" else float(np.mean(r2))

    def _evaluate(self, X: Rows, y: Rows, sample_weight: Rows) -> Evaluation:
        model, config = self._model(), self._config()
        dataset = config.open_dataset(X, y, sample_weight)
        self._check_columns(X, reset=False)
        scores = score(model, dataset, config, progress_of(self.progress, "score"))
        for message in scores.warnings:
            warnings.warn(message, DataWarning, stacklevel=3)
        return scores.evaluation

    def __getstate__(self) -> dict[str, Any]:
        # a connection belongs to its process
        return {**super().__getstate__(), "client": None}

    def __sklearn_clone__(self) -> Self:
        made: Self = BaseEstimator.__sklearn_clone__(copy(self))
        made.client = self.client
        return made

    def save(self, path: Path) -> None:
        """Write the fitted model to ``.json`` or ``.npz``; parameters are not saved."""
        self._model().save(path)

    def _config(self) -> FitConfig:
        if not callable(self.progress):
            validate.flag("progress", self.progress, "True, False or a callable")
        parameters = self.get_params(deep=False)
        known = {each.name for each in fields(FitConfig)}
        return FitConfig.parse(**{name: parameters[name] for name in known & parameters.keys()})

    def _check_columns(self, X: Rows, *, reset: bool) -> tuple[str, ...] | None:
        """Keep or compare the number and names of columns, as scikit-learn does."""
        if is_streamable(X) and not isinstance(X, np.ndarray):
            return None
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        # TypeError: of names that are not all texts
        except (ValueError, TypeError) as error:
            raise InputError(str(error)) from error
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names)

    def _set_fitted(self, fitted: Model) -> None:
        one, names = fitted.one_target, fitted.feature_names
        self.coef_: Any = fitted.coefficients[0] if one else fitted.coefficients
        self.intercept_ = float(fitted.intercept[0]) if one else fitted.intercept
        self.n_features_in_ = fitted.n_features
        if names is not None:
            self.feature_names_in_ = np.asarray(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        for name in DETAILS:
            setattr(self, f"{name}_", fitted.details.get(name))
        for name in SELECTION:
            if name in fitted.details:
                # a file has None for -inf
                values = fitted.details[name]
                is_list = isinstance(values, list)
                setattr(self, f"{name}_", np.array(values, np.float64) if is_list else values)
            elif hasattr(self, f"{name}_"):
                delattr(self, f"{name}_")
        digits = fitted.details.get("digits")
        # a file has None for NaN
        self.digits_ = None if digits is None else np.array(digits, dtype=np.float64)
        condition = fitted.details.get("condition")
        # and for inf
        self.condition_ = np.inf if condition is None and digits is not None else condition
        self._target_names = fitted.target_names
        self.schema_ = fitted.schema
        self._has_one_target, self._inference = one, fitted.inference

    def _model(self) -> Model:
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        coefficients = self.coef_
        if not isinstance(coefficients, StoredCoefficients):
            coefficients = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
        return Model(
            coefficients,
            np.atleast_1d(np.asarray(self.intercept_, dtype=np.float64)),
            np.ndim(self.coef_) == 1,
            None if names is None else tuple(names),
            self._target_names,
            {
                name: getattr(self, f"{name}_")
                for name in (*DETAILS, *SELECTION)
                if name in DETAILS or hasattr(self, f"{name}_")
            },
            self._inference,
            getattr(self, "schema_", None),
        )
