"""Ridge regression that chooses its penalty, as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from streamreg.errors import InputError
from streamreg.estimators.linear_estimator import LinearEstimator, Path, Rows
from streamreg.fitting.fit import fit_dataset
from streamreg.progress import progress_of
from streamreg.statistics.fit import fit_gathered
from streamreg.statistics.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from streamreg.config.fit_config import FitConfig
    from streamreg.fitting.result import Described
    from streamreg.solvers.base import EpochRecord


class LinearRegressionCV(LinearEstimator):
    """Ridge regression with the best of many penalties, chosen from one read of the data.

    Minimises, with sᵢ = 1 where rows have no weights,

        f(w, b) = 1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)²  +  l2/2 · ‖w‖²

    for the ``l2`` of a grid whose mean squared error in folds, or whose GCV, is least. One pass
    keeps XᵀX of each of F folds: 8·F·D² bytes, and 8·D² more for the training rows of a fold,
    which are the other folds, about their own means. The equations of all penalties take one
    reduction to tridiagonal form a fold, and O(D) for each penalty and target [1]_. The
    model is then fitted to all rows by ``closed_form``, from the same pass; rows are read again
    only where fewer than 10 digits of the weights are estimated. For fewer rows than columns, GCV
    of all penalties also comes from XXᵀ, in 8·N² bytes and the passes of ``dual``.

    scikit-learn's ``Ridge(alpha)`` has ``l2 = alpha/Σsᵢ``: an ``l2`` means the same in folds of
    different sizes.

    Parameters
    ----------
    l2
        The penalties to compare: numbers of 0 or more. ``None``: 25 at equal ratios, from 1e-8 of
        the smallest variance of a column to 10 times the sum of all.
    cv
        A number F: folds of consecutive rows, as scikit-learn's ``KFold``; with ``groups`` in
        ``fit``, of whole groups, as ``GroupKFold``. A splitter of scikit-learn whose test rows
        partition the data, such as ``KFold(5, shuffle=True, random_state=0)``, or pairs of row
        numbers (train, test): 48 bytes a row.
        ``"gcv"``: no folds; generalised cross-validation [2]_ of n rows,

            GCV(λ) = (RSS/Σs) / (1 - (df + 1)/n)²       df = tr A(A + λ1)⁻¹,  A = XᵀX/Σs centred

        and df without 1 if there is no intercept. A weight of 2 is two rows in folds, and in RSS
        and df. n counts rows, whatever their weights, so that GCV of repeated rows differs; as in
        scikit-learn's ``RidgeCV``, which leaves out one row at a time, not one of its repeats. To
        multiply all weights by a number changes nothing.
    l2_per_target
        Whether each target has its own best penalty; else the mean error of all decides. The
        weights of many targets, more than 2²⁰, overwrite XᵀY: 8·(D² + D·K) bytes by GCV, and F + 1
        times as many with F folds, or as many as fit: the targets are then divided into batches,
        one pass each.
    one_standard_error
        Whether to take the largest penalty whose mean error is at most one standard error, of F
        folds, above the least.
    solver, fit_intercept, memory_limit, n_threads, client, checkpoint, coef_out, missing_chunks
    decode_cf, nan_policy, progress
        As of :class:`LinearRegression`. ``solver`` is ``"closed_form"``, with ``"gcv"`` also
        ``"dual"``, by which a penalty of 0 has the score -inf, or ``"auto"``: of both the one that
        fits and costs less. ``device`` is ``"cpu"`` and ``cov_type`` ``None``; parameters of other
        solvers have no effect.

    Attributes
    ----------
    l2_
        The best penalty; (K,) with ``l2_per_target``. Of equal errors the larger penalty is taken.
    l2s_
        (L,) the penalties that were compared, in ascending order.
    cv_scores_
        (L, F) or, of y (N, K), (L, F, K): the mean squared error of each penalty and fold,
        times -1; weighted if rows have weights. With ``"gcv"`` F is 1, and the score is -GCV. -inf
        where columns depend on others and the penalty is too small to matter.
    best_score_
        The mean over folds of the scores of ``l2_``, and over targets; (K,) with
        ``l2_per_target``.
    coef_, intercept_, n_features_in_, feature_names_in_, n_iter_, loss_history_, solver_
    converged_, status_, digits_, condition_, n_rows_, rows_omitted_, schema_, plan_
    peak_memory_, planned_peak_, memory_limit_, warnings_
        As of :class:`LinearRegression`, of the fit to all rows.

    References
    ----------
    .. [1] Eldén (1977), BIT 17, 134-145.
    .. [2] Golub, Heath & Wahba (1979), Technometrics 21(2), 215-223.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegressionCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 20))
    >>> y = X[:, 0] + rng.standard_normal(200)
    >>> model = LinearRegressionCV(l2=[0.01, 0.1, 1, 10], cv=5).fit(X, y)
    >>> model.l2_, model.cv_scores_.shape
    (0.1, (4, 5))
    """

    def __init__(
        self,
        *,
        l2: Any = None,  # noqa: ANN401  (numbers of any library)
        cv: Any = "gcv",  # noqa: ANN401  (or a splitter)
        l2_per_target: bool = False,
        one_standard_error: bool = False,
        solver: str = "auto",
        fit_intercept: bool = True,
        cov_type: str | None = None,
        inference_for: Sequence[str | int] | None = None,
        standardize: bool = True,
        precondition: int | Literal["auto"] | None = "auto",
        learning_rate: float | Literal["auto"] = "auto",
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
        super().__init__(
            solver=solver,
            fit_intercept=fit_intercept,
            cov_type=cov_type,
            inference_for=inference_for,
            standardize=standardize,
            precondition=precondition,
            learning_rate=learning_rate,
            max_epochs=max_epochs,
            tol=tol,
            init=init,
            random_state=random_state,
            memory_limit=memory_limit,
            n_threads=n_threads,
            device=device,
            device_memory_limit=device_memory_limit,
            client=client,
            checkpoint=checkpoint,
            coef_out=coef_out,
            missing_chunks=missing_chunks,
            decode_cf=decode_cf,
            nan_policy=nan_policy,
            progress=progress,
        )
        self.l2 = l2
        self.cv = cv
        self.l2_per_target = l2_per_target
        self.one_standard_error = one_standard_error

    def fit(self, X: Rows, y: Rows = None, sample_weight: Rows = None, groups: Rows = None) -> Self:
        """Choose the penalty and fit the model; X and y are read once, or again for digits.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`LinearRegression.fit`. ``cv="gcv"`` also takes :class:`Statistics` of
            ``kind="gram"``, alone: no row is read.
        groups
            (N,), with a number as ``cv``, or a splitter that takes groups: rows of equal values
            are in one fold. Numbers of any of these kinds, or texts in memory; they are read once
            before the pass.

        Raises
        ------
        InputError
            Folds do not partition the rows, or a fold has no row that counts; parameters and data
            as for :class:`LinearRegression`.
        MemoryLimitError
            F·D² numbers do not fit; the remedies, such as fewer folds or ``"gcv"``, do.

        Warns
        -----
        DataWarning
            The best penalty is the smallest or the largest; errors are too small beside y to be
            compared; equations are singular.
        """
        config = self._config()
        progress = progress_of(self.progress, "fit")
        described: Described
        if isinstance(X, Statistics):
            X.require_alone(y, sample_weight, groups)
            described, result = X.about, fit_gathered(X, config, progress)
        else:
            dataset = config.open_dataset(X, y, sample_weight, groups)
            names = self._check_columns(X, reset=True) or dataset.feature_names
            described = dataset = replace(dataset, feature_names=names)
            result = fit_dataset(dataset, config, progress)
        selection = result.solution.selection
        self._finish(result, described)
        if selection is not None:
            # a model file holds fewer
            scores = selection.scores
            self.cv_scores_ = scores[:, :, 0] if self._has_one_target else scores
        return self

    def _config(self) -> FitConfig:
        if self.cv is None:
            raise InputError(
                'cv=None chooses no penalty: pass "gcv", a number of folds or a splitter'
            )
        return super()._config()
