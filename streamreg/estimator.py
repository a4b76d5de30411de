"""``LinearRegression`` and ``LinearRegressionCV``: the scikit-learn face of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from sklearn.utils.metaestimators import available_if

from streamreg.errors import InputError, warn
from streamreg.fit import fit_dataset
from streamreg.linear_estimator import LinearEstimator, Path, Rows
from streamreg.model import Model
from streamreg.progress import progress_of
from streamreg.statistics.fit import fit_gathered, kind_for, plan_gathered
from streamreg.statistics.gather import gather
from streamreg.statistics.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from streamreg.config import FitConfig
    from streamreg.fit_result import Described
    from streamreg.predict.scores import Evaluation
    from streamreg.solvers.base import EpochRecord


def _takes_statistics(estimator: LinearRegression) -> bool:
    """Whether ``partial_fit`` exists: solvers of statistics have it, as scikit-learn asks."""
    return bool(kind_for(estimator._config()))  # noqa: SLF001  (a condition of a method)


class LinearRegression(LinearEstimator):
    """Least squares on data larger than memory.

    Minimises, with sᵢ = 1 where rows have no weights,

        f(w, b) = 1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)²  +  l2/2 · ‖w‖²

    With ``l2=0`` this is half the mean squared error; scikit-learn's ``Ridge(alpha)`` has
    ``l2 = alpha/Σsᵢ``. The intercept b is never penalised, and no column of ones is stored. Sums
    are float64 whatever the data are. :class:`Statistics` of rows that were read once stand where
    the rows stand in ``fit``.

    Parameters
    ----------
    solver
        ``"closed_form"``: XᵀX, O(D²) memory, one pass; a few more where digits ask for them.
        ``"qr"``: the triangular factor R, O(D²), two passes or more, most digits. ``"gd"``:
        gradient descent, O(D). ``"cg"``: conjugate gradients, O(D), far fewer passes. ``"dual"``:
        XXᵀ, O(N²), for fewer rows than columns: ridge, or the solution of least norm, in a few
        passes, whose number the plan states. ``"auto"``: of ``closed_form`` and ``dual`` the one
        that fits ``memory_limit``, or the faster one if both do, unless the plan estimates that
        ``cg`` takes less than a third of its time; else ``cg``. Where that gives fewer than 10
        digits, the rows are read once more by ``qr``, if it fits too.
    fit_intercept
        Whether to fit b.
    l2
        The penalty of the objective; or one for each target, (K,), by ``closed_form``.
    cov_type
        ``None``: weights alone. ``"nonrobust"``: standard errors for errors of equal variance,
        which take no further pass. ``"HC0"`` to ``"HC3"``: robust to unequal variances; and
        ``"cluster"``, to correlation within the ``groups`` of ``fit``: one pass more, and twice the
        O(D²) memory. Of ``closed_form`` and ``qr``, with ``l2=0``.
    inference_for
        Names or numbers of columns whose standard errors ``cg`` works out, where O(D²) memory does
        not fit.
    standardize
        ``gd`` and ``cg`` work in centred, scaled coordinates without copying X; coefficients are
        always in the user's units. ``False`` with a float ``learning_rate`` is the textbook update
        w ← w - α·∇f.
    learning_rate
        Of ``gd``: α > 0, or ``"auto"``, the exact line search of a quadratic.
    precondition
        Of ``cg`` with D > 361: k, the number of directions of a preconditioner M, which costs one
        pass, O(D·k) memory and about k/4 times the work of an epoch, and leaves a fraction of the
        epochs if they are many. Of dense rows M is a randomized Nyström approximation of XᵀX [1]_;
        of sparse rows XᵀX of the k columns that most rows store, O(k²) memory, and the diagonal of
        XᵀX for the others; it is left out if the others are about as frequent, and with
        ``standardize=False``. The pass runs after 4 epochs or later, once 12 or more (k/16 of dense
        rows, if that is more) are estimated to be left. ``None``: none. ``"auto"``: up to 64
        directions, or 1,024 columns of sparse rows, if ``memory_limit`` leaves them room where the
        block cache would save less; their pass runs only if the first epochs show that many are
        needed. Weights differ within ``tol``; a preconditioner that would save little is left out,
        with a warning if k was given. The k of ``"auto"``, and so the last bits, may depend on
        ``memory_limit`` and ``n_threads``. Not for a GPU.
    max_epochs, tol
        An epoch is one pass over all rows. ``gd`` stops when an epoch lowers the loss by less than
        ``tol`` of it; ``cg`` when ‖∇f‖ ≤ ``tol``·‖∇f at the start‖. Weights then have an error of
        up to ``tol`` times the squared condition number of the columns; ``cg`` checks them by a
        second right-hand side, whose answer is known, and goes on if it has not found that. With a
        ``tol`` of 1e-8 or less and D < 128, it also goes on until more epochs would leave 12 digits
        as they are. A solver that standardises reads the rows once before its first epoch, for
        means and deviations.
    init, random_state
        ``"zeros"``, ``"random"`` or an array (D,) or (K, D), in the user's units; and the seed or
        generator for ``"random"``.
    memory_limit
        Bytes, or a text such as ``"512 MiB"``: what the fit may add to the process. ``None``: half
        of what the system and containers still leave to the process. With ``client`` it is what
        the fit may add to each worker: at most, and by default, 60 % of the memory of the smallest;
        of workers without a limit, by default half of what this process may still use.
    n_threads
        Threads that reduce rows; ``None``: all cores that the process may use. The result is
        bitwise identical for any number, but for ``precondition="auto"`` where memory is tight.
        With ``client``, ``fit`` ignores it and warns: each worker uses its own threads.
    device
        ``"cpu"``, or ``"cuda"``: a GPU reduces the rows.
    device_memory_limit
        Bytes, or a text, that the fit may take of the GPU's memory; ``None``: half of what is free.
    client
        A ``distributed.Client``, on whose workers ``fit`` runs its passes; ``predict`` and
        ``score`` run in this process. Clones share it; pickles leave it out.
    checkpoint
        The path of a file to which the fit saves its state, every few seconds and when it is
        interrupted. A fit of the same data and parameters resumes from it, bitwise identical;
        limits, ``max_epochs`` and ``n_threads`` may differ, but not so that they change the panels
        or strips of ``dual`` or the number of directions that ``precondition="auto"`` chooses.
        ``<path>.previous`` is the checkpoint before it, and ``<path>.lock`` keeps two fits from
        using one file.
    coef_out
        The path of a Zarr array (K, D) that the weights of several targets are written to; it must
        not exist, and appears whole or not at all. ``coef_`` then reads it. If XᵀY, 8·D·K bytes,
        does not fit, ``closed_form`` divides the targets into batches, and reads X again with the
        targets of each: bitwise identical, and the plan says how often.
    missing_chunks
        ``"error"``, or ``"fill"``: an absent chunk of Zarr or HDF5 means its fill value.
    decode_cf
        Decode arrays that carry CF attributes (``scale_factor``, ``add_offset``, ``_FillValue``,
        ``missing_value``, ``valid_range``, ``_Unsigned``), as xarray does; missing values are NaN.
        ``False``: read the numbers as they are stored.
    nan_policy
        ``"raise"``, or ``"omit"``: leave out rows with NaN or inf, counted and reported.
    progress
        ``True``: bars on a terminal, plain lines elsewhere. A callable is given each epoch's
        record (``epoch``, ``loss``, ``gradient_norm``).

    Attributes
    ----------
    coef_, intercept_
        (D,) and float, or (K, D) and (K,) for y of shape (N, K), also if K = 1. With ``coef_out``
        ``coef_`` stays on disk: ``coef_[5]``, ``coef_[:100]`` and ``np.asarray(coef_)`` read it.
    n_features_in_, feature_names_in_
        D, and the names of the columns where they are known.
    n_iter_
        Epochs run.
    loss_history_
        f at the start of each epoch, and at the end; the sum over the targets if there are several.
    solver_, converged_, status_
        The solver that ran, whether its tolerance was met, and why it stopped: a sentence.
    digits_, condition_
        Of ``closed_form`` and ``qr``, else ``None``, but ``dual`` has digits, a rougher bound:
        digits of each coefficient that are right, a bound, in the shape of ``coef_``, NaN where
        the data determine none. If columns depend on
        each other to the rounding of their values, the digits of the others belong to the answer
        with an exact dependence. Of more than 2²⁰ weights of several targets ``digits_`` is
        ``None``, and no pass corrects them: ``status_`` tells if the largest weights of a target
        may have fewer than six digits. And the condition number of the centred columns, scaled by
        powers of two, so that it is within a factor of 2 of that of standardised columns; if
        columns depend on each other, a lower bound, or infinite.
    bse_, tvalues_, pvalues_
        With ``cov_type``: standard errors, t (or z) and P of the intercept and the weights, (P,),
        intercept first, or (K, P); NaN where the data determine none. ``conf_int(alpha=0.05)``,
        ``cov_params()``, ``summary()`` and ``tidy()`` are methods.
    rsquared_, rsquared_adj_, fvalue_, f_pvalue_, llf_, aic_, bic_
    nobs_, df_resid_, df_model_, scale_
        With ``cov_type``, by the definitions of statsmodels: weights are precisions.
    n_rows_, rows_omitted_
        Rows that were fitted, and rows left out for NaN or inf.
    schema_
        If X was made of a table, how: its columns, their order and levels; else ``None``.
    plan_, peak_memory_, planned_peak_, memory_limit_
        The plan; the bytes that the fit added to the process, measured and planned; and those that
        it was allowed.
    warnings_
        What the fit warned of: a list of sentences.

    References
    ----------
    .. [1] Frangella, Tropp & Udell (2023), Randomized Nyström preconditioning, SIAM J. Matrix
       Anal. Appl. 44(2), 718-752.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegression
    >>> X = np.arange(12.0).reshape(6, 2) ** 2
    >>> model = LinearRegression().fit(X, X @ [1.0, 2.0] + 3.0)
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([1., 2.]), 3.0)
    """

    def fit(self, X: Rows, y: Rows = None, sample_weight: Rows = None, groups: Rows = None) -> Self:
        """Fit the model; X and y are read in passes.

        Parameters
        ----------
        X
            (N, D): the path or URL of a Zarr array, an array of Zarr, Dask, NumPy, h5py or CuPy, a
            data frame, or any object with ``shape``, ``dtype`` and slicing. The path of a Zarr
            group with arrays ``X`` and ``y`` needs no ``y``. Or :class:`Statistics`, alone: no row
            is read.
        y
            (N,) or (N, K), any of these kinds.
        sample_weight
            (N,), not negative; a weight of 0 leaves the row out.
        groups
            (N,), of ``cov_type="cluster"``: rows of equal values are one group. Numbers of any of
            these kinds, or texts in memory. If the rows of each group are consecutive, groups
            take no memory.

        Warns
        -----
        ConvergenceWarning, DataWarning
            ``tol`` was not reached; constant or dependent columns, few digits, rows left out.
            For what is raised see ``streamreg.errors``.
        """
        config = self._config()
        if isinstance(X, Statistics):
            X.require_alone(y, sample_weight, groups)
            result = fit_gathered(X, config, progress_of(self.progress, "fit"))
            return self._finish(result, X.about)
        dataset = config.open_dataset(X, y, sample_weight, groups)
        names = self._check_columns(X, reset=True) or dataset.feature_names
        dataset = replace(dataset, feature_names=names)
        return self._finish(
            fit_dataset(dataset, config, progress_of(self.progress, "fit")), dataset
        )

    @available_if(_takes_statistics)
    def partial_fit(self, X: Rows, y: Rows = None, sample_weight: Rows = None) -> Self:
        """Fit the rows of all calls so far: these rows are read once, earlier ones not again.

        The first call, and the first one after ``fit``, starts statistics: of R with
        ``solver="qr"``, else of XᵀX. Each call then takes what ``Statistics.update`` and a fit of
        statistics take, O(D²). ``coef_`` is that of a fit of all rows; no pass can correct it, so
        that ``digits_`` may be fewer.

        Parameters
        ----------
        X, y, sample_weight
            As for ``fit``; the columns and targets are those of the first call.

        Raises
        ------
        InputError
            Other columns than in the first call. For what else is raised see ``streamreg.errors``.
        AttributeError
            A parameter needs the rows of all calls at once, such as ``solver="cg"`` or
            ``cov_type="HC1"``: as scikit-learn has it, the method then does not exist.
        """
        config = self._config()
        before = getattr(self, "_statistics", None)
        kind = kind_for(config)
        # refused before rows are read
        if before is not None:
            plan_gathered(before.about, config).require_fit()
        dataset = config.open_dataset(X, y, sample_weight)
        names = self._check_columns(X, reset=before is None) or dataset.feature_names
        outcome = gather(
            replace(dataset, feature_names=names),
            config,
            kind if before is None else before.kind,
            progress_of(self.progress, "fit"),
        )
        for message in outcome.warnings:
            warn(message)
        rows = Statistics.holding(outcome.gathered)
        if before is not None:
            before.add(rows)
            rows = before
        result = fit_gathered(rows, config, progress_of(self.progress, "fit"))
        return self._finish(result, rows.about, rows)


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


def load(path: Path) -> LinearRegression:
    """Return a fitted ``LinearRegression``, with default parameters, from a file of ``save``.

    Raises
    ------
    InputError
        There is no such file, or it is not a model; nothing in it is ever run. Or it refers to
        weights in a Zarr array (``coef_out``) that is absent or belongs to another fit.
    MemoryLimitError
        The system refuses memory for the weights.
    """
    estimator = LinearRegression()
    estimator._set_fitted(Model.load(path))  # noqa: SLF001  (a second constructor)
    return estimator


def evaluate(
    model: LinearEstimator, X: Rows, y: Rows = None, sample_weight: Rows = None
) -> Evaluation:
    """Return R², RMSE and the correlation of y and ŷ for each target, from one streamed pass.

        R² = 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²
        RMSE = √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)
        r = Σ sᵢ (yᵢ - ȳ)(ŷᵢ - p) / √(Σ sᵢ (yᵢ - ȳ)² · Σ sᵢ (ŷᵢ - p)²)     p the mean of ŷ

    s are the weights, 1 without them. Memory limit, threads and policies are those of the model.

    Parameters
    ----------
    model
        A fitted model.
    X, y, sample_weight
        As for ``LinearRegression.fit``.

    Returns
    -------
    Evaluation
        ``r2``, ``rmse`` and ``pearson_r``, each (K,), ``n_rows`` and ``rows_omitted``.

    Raises
    ------
    InputError, MemoryLimitError, DataCorruptionError
        As by ``LinearRegression.score``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegression, evaluate
    >>> X = np.arange(12.0).reshape(6, 2) ** 2
    >>> y = X @ [[1.0, 2.0], [0.0, 1.0]] + [[0.0], [1.0]] * 3
    >>> evaluate(LinearRegression().fit(X, y), X, y).r2.round(3)
    array([1., 1.])
    """
    if not isinstance(model, LinearEstimator):
        raise InputError(
            f"evaluate takes a model of streamreg, not {type(model).__name__}: fit or load one"
        )
    return model._evaluate(X, y, sample_weight)  # noqa: SLF001  (a function for each model)
