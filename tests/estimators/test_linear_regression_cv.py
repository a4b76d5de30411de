"""``LinearRegressionCV``: against scikit-learn's Ridge, fold by fold, and by its own contract."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import streamreg
from streamreg import DataWarning, InputError, LinearRegressionCV, MemoryLimitError

L2S = np.geomspace(1e-4, 1e2, 9)
# rows that no source holds in memory: a refusal must not read them
HUGE = np.broadcast_to(np.zeros(1), (200_000, 20_000))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(name="X")
def features(rng):
    return rng.standard_normal((400, 6)) @ (np.eye(6) + 0.3 * rng.standard_normal((6, 6))) + 3


@pytest.fixture(name="Y")
def targets(rng, X):
    # with this noise, the best penalty is inside the grid
    return X @ rng.standard_normal((6, 3)) + 12 * rng.standard_normal((400, 3))


@pytest.fixture
def weight(rng):
    s = rng.uniform(0.1, 3, 400)
    s[::9] = 0
    return s


def ridge(l2, X, y, s, rows):
    X, y, s = X[rows], y[rows], s[rows]
    return Ridge(l2 * s.sum(), solver="svd").fit(X, y, s)


def scores(folds, X, y, s):
    """Return -MSE of scikit-learn's Ridge, (L, F) or (L, F, K)."""
    return -np.array(
        [
            [
                np.average(
                    (ridge(l2, X, y, s, train).predict(X[test]) - y[test]) ** 2,
                    axis=0,
                    weights=s[test],
                )
                for train, test in folds
            ]
            for l2 in L2S
        ]
    )


@parametrize_with_checks([LinearRegressionCV(), LinearRegressionCV(l2=[0.1, 1.0], cv=2)])
@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("how", ["consecutive", "shuffled", "groups"])
def test_scores_and_weights_are_those_of_ridge_fold_by_fold(how, weighted, X, Y, weight, rng):
    s = weight if weighted else np.ones(400)
    groups = rng.integers(0, 20, 400) if how == "groups" else None
    cv, splitter = 5, KFold(5)
    if how == "shuffled":
        cv = splitter = KFold(4, shuffle=True, random_state=0)
    elif how == "groups":
        splitter = GroupKFold(5)
    folds = list(splitter.split(X, None, groups))
    y = Y[:, 0]
    model = LinearRegressionCV(l2=L2S, cv=cv).fit(X, y, s if weighted else None, groups)
    expected = scores(folds, X, y, s)
    # sums of hundreds of rows, condition numbers of about 10
    np.testing.assert_allclose(model.cv_scores_, expected, rtol=1e-11)
    assert model.l2_ == L2S[expected.mean(axis=1).argmax()]
    assert model.best_score_ == pytest.approx(expected.mean(axis=1).max(), rel=1e-11)
    np.testing.assert_array_equal(model.l2s_, L2S)
    final = ridge(model.l2_, X, y, s, slice(None))
    np.testing.assert_allclose(model.coef_, final.coef_, rtol=1e-10)
    np.testing.assert_allclose(model.intercept_, final.intercept_, rtol=1e-10)
    assert model.converged_
    assert model.solver_ == "closed_form"
    assert model.n_iter_ == 1


def test_each_target_may_have_its_own_penalty(X, Y, weight):
    model = LinearRegressionCV(l2=L2S, cv=5, l2_per_target=True)
    # of noise, the largest penalty is best, or nearly so
    Y[:, 2] = 100 * np.random.default_rng(1).standard_normal(400)
    with pytest.warns(DataWarning, match=r"of 1 target, 100, is the largest"):
        model.fit(X, Y, weight)
    expected = scores(list(KFold(5).split(X)), X, Y, weight)
    np.testing.assert_allclose(model.cv_scores_, expected, rtol=1e-11)
    best = expected.mean(axis=1).argmax(axis=0)
    np.testing.assert_array_equal(model.l2_, L2S[best])
    assert len(set(model.l2_)) > 1
    np.testing.assert_allclose(model.best_score_, expected.mean(axis=1).max(axis=0), rtol=1e-11)
    for k, l2 in enumerate(model.l2_):
        final = ridge(l2, X, Y[:, k], weight, slice(None))
        np.testing.assert_allclose(model.coef_[k], final.coef_, rtol=1e-10)
        np.testing.assert_allclose(model.intercept_[k], final.intercept_, rtol=1e-10)
    assert model.digits_.shape == (3, 6)
    assert model.converged_


def test_one_penalty_for_all_targets_has_the_best_mean_score(X, Y):
    model = LinearRegressionCV(l2=L2S, cv=5).fit(X, Y)
    expected = scores(list(KFold(5).split(X)), X, Y, np.ones(400)).mean(axis=(1, 2))
    assert model.l2_ == L2S[expected.argmax()]
    assert model.best_score_ == pytest.approx(expected.max(), rel=1e-11)


def test_grid_search_of_ridge_chooses_the_same(X, Y):
    # alpha of scikit-learn is of the sum: equal folds have 320 training rows
    search = GridSearchCV(
        Ridge(solver="svd"), {"alpha": 320 * L2S}, cv=5, scoring="neg_mean_squared_error"
    ).fit(X, Y[:, 0])
    model = LinearRegressionCV(l2=L2S, cv=5).fit(X, Y[:, 0])
    assert search.best_params_["alpha"] == pytest.approx(320 * model.l2_)
    assert search.best_score_ == pytest.approx(model.best_score_, rel=1e-10)


def test_gcv_of_centred_balanced_rows_is_leave_one_out_of_ridge_cv():
    # of a design whose leverages are equal, RidgeCV's leave-one-out error is GCV
    X = np.array(np.meshgrid(*[[-1.0, 1.0]] * 5)).reshape(5, -1).T
    rng = np.random.default_rng(0)
    y = X @ rng.standard_normal(5) + 3 * rng.standard_normal(32)
    model = LinearRegressionCV(l2=L2S).fit(X, y)
    theirs = RidgeCV(32 * L2S, store_cv_results=True).fit(X, y)
    np.testing.assert_allclose(-model.cv_scores_[:, 0], theirs.cv_results_.mean(axis=0), rtol=1e-10)
    assert theirs.alpha_ == pytest.approx(32 * model.l2_)
    assert theirs.best_score_ == pytest.approx(model.best_score_)


@pytest.mark.parametrize("cv", ["gcv", 5])
def test_multiplying_all_weights_changes_nothing(cv, X, Y, weight):
    for l2 in (L2S, None):
        one, other = (LinearRegressionCV(l2=l2, cv=cv).fit(X, Y, s) for s in (weight, 1e3 * weight))
        np.testing.assert_allclose(one.cv_scores_, other.cv_scores_, rtol=1e-12)
        np.testing.assert_allclose(one.l2_, other.l2_, rtol=1e-12)
        np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-10)


def test_an_integer_weight_is_that_many_rows(X, Y, rng):
    times, groups = rng.integers(0, 4, 400), np.arange(400) % 6
    weighted = LinearRegressionCV(l2=L2S, cv=6).fit(X, Y, times.astype(float), groups)
    repeated = [np.repeat(each, times, axis=0) for each in (X, Y, groups)]
    rows = LinearRegressionCV(l2=L2S, cv=6).fit(*repeated[:2], groups=repeated[2])
    order = [np.argsort(model.cv_scores_[0, :, 0]) for model in (weighted, rows)]
    # folds are numbered by their size, which repeated rows change
    a, b = (model.cv_scores_[:, at] for model, at in zip((weighted, rows), order, strict=True))
    np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(weighted.coef_, rows.coef_, rtol=1e-10)


def test_one_standard_error_takes_a_larger_penalty(X, Y):
    plain, careful = (
        LinearRegressionCV(l2=L2S, cv=5, one_standard_error=each).fit(X, Y[:, 0])
        for each in (False, True)
    )
    means = -plain.cv_scores_.mean(axis=1)
    of_best = plain.cv_scores_[means.argmin()]
    limit = means.min() + of_best.std(ddof=1) / np.sqrt(5)
    assert careful.l2_ == L2S[means <= limit].max()
    assert careful.l2_ > plain.l2_


def test_rows_with_nan_are_left_out_of_their_folds(X, Y):
    y = Y[:, 0].copy()
    y[[3, 200]] = np.nan
    with pytest.warns(DataWarning, match="2 of 400 rows"):
        model = LinearRegressionCV(l2=L2S, cv=4, nan_policy="omit").fit(X, y)
    s = np.isfinite(y).astype(float)
    expected = scores(list(KFold(4).split(X)), X, np.nan_to_num(y), s)
    np.testing.assert_allclose(model.cv_scores_, expected, rtol=1e-11)


def test_a_fold_without_rows_is_refused(X, Y):
    with pytest.raises(InputError, match="1 fold of 4 has no row that counts"):
        LinearRegressionCV(l2=L2S, cv=4).fit(X, Y, (np.arange(400) < 300).astype(float))


@pytest.mark.parametrize("cv", [5, "gcv", KFold(3, shuffle=True, random_state=0)])
def test_chunks_are_read_once(cv, X, Y, tmp_path, chunks_opened):
    group = zarr.create_group(tmp_path / "data.zarr")
    group.create_array("X", data=X, chunks=(50, 6))
    group.create_array("y", data=Y[:, 0], chunks=(100,))
    before = len(chunks_opened())
    model = LinearRegressionCV(l2=L2S, cv=cv).fit(tmp_path / "data.zarr")
    opened = chunks_opened()[before:]
    assert len(opened) == len(set(opened)) == 8 + 4
    in_memory = LinearRegressionCV(l2=L2S, cv=cv).fit(X, Y[:, 0])
    np.testing.assert_allclose(model.cv_scores_, in_memory.cv_scores_, rtol=1e-12)


@pytest.mark.parametrize("cv", [5, KFold(3, shuffle=True, random_state=0)])
def test_the_number_of_threads_changes_no_bit(cv, rng):
    # 48 MiB: two segments and more
    X = rng.standard_normal((60_000, 100)).astype("f4").astype("f8")
    y = X[:, 0] + rng.standard_normal(60_000)
    one, two = (LinearRegressionCV(l2=[0.0, 1.0], cv=cv, n_threads=n).fit(X, y) for n in (1, 2))
    np.testing.assert_array_equal(one.cv_scores_, two.cv_scores_)
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_nearly_constant_errors_are_reported_and_never_negative(X):
    y = X @ np.arange(6.0)
    with pytest.warns(DataWarning, match="fewer than 3 digits"):
        model = LinearRegressionCV(l2=[1e-14, 1e-12, 1e-3], cv=3).fit(X, y)
    assert (model.cv_scores_ < 0).all()
    # errors of both are rounding: the larger of them is taken
    assert model.l2_ == 1e-12


def test_columns_1e6_apart_have_the_scores_of_ridge(X, Y):
    X = X * 10.0 ** np.linspace(-3, 3, 6)[[3, 0, 5, 1, 4, 2]]
    model = LinearRegressionCV(l2=L2S, cv=5).fit(X, Y[:, 0])
    expected = scores(list(KFold(5).split(X)), X, Y[:, 0], np.ones(400))
    # Ridge loses digits of small columns itself
    np.testing.assert_allclose(model.cv_scores_, expected, rtol=1e-9)


def test_a_grid_from_the_data_needs_no_numbers(X, Y):
    model = LinearRegressionCV(cv=5).fit(X, Y[:, 0])
    assert model.l2s_.shape == (25,)
    total = X.var(axis=0).sum()
    np.testing.assert_allclose(model.l2s_[[0, -1]], [1e-8 * X.var(axis=0).min(), 10 * total])


def test_the_estimator_is_a_citizen_of_scikit_learn(X, Y):
    model = LinearRegressionCV(l2=L2S, cv=4, l2_per_target=True)
    assert clone(model).get_params()["cv"] == 4
    assert model.get_params()["l2"] is L2S
    pipeline = make_pipeline(StandardScaler(), clone(model)).fit(X, Y)
    assert pipeline.score(X, Y) == pytest.approx(pipeline[-1].score(pipeline[0].transform(X), Y))


def test_a_saved_model_holds_its_scores(X, Y, tmp_path):
    model = LinearRegressionCV(l2=L2S, cv=4, l2_per_target=True).fit(X, Y)
    for suffix in (".json", ".npz"):
        model.save(tmp_path / f"model{suffix}")
        loaded = streamreg.load(tmp_path / f"model{suffix}")
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        for name in ("l2_", "l2s_", "cv_scores_", "best_score_"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))


def test_a_checkpointed_fit_gives_the_same_bits(X, Y, tmp_path):
    plain = LinearRegressionCV(l2=L2S, cv=4).fit(X, Y)
    for _ in range(2):
        saved = LinearRegressionCV(l2=L2S, cv=4, checkpoint=tmp_path / "fit").fit(X, Y)
        np.testing.assert_array_equal(saved.cv_scores_, plain.cv_scores_)
    with pytest.raises(streamreg.CheckpointError, match="of another fit"):
        LinearRegressionCV(l2=L2S, cv=5, checkpoint=tmp_path / "fit").fit(X, Y)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"cv": 1}, "from 2 to 65,535"),
        ({"cv": "loo"}, "gcv"),
        ({"cv": 2.5}, "must be a whole number"),
        ({"l2": []}, "must list penalties"),
        ({"l2": [1, -1]}, "0 or more"),
        ({"l2": "x"}, "0 or more"),
        ({"solver": "cg"}, 'pass solver="closed_form"'),
        ({"cov_type": "HC1"}, "leave it out"),
        ({"one_standard_error": True}, "pass cv=5"),
        ({"device": "cuda"}, 'pass device="cpu"'),
    ],
)
def test_parameters_that_choose_nothing_are_refused(how, why, X, Y):
    with pytest.raises(InputError, match=re.escape(why)):
        LinearRegressionCV(**how).fit(X, Y)


def test_a_refusal_offers_what_fits():
    plan = streamreg.plan(HUGE, HUGE[:, 0], cv=5, memory_limit="13 GiB")
    with pytest.raises(MemoryLimitError, match=r"5 folds of 20,000² × 8 bytes") as error:  # noqa: RUF001
        plan.require_fit()
    assert re.findall(r"cv=(\S+):", str(error.value)) == ["3", "2", '"gcv"']
    assert "no data was read" in str(error.value)
    for cv in (3, 2, "gcv"):
        assert streamreg.plan(HUGE, HUGE[:, 0], cv=cv, memory_limit="13 GiB").require_fit()
    with pytest.raises(MemoryLimitError, match='fit one penalty, without cv, by solver="cg"'):
        LinearRegressionCV(cv=5, memory_limit="1 GiB").fit(HUGE, HUGE[:, 0])
    assert streamreg.plan(HUGE, HUGE[:, 0], solver="cg", l2=1, memory_limit="1 GiB").require_fit()


def test_penalties_of_a_plan_of_10_000_columns_fit_2_gib():
    X = HUGE[:100_000, :10_000]
    l2 = np.geomspace(1e-3, 1e3, 17)
    assert streamreg.plan(X, X[:, 0], cv="gcv", l2=l2, memory_limit="2 GiB").require_fit()


def test_masks_are_folds_too(X, Y):
    even = np.arange(400) % 2 == 0
    masks = [(even, ~even), (~even, even)]
    numbers = [tuple(map(np.flatnonzero, pair)) for pair in masks]
    found, expected = (LinearRegressionCV(l2=L2S, cv=cv).fit(X, Y) for cv in (masks, numbers))
    np.testing.assert_array_equal(found.cv_scores_, expected.cv_scores_)


def test_folds_that_an_earlier_fit_used_up_are_named(X, Y):
    model = LinearRegressionCV(l2=L2S, cv=KFold(2).split(X)).fit(X, Y)
    with pytest.raises(InputError, match="used up"):
        model.fit(X, Y)


def test_no_choice_at_all_is_refused(X, Y):
    with pytest.raises(InputError, match="cv=None chooses no penalty"):
        LinearRegressionCV(l2=L2S, cv=None).fit(X, Y)
