"""Libsvm text is read as scikit-learn reads it, by the compiled loop and without it."""

import io

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from streamreg.kernels import libsvm
from streamreg.kernels.libsvm import LineError, read_lines

RNG = np.random.default_rng(0)


@pytest.fixture(params=["compiled", "python"])
def kernel(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(libsvm, "load_library", lambda: None)


@pytest.mark.parametrize("first_column", [0, 1])
def test_rows_are_those_of_scikit_learn(kernel, first_column):
    X = scipy.sparse.random_array((50, 2000), density=0.01, rng=RNG, format="csr")
    X.data[::2] = RNG.integers(-5, 5, len(X.data[::2]))
    file = io.BytesIO()
    dump_svmlight_file(X, RNG.standard_normal(50), file, zero_based=not first_column)
    text = file.getvalue()
    expected, y = load_svmlight_file(io.BytesIO(text), n_features=2000, zero_based=not first_column)
    rows = read_lines(text, first_column)
    np.testing.assert_array_equal(rows.targets, y)
    np.testing.assert_array_equal(rows.values, expected.data)
    np.testing.assert_array_equal(rows.indices, expected.indices)
    np.testing.assert_array_equal(rows.bounds, expected.indptr)
    assert (rows.lines, rows.is_float32) == (50, False)
    assert (rows.least, rows.most) == (expected.indices.min(), expected.indices.max())


def test_numbers_are_rounded_to_the_nearest_float64(kernel):
    mantissas = RNG.integers(0, 10**19, 400, dtype=np.uint64)
    texts = [f"{m}e{p}" for m, p in zip(mantissas, RNG.integers(-40, 30, 400), strict=True)]
    texts += [f"{x!r}" for x in np.exp(RNG.uniform(-60, 60, 400)).tolist()]
    texts += [f"-{x:.19f}" for x in RNG.random(100)] + ["+.5", "5.", "0.0", "-0", "00012", "1e5"]
    texts += ["9007199254740993", "9007199254740993e-1", "0.1000000000000000055511151231257827"]
    texts += [
        f"{'0' * n}.{'0' * k}{m}"
        for n in (0, 1, 9, 30)
        for k in (0, 1, 7, 30)
        for m in (7, 12345678, 10**18 + 1)
    ]
    pairs = " ".join(f"{j}:{text}" for j, text in enumerate(texts))
    rows = read_lines(f"1 {pairs}\n".encode(), 0)
    np.testing.assert_array_equal(rows.values, [float(text) for text in texts])
    # the last number of a text, where eight digits are not read at once
    for text in texts[:300]:
        assert read_lines(f"{text}\n".encode(), 0).targets == [float(text)]
    assert np.signbit(rows.values[texts.index("-0")])


def test_comments_empty_lines_and_empty_rows(kernel):
    rows = read_lines(b"# made by hand\n\n1 1:2 # one\r\n\t2 \n3\t1:0.5  7:1#x\n", 1)
    np.testing.assert_array_equal(rows.targets, [1, 2, 3])
    np.testing.assert_array_equal(rows.bounds, [0, 1, 1, 3])
    np.testing.assert_array_equal(rows.indices, [0, 0, 6])
    assert (rows.lines, rows.is_float32) == (5, True)


@pytest.mark.parametrize(
    ("line", "character", "what"),
    [
        (b"1 3:x", 2, "'x' is not a finite number"),
        (b"1 3:nan", 2, "'nan' is not a finite number"),
        (b"1 3:1e999", 2, "'1e999' is not a finite number"),
        (b"1 3:1_0", 2, "not a finite number"),
        (b"1 3:", 2, "'' is not a finite number"),
        (b"one 3:1", 0, "'one' is not a finite number"),
        (b"1 3:1 3:2", 6, "'3:2' is not in a later column than the pair before it"),
        (b"1 0:1", 2, "'0:1' is in column 0, and the first is 1"),
        (b"1 4294967297:1", 2, "beyond 2^31"),
        (b"1 99999999999999999999999:1", 2, "no pair column:value"),
        (b"1 3 4:1", 2, "'3' is no pair column:value"),
        (b"1 qid:7 3:1", 2, "'qid:7' is a query, which ranking alone uses"),
        (b"1:0.5 3:1", 0, "'1:0.5' is a pair, and a line begins with y"),
        (b"1,2 3:1", 0, "'1,2' has several values, and y has one"),
    ],
)
def test_an_error_names_line_and_character(kernel, line, character, what):
    with pytest.raises(LineError) as error:
        read_lines(b"1 1:1\n# x\n" + line + b"\n2 1:1\n", 1)
    assert error.value.args[:2] == (2, character)
    assert what in error.value.args[2]
