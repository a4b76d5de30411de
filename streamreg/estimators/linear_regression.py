"""Least squares, as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from sklearn.utils.metaestimators import available_if

from streamreg.errors import warn
from streamreg.estimators.linear_estimator import LinearEstimator, Rows
from streamreg.fitting.fit import fit_dataset
from streamreg.progress import progress_of
from streamreg.statistics.fit import fit_gathered, kind_for, plan_gathered
from streamreg.statistics.gather import gather
from streamreg.statistics.statistics import Statistics


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
