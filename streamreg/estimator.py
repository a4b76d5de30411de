"""``LinearRegression``: the scikit-learn face of a fit."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from streamreg import fitting, prediction
from streamreg.errors import DataWarning, InputError
from streamreg.fitting import FitSettings
from streamreg.model import Model
from streamreg.progress import progress_of
from streamreg.sources.dataset import DataSet, open_dataset
from streamreg.sources.opening import is_streamable

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.planning import Plan
    from streamreg.solvers.base import EpochRecord


class LinearRegression(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares on data larger than memory.

    Minimises, with sᵢ = 1 where rows have no weights,

        f(w, b) = 1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)²  +  l2/2 · ‖w‖²

    With ``l2=0`` this is half the mean squared error. The intercept b is never penalised, and no
    column of ones is stored. Sums are float64 whatever the data are.

    Parameters
    ----------
    solver
        ``"closed_form"``: XᵀX, one pass, O(D²) memory. ``"gd"``: gradient descent, O(D).
        ``"cg"``: conjugate gradients, O(D), far fewer passes. ``"auto"``: ``closed_form`` where
        its planned peak fits ``memory_limit``, else ``cg``.
    fit_intercept
        Whether to fit b.
    l2
        The penalty of the objective.
    standardize
        ``gd`` and ``cg`` work in centred, scaled coordinates without copying X; coefficients are
        always in the user's units. ``False`` with a float ``learning_rate`` is the textbook update
        w ← w - α·∇f.
    learning_rate
        Of ``gd``: α > 0, or ``"auto"``, the exact line search of a quadratic.
    max_epochs, tol
        An epoch is one pass over all rows. ``gd`` stops when an epoch lowers the loss by less than
        ``tol`` of it; ``cg`` when ‖∇f‖ ≤ ``tol``·‖∇f at the start‖. Before its first epoch a
        standardising solver reads the rows once for means and deviations.
    init
        ``"zeros"``, ``"random"`` or an array (D,), in the user's units.
    random_state
        Seed or generator for ``init="random"``.
    memory_limit
        Bytes, or a text such as ``"512 MiB"``: what the fit may add to the process. ``None``: half
        of what the process may still use, containers' limits respected.
    n_threads
        Threads that fold rows; ``None``: all cores that the process may use. The number changes no
        bit of the answer.
    device
        ``"cpu"``.
    client
        ``None``: this process.
    checkpoint
        ``None``: none is kept.
    missing_chunks
        ``"error"``, or ``"fill"``: an absent Zarr chunk means its fill value.
    nan_policy
        ``"raise"``, or ``"omit"``: leave out rows with NaN or inf, counted and reported.
    progress
        ``True``: bars on a terminal, plain lines elsewhere. A callable is given each epoch's
        record (``epoch``, ``loss``, ``gradient_norm``).

    Attributes
    ----------
    coef_
        (D,), or (K, D) for y of shape (N, K).
    intercept_
        float, or (K,).
    n_features_in_
        D.
    feature_names_in_
        Names of the columns, where they are known.
    n_iter_
        Epochs run.
    loss_history_
        f at the start of each epoch and at the end; of several targets the sum.
    solver_
        The solver that ran.
    converged_
        Whether its tolerance was met.
    status_
        A sentence: why it stopped.
    plan_
        The plan that it kept to.
    peak_memory_
        Bytes that the fit added to the process at its highest, measured.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegression
    >>> X = np.arange(12.0).reshape(6, 2) ** 2
    >>> model = LinearRegression().fit(X, X @ [1.0, 2.0] + 3.0)
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([1., 2.]), 3.0)
    """

    def __init__(
        self,
        *,
        solver: str = "auto",
        fit_intercept: bool = True,
        l2: float = 0.0,
        standardize: bool = True,
        learning_rate: float | Literal["auto"] = "auto",
        max_epochs: int = 1000,
        tol: float = 1e-8,
        init: Any = "zeros",  # noqa: ANN401  (a word or an array)
        random_state: Any = None,  # noqa: ANN401  (scikit-learn's kinds)
        memory_limit: int | str | None = None,
        n_threads: int | None = None,
        device: str = "cpu",
        client: Any = None,  # noqa: ANN401  (a dask.distributed.Client)
        checkpoint: str | os.PathLike[str] | None = None,
        missing_chunks: str = "error",
        nan_policy: Literal["raise", "omit"] = "raise",
        progress: bool | Callable[[EpochRecord], object] = False,
    ) -> None:
        self.solver = solver
        self.fit_intercept = fit_intercept
        self.l2 = l2
        self.standardize = standardize
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.tol = tol
        self.init = init
        self.random_state = random_state
        self.memory_limit = memory_limit
        self.n_threads = n_threads
        self.device = device
        self.client = client
        self.checkpoint = checkpoint
        self.missing_chunks = missing_chunks
        self.nan_policy = nan_policy
        self.progress = progress

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: ANN401
        """Fit to rows wherever they lie.

        Parameters
        ----------
        X
            (N, D): the path or URL of a Zarr array, a ``zarr.Array``, a ``dask.array.Array``, a
            NumPy array or ``memmap``, an ``h5py.Dataset``, a data frame, or any object with
            ``shape``, ``dtype`` and slicing. The path of a Zarr group with arrays ``X`` and ``y``
            needs no ``y``.
        y
            (N,) or (N, K), any of these kinds.
        sample_weight
            (N,), not negative; a weight of 0 leaves the row out.

        Raises
        ------
        InputError
            Shapes, types, parameters, NaN or inf.
        MemoryLimitError
            The plan does not fit ``memory_limit``; nothing was read.
        DataCorruptionError
            A chunk is absent or damaged.
        DivergenceError
            The learning rate is too large.

        Warns
        -----
        ConvergenceWarning
            ``tol`` was not reached within ``max_epochs``.
        DataWarning
            Constant or dependent columns, few digits, rows left out.
        """
        settings = self._settings()
        dataset = self._dataset(X, y, sample_weight)
        names = self._check_names(X, reset=True) or dataset.feature_names
        dataset = replace(dataset, feature_names=names)
        result = fitting.fit(dataset, settings, progress_of(self.progress, "fit"))
        self._keep(result.model(dataset))
        self.plan_ = result.plan
        for message in result.warnings:
            warnings.warn(message, DataWarning, stacklevel=2)
        if not self.converged_:
            message = f"{self.solver_} did not converge in {self.n_iter_:,} epochs. {self.status_}"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def predict(
        self,
        X: Any,  # noqa: ANN401
        *,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> Any:  # noqa: ANN401  (an array, or the path of one)
        """Return Xw + b.

        Parameters
        ----------
        X
            As for ``fit``.
        out
            Where to write the predictions as a Zarr array, block by block; then its path is
            returned. ``None``: they are returned in memory, (N,) or (N, K).
        overwrite
            Whether an array at ``out`` is replaced.

        Raises
        ------
        InputError
            X has other columns than the fit had, holds NaN or inf, or ``out`` exists.
        MemoryLimitError
            The predictions do not fit ``memory_limit``; pass ``out``.
        """
        check_is_fitted(self)
        dataset = self._dataset(X, needs_y=False)
        self._check_names(X, reset=False)
        limits: Any = {"memory_limit": self.memory_limit, "n_threads": self.n_threads}
        if out is None:
            return prediction.predict(self._model(), dataset, **limits)
        inputs = [X] if isinstance(X, str | os.PathLike) else []
        return prediction.predict_to(
            self._model(), dataset, out, overwrite=overwrite, inputs=inputs, **limits
        )

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: ANN401
        """Return R², streamed; of several targets the mean.

        It is NaN, with a warning, where y is constant.
        """
        check_is_fitted(self)
        dataset = self._dataset(X, y, sample_weight)
        self._check_names(X, reset=False)
        scores = prediction.score(
            self._model(), dataset, memory_limit=self.memory_limit, n_threads=self.n_threads
        )
        if np.isnan(scores).any():
            warnings.warn(
                "R² is not defined where y is constant: its spread is 0", DataWarning, stacklevel=2
            )
        return float(np.mean(scores))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to ``.json`` or ``.npz``; parameters are not kept."""
        check_is_fitted(self)
        self._model().save(path)

    def _settings(self) -> FitSettings:
        return FitSettings(**{field.name: getattr(self, field.name) for field in fields(FitSettings)})

    def _dataset(
        self,
        X: Any,  # noqa: ANN401
        y: Any = None,  # noqa: ANN401
        sample_weight: Any = None,  # noqa: ANN401
        *,
        needs_y: bool = True,
    ) -> DataSet:
        return open_dataset(
            _readable(X, "X"), _readable(y, "y"), _readable(sample_weight, "sample_weight"),
            missing_chunks=self.missing_chunks, nan_policy=self.nan_policy, needs_y=needs_y,
        )  # fmt: skip

    def _check_names(self, X: Any, *, reset: bool) -> tuple[str, ...] | None:  # noqa: ANN401
        """Keep or compare the number and names of columns, as scikit-learn does."""
        if is_streamable(X) and not isinstance(X, np.ndarray):
            return None
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        except ValueError as error:
            raise InputError(str(error)) from error
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names)

    def _keep(self, fitted: Model) -> None:
        one = fitted.one_target
        self.coef_ = fitted.coefficients[0] if one else fitted.coefficients
        self.intercept_ = float(fitted.intercept[0]) if one else fitted.intercept
        self.n_features_in_ = fitted.n_features
        if fitted.feature_names is not None:
            self.feature_names_in_ = np.asarray(fitted.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        details = fitted.details
        self.solver_ = details.get("solver")
        self.status_ = details.get("status")
        self.converged_ = details.get("converged")
        self.n_iter_ = details.get("n_epochs")
        self.loss_history_ = details.get("loss_history")
        self.peak_memory_ = details.get("peak_memory")
        self._target_names = fitted.target_names

    def _model(self) -> Model:
        one = np.ndim(self.coef_) == 1
        names = getattr(self, "feature_names_in_", None)
        return Model(
            np.atleast_2d(np.asarray(self.coef_, dtype=np.float64)),
            np.atleast_1d(np.asarray(self.intercept_, dtype=np.float64)),
            one,
            None if names is None else tuple(names),
            self._target_names,
            {
                "solver": self.solver_, "status": self.status_, "converged": self.converged_,
                "n_epochs": self.n_iter_, "loss_history": self.loss_history_,
                "peak_memory": self.peak_memory_,
            },
        )  # fmt: skip


def load(path: str | os.PathLike[str]) -> LinearRegression:
    """Return a fitted ``LinearRegression`` from a file that ``save`` wrote.

    Parameters of the fit are those of the constructor; nothing in the file is ever run.

    Raises
    ------
    InputError
        There is no such file, or it is not a model.
    """
    estimator = LinearRegression()
    estimator._keep(Model.load(path))  # noqa: SLF001  (a second constructor)
    return estimator


def plan(
    X: Any,  # noqa: ANN401
    y: Any = None,  # noqa: ANN401
    sample_weight: Any = None,  # noqa: ANN401
    **parameters: Any,  # noqa: ANN401
) -> Plan:
    """Plan a fit from metadata alone: what each solver would need, and which would run.

    Parameters
    ----------
    X, y, sample_weight
        As for ``LinearRegression.fit``.
    **parameters
        Of ``LinearRegression``, such as ``memory_limit`` and ``solver``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import plan
    >>> X, y = np.zeros((1000, 10)), np.zeros(1000)
    >>> plan(X, y, memory_limit="1 GiB").chosen
    'closed_form'
    """
    estimator = LinearRegression(**parameters)
    dataset = estimator._dataset(X, y, sample_weight)  # noqa: SLF001
    return fitting.plan_fit(dataset, estimator._settings())  # noqa: SLF001


def _readable(data: Any, name: str) -> Any:  # noqa: ANN401
    """Return data that can be read in blocks; lists and data frames as scikit-learn reads them."""
    numeric = not isinstance(data, np.ndarray) or data.dtype.kind in "biuf"
    if data is None or (is_streamable(data) and numeric):
        return data
    try:
        return check_array(
            data, dtype="numeric", ensure_2d=name == "X", allow_nd=True, ensure_all_finite=False,
            ensure_min_samples=0, ensure_min_features=0, input_name=name,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error)) from error
