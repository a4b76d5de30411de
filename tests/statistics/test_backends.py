"""Where the pass runs changes no sum but by rounding."""

from __future__ import annotations

import numpy as np
import pytest
from problems import table

from streamreg import InputError, Statistics


def assert_same(found, expected):
    for name in ("xx", "xy", "yy", "x_mean"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    assert found.about == expected.about


def test_a_gpu_gathers_the_same_sums(cupy):
    X, y = table(k=2)
    assert_same(Statistics.of(X, y, device="cuda"), Statistics.of(X, y))
    with pytest.raises(InputError, match='kind="qr" has no kernels for device="cuda"'):
        Statistics.of(X, y, kind="qr", device="cuda")


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["gram", "qr"])
def test_a_cluster_gathers_the_same_bits(client_here, store, kind):
    X, y = table()
    paths = store(X, chunks=(100, 6)), store(y, "y.zarr", chunks=(100,))
    there, here = (
        Statistics.of(*paths, kind=kind, client=client) for client in (client_here, None)
    )
    assert there.about == here.about
    assert [a.tobytes() for a in there.take().state] == [a.tobytes() for a in here.take().state]
