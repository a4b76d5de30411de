"""``predict`` and ``score`` of more targets than fit in memory at once."""

from __future__ import annotations

import json

import numpy as np
import zarr
from programs import run
from sklearn.metrics import r2_score

from streamreg.model import Model
from streamreg.output.coefficient_store import CoefficientStore


def test_the_commands_say_how_often_rows_and_weights_are_read(tmp_path):
    n, d, k = 300, 400, 4_000
    random = np.random.default_rng(0)
    X, w = random.standard_normal((n, d)), random.standard_normal((k, d))
    y = X @ w.T + 9 * random.standard_normal((n, k))
    group = zarr.create_group(tmp_path / "d.zarr")
    group.create_array("X", data=X, chunks=(100, d))
    group.create_array("y", data=y, chunks=(100, 500))
    with CoefficientStore.create(tmp_path / "w.zarr", k, d) as store:
        store.write(0, w)
        Model(store.finish(), np.zeros(k), one_target=False).save(tmp_path / "m.json")
    arguments = ["d.zarr", "--model", "m.json", "--memory-limit", "40 MiB", "--n-threads", "1"]
    scored = run("score", *arguments, "--json", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    found = json.loads(scored.stdout)["r2_by_target"]
    # sums of squares in another order
    np.testing.assert_allclose(found, r2_score(y, X @ w.T, multioutput="raw_values"), rtol=1e-10)
    predicted = run("predict", *arguments, "--out", "out.zarr", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    for done in (scored, predicted):
        assert "streamreg: 4,000 targets in " in done.stderr
        assert "and stored weights " in done.stderr
    (tmp_path / "w.zarr").rename(tmp_path / "v.zarr")
    refused = run("score", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "the weights of the model in 'm.json' cannot be used: there are no" in refused.stderr
