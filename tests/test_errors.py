"""Messages: each names a parameter as Python writes it and as the command line does."""

import copy
import json
import pickle
import warnings
from enum import Enum

import pytest

from streamreg import validate
from streamreg.errors import (
    DataWarning,
    InputError,
    MemoryLimitError,
    Message,
    Parameter,
    PythonOnly,
    Remedy,
    StreamregError,
    Verbatim,
)
from streamreg.formatting import given
from streamreg.solvers.base import Status

MESSAGE = Message(
    "Raise ", Parameter("memory_limit"), " to 75 GiB, or use ", Remedy("solver", "cg")
)
IN_PYTHON = 'Raise memory_limit to 75 GiB, or use solver="cg"'
ON_COMMAND_LINE = "Raise --memory-limit to 75 GiB, or use --solver cg"


@pytest.mark.parametrize(
    ("part", "in_python", "on_command_line"),
    [
        (Parameter("memory_limit"), "memory_limit", "--memory-limit"),
        (Remedy("solver", "cg"), 'solver="cg"', "--solver cg"),
        (Remedy("solver", "cg", cost="86 MiB"), 'solver="cg": 86 MiB', "--solver cg: 86 MiB"),
        (Remedy("nan_policy", "omit"), 'nan_policy="omit"', "--nan-policy omit"),
        (Remedy("missing_chunks", "fill"), 'missing_chunks="fill"', "--missing-chunks fill"),
        (Parameter("learning_rate", 1e-3), "learning_rate=0.001", "--learning-rate 0.001"),
        (Remedy("fit_intercept", True), "fit_intercept=True", "--fit-intercept"),
        (Parameter("standardize", False), "standardize=False", "--no-standardize"),
        (Remedy("overwrite", True), "overwrite=True", "--overwrite"),
        (Parameter("client"), "client", "--scheduler"),
        (Remedy("ignore", "a b"), 'ignore="a b"', "--ignore 'a b'"),
        (Remedy("ignore", 'a"b'), "ignore='a\"b'", "--ignore 'a\"b'"),
        (Remedy("ignore", ""), 'ignore=""', "--ignore ''"),
        (Remedy("ignore", Verbatim("COLUMN")), "ignore=COLUMN", "--ignore COLUMN"),
        (given("memory_limit", "4 GBB"), "memory_limit='4 GBB'", "--memory-limit '4 GBB'"),
        (given("solver", "qr"), "solver='qr'", "--solver qr"),
    ],
)
def test_python_and_the_command_line_write_a_parameter_in_their_own_ways(
    part, in_python, on_command_line
):
    assert str(part) == in_python
    assert part.for_command_line() == on_command_line


def test_a_part_for_python_alone_is_not_on_the_command_line():
    with pytest.raises(InputError, match=r"n_threads=0 must be .* 1,024, or None$") as caught:
        validate.threads("n_threads", 0)
    message = caught.value.args[0]
    assert message.for_command_line() == "--n-threads 0 must be a whole number, from 1 to 1,024"
    assert str(Message("a", PythonOnly("b"))) == "ab"


def test_a_status_has_both_wordings():
    assert Status.OUT_OF_EPOCHS.value == (
        "max_epochs ran out before tol was reached; raise max_epochs, or tol."
    )
    assert Status.OUT_OF_EPOCHS.value.for_command_line() == (
        "--max-epochs ran out before --tol was reached; raise --max-epochs, or --tol."
    )


@pytest.mark.parametrize(
    "name",
    [
        "there is no file /data/solver=cg/t.csv",
        "t-l2=1.csv cannot be read",
        "columns tol, max_epochs are constant",
        'column solver="cg" (2, first in row 3)',
    ],
)
def test_text_that_looks_like_a_parameter_stays_as_it_is(name):
    message = Message(name, "; pass ", Remedy("l2", 1.0))
    assert message.for_command_line() == f"{name}; pass --l2 1.0"


class Reason(Enum):
    """Messages as the values of an enumeration."""

    MEMORY = MESSAGE


@pytest.mark.parametrize(
    "same",
    [
        MESSAGE,
        Message(MESSAGE),
        Message("Raise ") + Message(Parameter("memory_limit"), *MESSAGE.parts[2:]),
        MESSAGE + "",
        "" + MESSAGE,
        pickle.loads(pickle.dumps(MESSAGE)),
        copy.deepcopy(MESSAGE),
        InputError(MESSAGE).args[0],
        pickle.loads(pickle.dumps(MemoryLimitError(MESSAGE))).args[0],
        DataWarning(MESSAGE).args[0],
        Reason.MEMORY.value,
        pickle.loads(pickle.dumps(Reason.MEMORY)).value,
    ],
)
def test_both_wordings_survive(same):
    assert str(same) == IN_PYTHON
    assert same.for_command_line() == ON_COMMAND_LINE


@pytest.mark.parametrize("kind", StreamregError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_errors_can_be_sent_between_the_processes_of_a_cluster(kind):
    tblib = pytest.importorskip("tblib.pickling_support", reason="Dask sends errors with it")
    rebuild, arguments, *_ = tblib.pickle_exception(kind(MESSAGE))
    error = rebuild(*arguments)
    assert type(error) is kind
    assert error.args[0].for_command_line() == ON_COMMAND_LINE


def test_a_message_is_a_text_in_pythons_words():
    assert isinstance(MESSAGE, str)
    assert MESSAGE == IN_PYTHON
    assert json.dumps(MESSAGE) == json.dumps(IN_PYTHON)
    assert str(InputError(MESSAGE)) == f"{MESSAGE}" == IN_PYTHON
    assert type(str(MESSAGE)) is str


def test_a_warning_carries_both_wordings():
    with pytest.warns(DataWarning, match="Raise memory_limit") as caught:
        warnings.warn(MESSAGE, DataWarning, stacklevel=1)
    assert caught[0].message.args[0].for_command_line() == ON_COMMAND_LINE
