"""Hashed columns are those of scikit-learn, from the compiled loops and without them."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import HashingVectorizer

from streamreg.kernels import hashing

RNG = np.random.default_rng(0)
DOCUMENTS = [
    "The quick brown fox, the lazy dog; 3 dogs and 17 foxes_1.",
    "",
    None,
    "ÉTÉ à la plage: été, naïve Straße İstanbul x",
    "a b c",
    "tabs\tand\nlines",
    "一二 三四五 word",
    "THE END",
]


@pytest.fixture(params=["compiled", "scikit-learn"], autouse=True)
def kernel(request, monkeypatch):
    if request.param == "scikit-learn":
        monkeypatch.setattr(hashing, "load_library", lambda: None)


@pytest.mark.parametrize("bits", [1, 5, 20, 28])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_values_have_the_columns_and_signs_of_feature_hasher(bits, kind):
    texts = ["", "é", "abc", "abcd", *map(str, RNG.integers(0, 10**12, 500)), "x" * 3000]
    expected = FeatureHasher(1 << bits).transform([{"city": text} for text in texts])
    found = hashing.hash_values(pa.array(["no", *texts], kind)[1:], "city=", bits)
    np.testing.assert_array_equal(found.columns, expected.indices)
    np.testing.assert_array_equal(found.signs, expected.data)
    expected = FeatureHasher(1 << bits, input_type="string").transform([[each] for each in texts])
    found = hashing.hash_values(pa.array(texts, kind), "", bits)
    np.testing.assert_array_equal(found.columns, expected.indices)
    np.testing.assert_array_equal(found.signs, expected.data)


@pytest.mark.parametrize("bits", [3, 20])
@pytest.mark.parametrize(
    ("analyzer", "ngrams"), [("word", (1, 1)), ("word", (1, 2)), ("char_wb", (2, 4))]
)
def test_texts_have_the_counts_of_hashing_vectorizer(bits, analyzer, ngrams):
    oracle = HashingVectorizer(
        n_features=1 << bits, analyzer=analyzer, ngram_range=ngrams, norm=None
    )
    expected = oracle.transform([text or "" for text in DOCUMENTS])
    for documents in (pa.array(DOCUMENTS), pa.array(["no", *DOCUMENTS])[1:]):
        tokens = hashing.hash_texts(documents, bits, analyzer=analyzer, ngrams=ngrams)
        found = hashing.tidy(tokens)
        np.testing.assert_array_equal(found.bounds, expected.indptr)
        np.testing.assert_array_equal(found.columns, expected.indices)
        np.testing.assert_array_equal(found.values, expected.data)


def test_columns_without_texts_are_hashed():
    for texts in (pa.array([], pa.string()), pa.array([None, None], pa.string())):
        assert hashing.hash_texts(texts, 4).bounds.tolist() == [0] * (len(texts) + 1)
        assert len(hashing.hash_values(texts, "c=", 4).columns) == len(texts)


@pytest.mark.parametrize("text", ["1.0", "-2.00", "True", "FALSE", "2013-01-01T00:00:00"])
def test_texts_that_have_other_spellings_are_noticed(text):
    assert hashing.hash_values(pa.array(["x", text]), "c=", 4).is_respelled


def test_ragged_rows_are_sorted_and_summed():
    lengths = RNG.integers(0, 300, 50)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    columns = RNG.integers(0, 100, bounds[-1]).astype(np.int32)
    values = RNG.integers(-3, 4, bounds[-1]).astype(float)
    expected = np.zeros((50, 100))
    np.add.at(expected, (np.repeat(np.arange(50), lengths), columns), values)
    rows = hashing.tidy(hashing.HashedTokens(columns.copy(), values.copy(), bounds.copy()))
    found = np.zeros((50, 100))
    found[np.repeat(np.arange(50), np.diff(rows.bounds)), rows.columns] = rows.values
    np.testing.assert_array_equal(found, expected)
    for first, stop in zip(rows.bounds[:-1], rows.bounds[1:], strict=True):
        assert (np.diff(rows.columns[first:stop]) > 0).all()
