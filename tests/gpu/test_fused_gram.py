"""The compiled kernels of a Gram, run by threads of the host."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import reference

from streamreg.blocks import Block
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.device import DeviceState
from streamreg.kernels.states import GramState

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile for the host"),
    pytest.mark.slow,
]


@pytest.mark.parametrize(
    ("d", "n", "dtype", "weighted", "centred"),
    [
        (1, 300, "f8", False, True), (3, 1, "f4", True, True), (8, 700, "f4", True, True),
        (40, 530, "f8", True, True),
        (33, 257, "f4", False, False), (1100, 9, "f8", False, True), (40, 5, "f8", True, False),
    ],
)  # fmt: skip
def test_sums_equal_the_reference(gpu, monkeypatch, d, n, dtype, weighted, centred):
    monkeypatch.setattr(gpu_kernels, "TILE_NBYTES", 8 * 40 * 512)
    rng = np.random.default_rng(0)
    X, y = (rng.standard_normal((n, shape)).astype(dtype) + 7 for shape in (d, 2))
    X, y = X.astype(dtype), y.astype(dtype)
    X[:, 0] = 3  # constant
    weight = rng.uniform(0.1, 2, n) if weighted else None
    stream = gpu.cupy.cuda.Stream(non_blocking=True)
    loops = gpu.kernels()
    with stream:
        on_device = DeviceState(gpu, GramState.zero(d, 2), stream)
        block = Block(
            gpu.cupy.asarray(X), gpu.cupy.asarray(y),
            None if weight is None else gpu.cupy.asarray(weight), 0, joints=(4,),
        )  # fmt: skip
        loops.kernels.find("gram")(
            block,
            on_device.state,
            loops.kernels.parallel,
            centred=centred,
            x_scale=None,
            y_scale=None,
        )
        state = on_device.send(gpu.cupy.cuda.Stream(non_blocking=True))()
    counts = np.ones(n) if weight is None else weight
    expected = reference.gram(X.astype(float), y.astype(float), counts, centred=centred)
    lower = np.tril_indices(d)
    state = state._replace(mean=state.origin + state.mean, y_mean=state.y_origin + state.y_mean)
    for name, value in expected.items():
        found, wanted = getattr(state, name), np.asarray(value)
        if name == "gram":
            found, wanted = found[lower], wanted[lower]
        size = np.max(np.abs(wanted), initial=1.0)
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12 * size, err_msg=name)
    if centred:
        assert state.varies[0] == 0
        assert state.gram[0, 0] == 0
