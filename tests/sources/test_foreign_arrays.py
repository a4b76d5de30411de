"""Arrays of libraries that may not be safe to use on several threads."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg import InputError, LinearRegression, MemoryLimitError
from streamreg.sources.kinds import open_source


class Foreign:
    """An array that has only shape, dtype and slices, and counts the reads in progress."""

    under_way, most = 0, 0

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, rows):
        Foreign.under_way += 1
        Foreign.most = max(Foreign.most, Foreign.under_way)
        # work that lets other threads run meanwhile
        read = self.values[rows].copy()
        Foreign.under_way -= 1
        return read


class Refused(Foreign):
    def __getitem__(self, rows):
        raise MemoryError("no room")


def test_only_one_of_x_and_y_is_read_at_a_time():
    # 64 MiB: several segments, for threads to share
    X = Foreign(np.random.default_rng(0).standard_normal((1 << 20, 8)))
    model = LinearRegression(n_threads=4).fit(X, Foreign(X.values.sum(axis=1)))
    np.testing.assert_allclose(model.coef_, np.ones(8))
    assert Foreign.most == 1


def test_a_memory_error_of_an_array_is_not_reported_as_damage():
    message = "the system refused memory that closed_form needs: no room"
    with pytest.raises(MemoryLimitError, match=message):
        LinearRegression().fit(Refused(np.ones((10, 2))), np.ones(10))


@pytest.mark.parametrize("kind", ["File", "Group"])
def test_an_hdf5_file_or_group_is_refused_with_what_to_pass(tmp_path, kind):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["group/X"] = np.ones((3, 2))
        data = file if kind == "File" else file["group"]
        with pytest.raises(
            InputError, match=rf'X is an HDF5 {kind}; pass a dataset, as file\["X"\]'
        ):
            open_source(data, "X")
