"""Parse single parameters of a fit; an ``InputError`` names the parameter and its value."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from streamreg import validate
from streamreg.engines.fold_scan import GCV, GivenSplits
from streamreg.errors import InputError, Message, Parameter, PythonOnly
from streamreg.formatting import given
from streamreg.solvers.registry import AUTO, SOLVERS
from streamreg.sources.folds import MOST_FOLDS

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def solver(name: str, value: object) -> str:
    """Return the name of a solver, or ``"auto"``; solvers may be registered at any time."""
    return validate.choice(name, value, (AUTO, *SOLVERS))


def size(name: str, value: object) -> int:
    """Return bytes."""
    return validate.parse_nbytes(value, name=name)


def learning_rate(name: str, value: object) -> float | Literal["auto"]:
    """Return α, or ``"auto"``."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    return validate.number(
        name,
        value,
        lambda rate: 0 < rate < np.inf,
        'a number above 0, or "auto" for the best step of each epoch',
    )


def precondition(name: str, value: object) -> int | Literal["auto"] | None:
    """Return a number of directions, ``"auto"`` or ``None``, which is ``"none"`` as a text."""
    if value is None or (isinstance(value, str) and value == "none"):
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    what = Message('at least 1, or "auto" or "none"', PythonOnly(", or None"))
    return validate.whole(name, value, what=what)


def columns(name: str, value: object) -> tuple[str | int, ...]:
    """Return the names or numbers of columns; one text holds names between commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    found: list[Any] = list(value) if isinstance(value, Iterable) else []
    found = [each.item() if isinstance(each, np.generic) else each for each in found]
    if not found or not all(type(each) in {str, int} for each in found):
        raise InputError(given(name, value), " must list names or numbers of columns")
    if len({*found}) < len(found):
        raise InputError(given(name, value), " names a column twice")
    return tuple(found)


def tol(name: str, value: object) -> float:
    """Return a relative tolerance."""
    return validate.number(name, value, lambda tol: 0 <= tol < 1, "a number from 0 to below 1")


def or_none(parse: Callable[[str, object], Result]) -> Callable[[str, object], Result | None]:
    """Return a parser that also accepts ``None``."""
    return lambda name, value: None if value is None else parse(name, value)


def one_of(*known: str) -> Callable[[str, object], str]:
    """Return a parser of these texts."""
    return partial(validate.choice, known=known)


def l2(name: str, value: object) -> float:
    """Return one penalty."""
    return validate.number(name, value, lambda l2: 0 <= l2 < np.inf, "a finite number, 0 or more")


def is_list(value: object) -> bool:
    """Whether a value holds several numbers; an array without axes is one."""
    is_text = isinstance(value, str | bytes)
    return isinstance(value, Iterable) and not is_text and getattr(value, "ndim", 1) > 0


def l2_of_targets(value: object) -> tuple[float, ...]:
    """Return the penalty of each target, (K,)."""
    values = np.asarray(value, dtype=object)
    if values.ndim != 1 or not len(values):
        raise InputError(given("l2", value), " must be a number, or one for each target, (K,)")
    return tuple(l2("l2", each) for each in values.tolist())


def l2s(value: object) -> tuple[float, ...] | None:
    """Return penalties to compare, in ascending order and each once; ``None``: from the data."""
    if value is None:
        return None
    is_one = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    values: list[Any] = [value] if is_one else np.ravel(np.asarray(value, object)).tolist()
    if not values:
        raise InputError(given("l2", value), " must list penalties, each a finite number")
    return tuple(sorted({l2("l2", each) for each in values}))


def _splits(name: str, value: Iterable[Any]) -> GivenSplits:
    """Return the splitter of pairs of row numbers, for training and for testing."""
    pairs = list(value)
    if not pairs:
        raise InputError(
            Parameter(name),
            " has no folds: it is empty, or an iterator that an earlier fit used up; pass a list "
            "of pairs (train, test)",
        )
    if not all(isinstance(each, tuple | list) and len(each) == 2 for each in pairs):  # noqa: PLR2004
        raise InputError(given(name, value), " must list pairs of row numbers, (train, test)")
    return GivenSplits(pairs)


def cv(name: str, value: object) -> Any:  # noqa: ANN401  (a splitter)
    """Return ``"gcv"``, a number of folds, or a splitter."""
    if isinstance(value, str) and value == GCV:
        return value
    if callable(getattr(value, "split", None)) and callable(getattr(value, "get_n_splits", None)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return _splits(name, value)
    what = f'from 2 to {MOST_FOLDS - 1:,}, "{GCV}", or a splitter of scikit-learn'
    folds = validate.whole(name, value, MOST_FOLDS - 1, what)
    if folds < 2:  # noqa: PLR2004
        raise InputError(given(name, value), " must be a whole number, ", what)
    return folds
