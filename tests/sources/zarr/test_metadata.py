"""Groups and arrays are read as they are now, whatever their consolidated metadata say."""

from __future__ import annotations

import multiprocessing
import zipfile

import numpy as np
import pytest
import zarr

from streamreg import DataCorruptionError, InputError, LinearRegression

RNG = np.random.default_rng(0)
X1, X2 = RNG.normal(size=(100, 3)), RNG.normal(size=(300, 3))
Y1, Y2 = X1 @ [1.0, 2, 3], X2 @ [4.0, 5, 6]
EXPECTED = np.linalg.lstsq(np.c_[np.r_[X1, X2], np.ones(400)], np.r_[Y1, Y2], rcond=None)[0][:3]


@pytest.fixture(params=[2, 3])
def grown(tmp_path, request):
    """A group that was consolidated before its arrays grew."""
    path = tmp_path / "d.zarr"
    group = zarr.create_group(path, zarr_format=request.param)
    for name, values in (("X", X1), ("y", Y1)):
        group.create_array(name, shape=values.shape, chunks=(50, *values.shape[1:]), dtype="f8")
        group[name][:] = values
    zarr.consolidate_metadata(path)
    for name, values in (("X", X2), ("y", Y2)):
        zarr.open_array(path / name, mode="r+").append(values)
    return path


pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")


@pytest.mark.parametrize("kind", ["path", "URL", "group"])
def test_arrays_that_grew_after_consolidation_are_read_whole(grown, kind):
    data = {"path": grown, "URL": grown.as_uri(), "group": zarr.open_group(grown, mode="r")}[kind]
    np.testing.assert_allclose(LinearRegression().fit(data).coef_, EXPECTED)


def test_weights_added_after_consolidation_are_used(grown):
    group = zarr.open_group(grown, mode="r+", use_consolidated=False)
    weight = np.r_[np.full(100, 1e-12), np.ones(300)]
    group.create_array("sample_weight", shape=(400,), chunks=(400,), dtype="f8")[:] = weight
    np.testing.assert_allclose(LinearRegression().fit(grown).coef_, [4, 5, 6])


def test_an_array_object_with_an_older_shape_is_refused_and_the_remedy_works(grown):
    old = zarr.open_group(grown, mode="r", use_consolidated=True)
    message = (
        r"opened with shape \(100, 3\) but its metadata now say \(400, 3\).*use_consolidated=False"
    )
    with pytest.raises(InputError, match=message):
        LinearRegression().fit(old["X"], old["y"])
    now = zarr.open(grown, mode="r", use_consolidated=False)
    np.testing.assert_allclose(LinearRegression().fit(now["X"], now["y"]).coef_, EXPECTED)


@pytest.fixture
def archive(tmp_path):
    """A ZIP archive with a group at its top."""
    path = tmp_path / "d.zip"
    with zarr.storage.ZipStore(path, mode="w") as store:
        group = zarr.create_group(store)
        for name, values in (("X", X2), ("y", Y2)):
            array = group.create_array(
                name, shape=values.shape, chunks=(10, *values.shape[1:]), dtype="f8"
            )
            array[:] = values
    return path


def test_a_group_in_a_folder_of_a_zip_archive_is_read(archive, tmp_path):
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "in.zip", "w") as new:
        for name in old.namelist():
            new.writestr(f"d.zarr/{name}", old.read(name))
    np.testing.assert_allclose(LinearRegression().fit(tmp_path / "in.zip").coef_, [4, 5, 6])


def test_a_truncated_zip_archive_is_named(archive):
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(DataCorruptionError, match=r"d\.zip is no ZIP archive, or was cut off"):
        LinearRegression().fit(archive)


def test_a_url_of_an_unknown_protocol_is_an_input_error():
    with pytest.raises(InputError, match=r"nothing can be opened at foo://.*Protocol not known"):
        LinearRegression().fit("foo://bucket/d.zarr")


def _fit(arrays, results):
    results.put(np.abs(LinearRegression(n_threads=1).fit(*arrays).coef_ - [4, 5, 6]).max())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_processes_that_inherit_an_open_zip_archive_read_by_files_of_their_own(archive):
    group = zarr.open_group(zarr.storage.ZipStore(archive, mode="r"), mode="r")
    arrays = group["X"], group["y"]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_fit, args=(arrays, results)) for _ in range(4)]
    for process in processes:
        process.start()
    errors = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert max(errors) < 1e-10
