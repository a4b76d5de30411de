"""Files of statistics: the same sums, or an error that names the file, in bounded memory."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from mutations import mutated, mutations, peak_nbytes
from problems import table

from streamreg import InputError, LinearRegression, MemoryLimitError, Statistics
from streamreg.model import Model
from streamreg.output.archive import Archive, write_archive

# how many mutations are tried: 10,000 by STREAMREG_FUZZ=10000
EXAMPLES = int(os.environ.get("STREAMREG_FUZZ", "100"))
# what Python needs for a file of some kB: zipfile asks for pieces of up to 1 MiB
OVERHEAD_NBYTES = 1 << 21
KINDS = ["gram", "qr"]


def bits(statistics):
    return [array.tobytes(order="A") for array in statistics.take().state]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def statistics(kind):
    X, y = table(k=2)
    X[:, 1] *= 1e250  # kept in other units
    return Statistics.of(X, y, np.arange(600.0), kind=kind)


@pytest.fixture
def file(statistics, tmp_path):
    statistics.save(tmp_path / "s.npz")
    return tmp_path / "s.npz"


def test_loaded_statistics_are_bitwise_identical(statistics, file):
    back = Statistics.load(file)
    assert bits(back) == bits(statistics)
    assert back.about == statistics.about
    weights = [LinearRegression().fit(each).coef_.tobytes() for each in (back, statistics)]
    assert weights[0] == weights[1]
    # loaded statistics can be continued
    X, y = table(k=2)
    assert bits(back.update(X, y)) == bits(statistics.update(X, y))


def test_equal_sums_are_equal_bytes(statistics, file, tmp_path):
    statistics.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "s.npz"]


def test_numpy_reads_the_arrays(file, statistics):
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["s"] == statistics.weight_sum
        assert json.loads(arrays["header"].tobytes())["format"] == "streamreg-statistics"


def test_a_failed_save_leaves_the_older_file(statistics, file, monkeypatch):
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written to .*s\.npz.*No space left"):
        statistics.save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["s.npz"]


def test_a_file_over_the_limit_is_refused_before_its_sums_are_read(tmp_path):
    Statistics.of(*table(n=50, d=300)).save(tmp_path / "s.npz")

    def load():
        with pytest.raises(MemoryLimitError, match=r"s\.npz' take 71\d\.\d KiB .*were not read"):
            Statistics.load(tmp_path / "s.npz", memory_limit="256 KiB")

    _, nbytes = peak_nbytes(load)
    assert nbytes < 1 << 19


def test_other_files_are_named(tmp_path, file):
    with pytest.raises(InputError, match=r"end in \.npz, not '\.json'"):
        Statistics.load(file).save(tmp_path / "s.json")
    with pytest.raises(InputError, match=r"there is no file of statistics at .*absent"):
        Statistics.load(tmp_path / "absent.npz")
    Model(np.ones((1, 2)), np.ones(1)).save(tmp_path / "model.npz")
    with pytest.raises(InputError, match=r"model\.npz' holds no statistics .*'streamreg-model'"):
        Statistics.load(tmp_path / "model.npz")


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.npz").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match="holds no statistics"):
        Statistics.load("s.npz")
    objects = np.array([_Bomb()], dtype=object)
    np.savez(tmp_path / "s.npz", allow_pickle=True, header=objects, gram=objects)
    with pytest.raises(InputError, match="holds no statistics"):
        Statistics.load("s.npz")
    assert not (tmp_path / "exploded").exists()


def forged(file, header=None, **arrays):
    """Write a whole archive with some changes to its header and arrays; return its path."""
    with closing(Archive(file)) as archive:
        names = [name.removesuffix(".npy") for name in archive._zip.namelist()]
        known = {name: archive.read(name) for name in names if name != "header"}
        known_header = archive.header
    changed = {name: array for name, array in (known | arrays).items() if array is not None}
    out = file.with_name("forged.npz")
    with out.open("wb") as opened:
        write_archive(opened, known_header | (header or {}), changed)
    return out


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": 2}, "version is 2"),
        ({"kind": "sums"}, "kind is 'sums'"),
        ({"kind": ["gram"]}, ""),
        ({"n_features": 10**9}, "bytes are too few"),
        ({"n_features": 10**400}, ""),
        ({"n_targets": 10**9}, "bytes are too few"),
        ({"n_features": 5}, ""),
        ({"n_features": True}, "n_features is True"),
        ({"n_features": 0}, "n_features is 0"),
        ({"n_counted": 599.0}, "n_counted is 599.0"),
        ({"n_counted": 598}, "not 598"),
        ({"n_counted": 6000}, "pieces have 600 rows"),
        ({"weight_sum": -1.0}, "weight_sum is -1.0"),
        ({"weight_sum": 1.0}, "sums are of"),
        ({"log_weight_sum": None}, "log_weight_sum is None"),
        ({"feature_names": ["a"]}, "feature names"),
        ({"pieces": []}, "no pieces"),
        ({"pieces": [["X", "600"]]}, ""),
        ({"schema": {"version": 9}}, "schema"),
    ],
)
def test_a_forged_header_is_an_input_error(file, header, message):
    path = forged(file, header)
    with pytest.raises(InputError, match=rf"forged\.npz' holds no statistics .*{message}"):
        Statistics.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("n", lambda n: n + 1),
        ("n", lambda n: n * np.nan),
        ("s", lambda s: -s),
        ("updates", lambda updates: 0 * updates),
        ("varies", lambda varies: varies + 0.5),
        ("origin", lambda origin: origin.astype("f4")),
        ("origin", lambda origin: origin[:-1]),
        ("x_units", lambda units: 3 * units),
        ("x_units", lambda units: -units),
        ("y_units", lambda units: 0 * units),
        ("square", lambda square: square * np.inf),
        ("square", lambda square: square.T[:-1]),
        ("square", lambda square: square - 1e9),
        ("square", lambda _: None),
    ],
)
def test_forged_sums_are_an_input_error(file, kind, name, change):
    name = {"gram": "gram", "qr": "root"}[kind] if name == "square" else name
    with closing(Archive(file)) as archive:
        array = archive.read(name)
    with np.errstate(invalid="ignore"):
        path = forged(file, **{name: change(array)})
    with pytest.raises(InputError, match=r"forged\.npz' holds no statistics"):
        Statistics.load(path)


def test_a_forged_shape_is_refused_before_it_is_allocated(file):
    path = forged(file, {"n_features": 200_000_000})

    def load():
        with pytest.raises(InputError, match="too few"):
            Statistics.load(path)

    _, nbytes = peak_nbytes(load)
    assert nbytes < OVERHEAD_NBYTES


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s.npz"
    statistics = Statistics.of(*table(), kind=request.param)
    statistics.save(path)
    return path.read_bytes(), bits(statistics)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(changes=mutations())
def test_a_mutated_file_is_an_error_or_the_same_sums(tmp_path_factory, whole, changes):
    content, sums = whole
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "s.npz"
    path.write_bytes(mutated(content, changes))

    def load():
        try:
            return Statistics.load(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
            return None

    loaded, nbytes = peak_nbytes(load)
    assert nbytes <= 4 * len(content) + OVERHEAD_NBYTES
    if loaded is not None:
        assert bits(loaded) == sums
