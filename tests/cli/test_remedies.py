"""Remedies as the command line spells them."""

import pytest

from streamreg.cli.remedies import as_options


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('use solver="cg": 86 MiB', "use --solver cg: 86 MiB"),
        ("Raise memory_limit to 8 MiB, or", "Raise --memory-limit to 8 MiB, or"),
        ("8 MiB but memory_limit is 1 KiB", "8 MiB but --memory-limit is 1 KiB"),
        ("memory_limit='4 GBB' is no size", "--memory-limit '4 GBB' is no size"),
        ('out with nan_policy="omit".', "out with --nan-policy omit."),
        ('(missing_chunks="fill")', "(--missing-chunks fill)"),
        ("learning_rate=1e-3. Pass less", "--learning-rate 1e-3. Pass less"),
        ("or pass fit_intercept=True", "or pass --fit-intercept"),
        ("standardize=False is", "--no-standardize is"),
        ("pass overwrite=True (--overwrite) to", "pass --overwrite to"),
        ("with ignore (--ignore COLUMN)", "with --ignore COLUMN"),
        ("n_threads=0 must be at least 1, or None", "--n-threads 0 must be at least 1"),
        (
            "converge. max_epochs ran out before tol was reached; raise max_epochs, or tol.",
            (
                "converge. --max-epochs ran out before --tol was reached; "
                "raise --max-epochs, or --tol."
            ),
        ),
    ],
)
def test_parameters_become_options(said, shown):
    assert as_options(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "there is no file /data/solver=cg/t.csv; is",
        "t-l2=1.csv cannot be read",
        "columns tol, max_epochs are constant",
        "column init (2, first in row 3)",
        "the solver's units; SOLVER=cg",
        "leave out such columns (those above)",
    ],
)
def test_names_of_files_and_columns_stay_as_they_are(said):
    assert as_options(said) == said
