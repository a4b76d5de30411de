"""What ``import streamreg`` offers, and what it does not import."""

import subprocess
import sys

import streamreg

PUBLIC = [
    "CheckpointError",
    "ClusterError",
    "DataCorruptionError",
    "DataWarning",
    "DivergenceError",
    "Evaluation",
    "InputError",
    "LinearRegression",
    "LinearRegressionCV",
    "MemoryLimitError",
    "Plan",
    "Statistics",
    "StreamregError",
    "evaluate",
    "load",
    "plan",
    "read_table",
]


def test_public_names_are_these():
    assert sorted(streamreg.__all__) == PUBLIC


def test_every_public_name_can_be_imported():
    for name in [*PUBLIC, "__version__"]:
        assert getattr(streamreg, name) is not None


def test_every_error_is_a_streamreg_error():
    errors = [getattr(streamreg, name) for name in PUBLIC if name.endswith("Error")]
    assert all(issubclass(error, streamreg.StreamregError) for error in errors)


def imported(statement: str) -> set[str]:
    """Return the modules that a statement imports in a new process."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_streamreg_imports_nothing_heavy():
    heavy = {"numpy", "scipy", "sklearn", "zarr", "dask", "distributed", "cupy", "pyarrow", "rich"}
    assert not imported("import streamreg") & heavy


def test_the_command_line_needs_no_scikit_learn():
    assert not imported("import streamreg.cli") & {"sklearn", "dask", "pyarrow", "zarr", "cupy"}


def test_a_numpy_fit_needs_neither_zarr_nor_dask():
    statement = (
        "import numpy as np, streamreg; "
        "streamreg.LinearRegression().fit(np.eye(9, 2), np.arange(9.0))"
    )
    # scikit-learn brings pandas and pyarrow where they are installed
    ours = imported(statement) - imported("import sklearn.base, sklearn.utils.validation")
    assert not ours & {"zarr", "dask", "distributed", "cupy", "pyarrow"}
    assert "streamreg.engines.threads" in ours
    assert not ours & {"streamreg.gpu", "streamreg.cluster"}
