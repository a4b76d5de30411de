"""``LinearRegression``: the scikit-learn face of a fit."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import (
    _check_feature_names,
    _check_sample_weight,
    check_array,
    check_is_fitted,
)

from streamreg import fitting, model
from streamreg.errors import DataWarning, InputError
from streamreg.fitting import FitSettings
from streamreg.model import Model
from streamreg.progress import progress_of
from streamreg.sources.dataset import DataSet, open_dataset
from streamreg.sources.opening import is_streamable

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Float64
    from streamreg.plan import Plan
    from streamreg.solvers.base import EpochRecord

_FIT_SETTINGS = (
    "solver", "fit_intercept", "l2", "standardize", "learning_rate", "max_epochs", "tol",
    "init", "random_state", "memory_limit", "n_threads",
)  # fmt: skip


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
        names = _frame_names(self, X)
        dataset = self._dataset(X, y, sample_weight)
        result = fitting.fit(dataset, settings, progress_of(self.progress, "fit"))
        solution = result.solution
        one_target = dataset.y is not None and (
            len(dataset.y.shape) == 1 or dataset.y.shape[1] == 1
        )
        names = names or dataset.feature_names
        self._keep(
            Model(
                np.ascontiguousarray(solution.coefficients.T), solution.intercept, one_target,
                names, dataset.target_names,
                {
                    "solver": result.plan.chosen,
                    "status": solution.status.value,
                    "converged": solution.status.converged,
                    "n_epochs": solution.n_epochs,
                    "loss_history": solution.loss_history,
                    "peak_memory": result.peak_nbytes,
                },
            )
        )  # fmt: skip
        self.plan_ = result.plan
        for message in result.warnings:
            warnings.warn(message, DataWarning, stacklevel=2)
        if not solution.status.converged:
            warnings.warn(
                f"{result.plan.chosen} did not converge in {solution.n_epochs:,} epochs. "
                f"{solution.status.value}",
                ConvergenceWarning,
                stacklevel=2,
            )
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
        _frame_names(self, X, reset=False)
        dataset = self._dataset(X, None, None, needs_y=False)
        limits: Any = {"memory_limit": self.memory_limit, "n_threads": self.n_threads}
        if out is None:
            return model.predict(self._model(), dataset, **limits)
        inputs = [X] if isinstance(X, str | os.PathLike) else []
        return model.predict_to(
            self._model(), dataset, out, overwrite=overwrite, inputs=inputs, **limits
        )

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: ANN401
        """Return R², streamed; of several targets the mean.

        It is NaN, with a warning, where y is constant.
        """
        check_is_fitted(self)
        _frame_names(self, X, reset=False)
        dataset = self._dataset(X, y, sample_weight)
        scores = model.score(
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
        for name, value, only in (
            ("device", self.device, "cpu"),
            ("client", self.client, None),
            ("checkpoint", self.checkpoint, None),
        ):
            if value != only:
                raise InputError(
                    f"{name}={value!r} is not supported by this version; leave it {only!r}"
                )
        for name, value, known in (
            ("missing_chunks", self.missing_chunks, ("error", "fill")),
            ("nan_policy", self.nan_policy, ("raise", "omit")),
        ):
            if value not in known:
                raise InputError(f"{name}={value!r} must be {known[0]!r} or {known[1]!r}")
        return FitSettings(**{name: getattr(self, name) for name in _FIT_SETTINGS})

    def _dataset(
        self,
        X: Any,  # noqa: ANN401
        y: Any,  # noqa: ANN401
        sample_weight: Any,  # noqa: ANN401
        *,
        needs_y: bool = True,
    ) -> DataSet:
        weight = sample_weight
        if not is_streamable(X):
            X = _as_array(X, "X")
        elif isinstance(X, np.ndarray) and X.dtype.kind not in "biuf":
            X = _as_array(X, "X")
        if y is not None and not (is_streamable(y) and not _is_text(y)):
            y = _as_array(y, "y")
        if weight is not None and not is_streamable(weight):
            weight = _check_sample_weight(weight, X)
        return open_dataset(
            X, y, weight,
            missing_chunks=self.missing_chunks, nan_policy=self.nan_policy, needs_y=needs_y,
        )  # fmt: skip

    def _keep(self, fitted: Model) -> None:
        one = fitted.one_target
        self.coef_ = fitted.coefficients[0] if one else fitted.coefficients
        self.intercept_ = float(fitted.intercept[0]) if one else fitted.intercept
        self.n_features_in_ = fitted.n_features
        if fitted.feature_names is not None:
            self.feature_names_in_ = np.asarray(fitted.feature_names, dtype=object)
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


def _as_array(data: Any, name: str) -> Float64:  # noqa: ANN401
    """Return lists, data frames and arrays of objects as scikit-learn reads them."""
    try:
        array = check_array(
            data, dtype="numeric", ensure_2d=name == "X", allow_nd=True, ensure_all_finite=False,
            ensure_min_samples=0, ensure_min_features=0, input_name=name,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error)) from error
    return np.asarray(array)


def _is_text(data: Any) -> bool:  # noqa: ANN401
    return isinstance(data, np.ndarray) and data.dtype.kind not in "biuf"


def _frame_names(
    estimator: LinearRegression, X: Any, *, reset: bool = True  # noqa: ANN401
) -> tuple[str, ...] | None:
    """Keep or compare the column names of a data frame, as scikit-learn does."""
    if is_streamable(X) and not isinstance(X, np.ndarray):
        return None
    _check_feature_names(estimator, X, reset=reset)
    names = getattr(estimator, "feature_names_in_", None) if reset else None
    return None if names is None else tuple(names)
