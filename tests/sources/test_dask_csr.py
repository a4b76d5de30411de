"""Dask arrays whose chunks are SciPy's sparse rows."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Ridge

from streamreg import LinearRegression, plan
from streamreg.errors import InputError

N, D = 900, 20


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((N, D), density=0.2, rng=rng, format="csr")
    return X, X @ rng.standard_normal(D) + rng.standard_normal(N)


def in_chunks(X, *, rows=200, columns=-1, made=scipy.sparse.csr_array):
    return da.from_array(X.toarray(), chunks=(rows, columns)).map_blocks(made)


@pytest.mark.parametrize("made", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("columns", [-1, 7])
def test_a_fit_of_sparse_chunks_is_that_of_dense_rows(rows, made, columns):
    X, y = rows
    data = in_chunks(X, columns=columns, made=made)
    # of a sum, not of a mean
    expected = Ridge(alpha=0.01 * N).fit(X.toarray(), y)
    for solver in ("cg", "closed_form"):
        for targets in (y, da.from_array(y, chunks=270)):
            model = LinearRegression(solver=solver, l2=0.01, tol=1e-12).fit(data, targets)
            np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
            np.testing.assert_allclose(model.predict(data), expected.predict(X), atol=1e-10)
            assert model.score(data, targets) == pytest.approx(expected.score(X, y), abs=1e-12)


def test_the_bits_do_not_depend_on_threads(rows):
    X, y = rows
    one, two = (
        LinearRegression(solver="cg", n_threads=n).fit(in_chunks(X, rows=50), y) for n in (1, 2)
    )
    assert one.coef_.tobytes() == two.coef_.tobytes()


def test_a_plan_counts_the_values_of_chunks(rows):
    X, y = rows
    planned = plan(in_chunks(X), y).candidates["cg"]
    # values, indices as 64 bits at most, bounds of five chunks, and y
    assert planned.bytes_per_pass == 16 * X.nnz + 8 * (N + 5) + 8 * N


def test_a_value_that_is_not_finite_is_named_by_row_and_column(rows):
    X, y = rows
    X = X.copy()
    X.data[700] = np.nan
    row = int(np.searchsorted(X.indptr, 700, side="right")) - 1
    with pytest.raises(InputError, match=f"NaN in row {row}, column {X.indices[700]}"):
        LinearRegression(solver="cg").fit(in_chunks(X), y)


def test_other_formats_are_refused_with_a_conversion_that_works(rows):
    X, y = rows
    other = in_chunks(X, made=scipy.sparse.csc_array)
    with pytest.raises(InputError, match=r"pass (X\.map_blocks\(scipy\.sparse\.csr_array\))") as no:
        LinearRegression().fit(other, y)
    assert "X.map_blocks(scipy.sparse.csr_array)" in str(no.value)
    model = LinearRegression().fit(other.map_blocks(scipy.sparse.csr_array), y)
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(X, y).coef_, rtol=1e-12)


BAD = {
    "dense chunks": (lambda rows: rows.toarray(), "declares rows in CSR format but returned ndarr"),
    "another shape": (lambda rows: rows[:-1], r"returned shape \(199, 20\) but declares"),
    "wider values": (lambda rows: rows.astype(np.complex128), "returned complex128"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_chunks_that_are_not_what_the_array_declares_are_refused(rows, change, message):
    X, y = rows
    data = in_chunks(X)
    changed = data.map_blocks(change, dtype=data.dtype, meta=scipy.sparse.csr_array((0, 0)))
    with pytest.raises(InputError, match=message):
        LinearRegression(solver="cg").fit(changed, y)


def test_sparse_chunks_that_are_not_declared_are_refused_with_the_declaration(rows):
    X, y = rows
    data = da.from_array(X.toarray(), chunks=(200, -1))
    hidden = data.map_blocks(scipy.sparse.csr_array, meta=np.empty((0, 0)))
    with pytest.raises(InputError, match=r"meta=scipy.sparse.csr_array\(\(0, 0\)\)"):
        LinearRegression(solver="cg").fit(hidden, y)


def test_an_index_out_of_range_is_named(rows):
    X, y = rows

    def damaged(part):
        part.indices[3] = D
        return part

    data = in_chunks(X).map_blocks(damaged, meta=scipy.sparse.csr_array((0, 0)))
    with pytest.raises(OSError, match="column 20 of row"):
        LinearRegression(solver="cg").fit(data, y)
