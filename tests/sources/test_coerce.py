"""Lists, data frames and sparse matrices are read as numbers, or refused with a message."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

import streamreg
from streamreg import InputError, LinearRegression

VALUES = np.random.default_rng(0).standard_normal((20, 2))
Y = VALUES @ [1.0, -2.0] + 3


def frame(column):
    return pd.DataFrame({"a": column, "b": VALUES[:, 1]})


MASKED = np.ma.masked_greater(VALUES, 1)
REFUSED = {
    "dates": (frame(pd.date_range("2020", periods=20)), r"column 'a' of X has dtype datetime64"),
    "zones": (frame(pd.date_range("2020", periods=20, tz="UTC")), r"column 'a' of X .* UTC"),
    "times": (frame(pd.to_timedelta(np.arange(20), "s")), r"column 'a' of X has dtype timedelta"),
    "categories": (frame(pd.Categorical(["u", "v"] * 10)), r"column 'a' .* category.*get_dummies"),
    "texts": (frame(["u", "v"] * 10), r"column 'a' of X has objects .*: 'u'"),
    "periods": (frame(pd.period_range("2020", periods=20, freq="D")), "X has objects that"),
    "lazy": (pl.LazyFrame({"a": VALUES[:, 0]}), "X is a LazyFrame of polars.* collect it"),
    "wide integers": (
        pl.DataFrame({"a": range(20)}, schema={"a": pl.Int128}),
        "X has a column that Arrow cannot represent",
    ),
    "complex": (frame(VALUES[:, 0] * 1j), "column 'a' of X has dtype complex128"),
    "half named": (pd.DataFrame(VALUES, columns=["a", 1]), "Feature names are only supported"),
    "date objects": (
        frame([np.datetime64("2020-01-01")] * 20),
        "column 'a' of X has dtype datetime",
    ),
    "dates among objects": (
        frame(np.array([1.0, np.datetime64("2020-01-01")] * 10, object)),
        r"column 'a' of X has objects .*2020-01-01.* in row 1 is a date",
    ),
    "durations among objects": (
        np.array([[1.0, np.timedelta64(k, "s")] for k in range(20)], object),
        r"X has objects .*timedelta64\(0,'s'\) in row 0 is a date or a duration; drop it",
    ),
    "timestamps among objects": (
        frame(np.array([1.0, pd.Timestamp("2020")] * 10, object)),
        "column 'a' of X has objects .* in row 1 is a date",
    ),
    "objects": (np.array([[object()] * 2] * 20), "X has objects that are not numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "X cannot be made an array"),
    "huge": ([[10**400]] * 20, "X has objects that are not numbers: int too large"),
    "bytes": (b"X.zarr", "X is of type bytes; paths must be text"),
    "masked rows": (list(MASKED), "X is a masked array"),
    "masked": (MASKED, "X is a masked array"),
    "csc": (scipy.sparse.csc_array(VALUES), "X is sparse"),
    "coo": (scipy.sparse.coo_matrix(VALUES), "X is sparse"),
    "sparse frame": (
        pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_array(VALUES)),
        "column 0 of X .* Sparse",
    ),
}


@pytest.mark.parametrize("kind", [*REFUSED])
def test_data_that_are_not_real_numbers_are_refused(kind):
    data, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        LinearRegression().fit(data, Y)
    with pytest.raises(InputError, match=message):
        LinearRegression().fit(VALUES, Y).predict(data)
    if kind != "half named":
        with pytest.raises(InputError, match=message):
            streamreg.plan(data, Y)
        with pytest.raises(InputError, match=message.replace("X", "y", 1)):
            LinearRegression().fit(VALUES, data)


def test_sparse_dask_chunks_that_are_not_declared_are_refused():
    lazy = da.from_array(VALUES).map_blocks(scipy.sparse.csr_matrix, meta=np.empty((0, 0)))
    with pytest.raises(InputError, match=r"chunk row 0 .* is sparse \(csr_matrix\)"):
        LinearRegression().fit(lazy, Y)


# DataWarning: the columns of the broadcast array are equal
@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
@pytest.mark.parametrize(
    "data",
    [
        frame(VALUES[:, 0].astype("f4")),
        frame(pd.array(VALUES[:, 0], dtype="Float64")),
        frame(pd.array(VALUES[:, 0], dtype="double[pyarrow]")),
        frame(VALUES[:, 0].astype(object)),
        frame(VALUES[:, 0] > 0),
        frame(pd.array(VALUES[:, 0] > 0, dtype="boolean")),
        VALUES.astype(object),
        VALUES.tolist(),
        tuple(VALUES),
        memoryview(VALUES),
        np.asfortranarray(VALUES),
        VALUES[::-1, ::-1],
        np.broadcast_to(VALUES[:, :1], (20, 3)),
    ],
)
def test_real_numbers_in_any_container_are_read(data):
    expected = np.asarray(data, dtype=float)
    model, plain = LinearRegression().fit(data, Y), LinearRegression().fit(expected, Y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-6)
    assert streamreg.plan(data, Y).n_features == expected.shape[1]


BEYOND = np.arange(20) + 2**53 + 1
WITHIN = np.arange(20) - 10 + 2**53 - 20


# DataWarning: consecutive integers near 2^53 are constant to rounding, and one value is missing
@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
@pytest.mark.parametrize(
    "container",
    [
        frame,
        lambda column: pd.DataFrame({"a": column, "b": np.arange(20) ** 2}),
        lambda column: frame(pd.array(column, dtype="Int64")),
        lambda column: frame(pd.array([None, *column[1:]], dtype="UInt64")),
        lambda column: frame(pd.array(column, dtype="int64[pyarrow]")),
        lambda column: frame(column.astype(object)),
        lambda column: np.stack([column.astype(object), VALUES[:, 1]], axis=1),
        lambda column: [*zip(column.tolist(), VALUES[:, 1].tolist(), strict=True)],
    ],
)
def test_integers_of_x_that_a_conversion_rounds_give_a_warning(container):
    model = LinearRegression(nan_policy="omit")
    with pytest.warns(streamreg.DataWarning, match=r"^X holds integers beyond 2\^53"):
        model.fit(container(BEYOND), Y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(container(WITHIN), Y)
    assert not [str(each.message) for each in caught if "2^53" in str(each.message)]


@pytest.mark.parametrize(
    "y", [BEYOND, BEYOND.astype(object), pd.Series(BEYOND), pd.Series(BEYOND, dtype="Int64")]
)
def test_integers_of_y_that_a_conversion_rounds_give_one_warning(y):
    with pytest.warns(streamreg.DataWarning, match=r"^y holds integers beyond 2\^53") as caught:
        LinearRegression().fit(VALUES, y)
    assert len(caught) == 1


@pytest.mark.parametrize("y", [pd.array(Y, dtype="Float64"), pd.Index(Y), pl.Series(Y)])
def test_y_may_be_a_column_of_any_library(y):
    np.testing.assert_allclose(LinearRegression().fit(VALUES, y).coef_, [1, -2], rtol=1e-12)


def test_a_path_of_bytes_is_refused():
    with pytest.raises(InputError, match="X is of type bytes; paths must be text"):
        LinearRegression().fit(b"X.zarr")


def test_missing_values_of_a_frame_count_as_nan():
    incomplete = frame(pd.array([1, None] * 10, dtype="Int64"))
    with pytest.raises(
        InputError, match=r"X has NaN in row 1, column 0 \('a'\)\. Input contains 10"
    ):
        LinearRegression().fit(incomplete, Y)
    with pytest.warns(
        streamreg.DataWarning, match="10 of 20 rows hold NaN or inf and were left out"
    ):
        LinearRegression(nan_policy="omit", fit_intercept=False).fit(incomplete, Y)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="no wider floats")
@pytest.mark.parametrize("solver", ["closed_form", "cg", "gd"])
@pytest.mark.parametrize("size", ["1e309", "1e4000"])
def test_floats_beyond_float64_count_as_inf(solver, size):
    wide = VALUES.astype(np.longdouble)
    np.testing.assert_allclose(LinearRegression().fit(wide, Y).coef_, [1, -2], rtol=1e-12)
    wide[3, 1] = np.longdouble(size)
    model = LinearRegression(solver=solver)
    message = (
        r"has inf as float64, from float128 in row 3, column {}\. Input contains 1 such value "
    )
    with pytest.raises(InputError, match="X " + message.format(1)):
        model.fit(wide, Y)
    with pytest.raises(InputError, match="y " + message.format(0)):
        model.fit(VALUES, wide[:, 1])
    with pytest.raises(InputError, match="sample_weight is inf in row 3"):
        model.fit(VALUES, Y, np.abs(wide[:, 1]))
    model.fit(VALUES, Y)
    with pytest.raises(InputError, match="X " + message.format(1)):
        model.predict(wide)
    with pytest.raises(InputError, match="y " + message.format(0)):
        model.score(VALUES, wide[:, 1])
    with pytest.warns(
        streamreg.DataWarning, match="1 of 20 rows holds NaN or inf and was left out"
    ):
        LinearRegression(solver=solver, nan_policy="omit").fit(wide, Y)
