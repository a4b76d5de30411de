"""Parameters that users pass: each is returned as what it must be, or refused by its name."""

from __future__ import annotations

import os
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError
from streamreg.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# beyond what any machine has, and few enough to be tried one by one
_MOST_THREADS = 1024


def choice(name: str, value: object, known: Sequence[str]) -> str:
    """Return one of the ``known`` texts."""
    # asked first: an array compared with a text is an array
    if not isinstance(value, str) or value not in known:
        *others, last = (repr(each) for each in known)
        raise InputError(
            f"{name}={shown(value)} is not known; choose {', '.join(others)} or {last}"
        )
    return value


def flag(name: str, value: object, what: str = "True or False") -> bool:
    """Return True or False; ``what`` says what else the caller takes."""
    # a text such as "False" would count as true
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={shown(value)} must be {what}")
    return bool(value)


def number(name: str, value: object, accepts: Callable[[float], bool], what: str) -> float:
    """Return a float that ``accepts`` takes; ``what`` says which those are."""
    real = _real(value)
    if real is None or not accepts(real):
        raise InputError(f"{name}={shown(value)} must be {what}")
    return real


def whole(name: str, value: object, most: float = np.inf, what: str = "at least 1") -> int:
    """Return an integer from 1 to ``most``, as which a float may come."""
    real = _real(value)
    if real is None or not (real.is_integer() and 1 <= real <= most):
        raise InputError(f"{name}={shown(value)} must be a whole number, {what}")
    return int(real)


def threads(value: object) -> int | None:
    """Return a number of threads, or ``None``."""
    if value is None:
        return None
    return whole("n_threads", value, _MOST_THREADS, f"from 1 to {_MOST_THREADS:,}, or None")


def path_text(name: str, value: object) -> str:
    """Return a path as text."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputError(
            f"{name} is of type {type(value).__name__}; pass a path as text or a pathlib.Path"
        )
    if not text:
        raise InputError(f"{name} is empty; pass a path")
    try:
        os.lstat(text)
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise InputError(f"{name}={shown(text)} is not a path: {error}") from error
    except OSError as error:
        raise InputError(f"{name}={shown(text)} cannot be used: {error.strerror}") from error
    return text


def _real(value: object) -> float | None:
    """Return a float, infinite if it is too large for one; ``None`` for what is no real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")
