"""Parse the parameters that users pass; errors name the parameter and its value."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError, Message, Parameter, Part, PythonOnly
from streamreg.formatting import UNIT_NAMES, given

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# a plan tries each number
_MOST_THREADS = 1024
_UNITS = {
    **dict.fromkeys(("", "b", "byte", "bytes"), 1),
    **{unit.lower(): 1024**power for power, unit in enumerate(UNIT_NAMES, 1)},
    **{unit[0].lower(): 1024**power for power, unit in enumerate(UNIT_NAMES, 1)},
    **{f"{unit[0]}b".lower(): 1000**power for power, unit in enumerate(UNIT_NAMES, 1)},
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def choice(name: str, value: object, known: Sequence[str]) -> str:
    """Return one of the ``known`` texts."""
    # the type is checked first, because an array compared with a text gives an array
    if not isinstance(value, str) or value not in known:
        *others, last = (repr(each) for each in known)
        raise InputError(given(name, value), f" is not known; choose {', '.join(others)} or {last}")
    return value


def flag(name: str, value: object, what: str = "True or False") -> bool:
    """Return True or False; ``what`` names all that the caller accepts, for the message."""
    # a text such as "False" is true to Python
    if not isinstance(value, bool | np.bool_):
        raise InputError(given(name, value), f" must be {what}")
    return bool(value)


def number(name: str, value: object, accepts: Callable[[float], bool], what: str) -> float:
    """Return a float for which ``accepts`` is true; ``what`` describes such numbers in messages."""
    real = _real(value)
    if real is None or not accepts(real):
        raise InputError(given(name, value), f" must be {what}")
    return real


def whole(name: str, value: object, most: float = np.inf, what: Part = "at least 1") -> int:
    """Return an integer from 1 to ``most``; a float without fraction is accepted."""
    real = _real(value)
    if real is None or not (real.is_integer() and 1 <= real <= most):
        raise InputError(given(name, value), " must be a whole number, ", what)
    return int(real)


def threads(name: str, value: object) -> int:
    """Return a number of threads."""
    what = Message(f"from 1 to {_MOST_THREADS:,}", PythonOnly(", or None"))
    return whole(name, value, _MOST_THREADS, what)


def path_text(name: str, value: object) -> str:
    """Return a path as text."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputError(
            Parameter(name),
            f" is of type {type(value).__name__}; pass a path as text or a pathlib.Path",
        )
    if not text:
        raise InputError(Parameter(name), " is empty; pass a path")
    try:
        os.lstat(text)
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise InputError(given(name, text), f" is not a path: {error}") from error
    except OSError as error:
        raise InputError(given(name, text), f" cannot be used: {error.strerror}") from error
    return text


def _real(value: object) -> float | None:
    """Return a float, inf if the number is too large for one; ``None`` if it is no real number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def parse_nbytes(size: object, *, name: str = "memory_limit") -> int:
    """Return a size in bytes, from a whole number or a text such as ``"512 MiB"``."""
    nbytes = _parse_text(size) if isinstance(size, str) else _as_count(size)
    if nbytes is None:
        raise InputError(
            given(name, size),
            ' is not a size; write bytes as a whole number, or a text such as "512 MiB" or "2 GB"',
        )
    if nbytes <= 0:
        raise InputError(given(name, size), " must be more than zero bytes")
    return nbytes


def _parse_text(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    try:
        # exact, where a float would lose digits or overflow
        return int(Fraction(match[1]) * unit) if match and unit else None
    except ValueError:  # Python limits the number of digits
        return None


def _as_count(size: object) -> int | None:
    if isinstance(size, bool):
        return None
    if isinstance(size, Integral):
        return int(size)
    return int(float(size)) if isinstance(size, Real) and float(size).is_integer() else None
