"""What errors and warnings offer, in the words of the command line."""

from __future__ import annotations

import re
from dataclasses import fields

from streamreg.config import FitConfig

_NAMES = "|".join([*(field.name for field in fields(FitConfig)), "overwrite", "drop_missing"])
# `overwrite=True (--overwrite)`, `ignore (--ignore COLUMN)`: said twice already
_TWICE = re.compile(r"\b(\w+)(?:=True)? \((--([a-z-]+)(?: [^)]*)?)\)(?=[\s.,;]|$)")
_WORD = re.compile(r"[\w.+-]+")
# neither a part of a path nor of a longer word
_GIVEN = re.compile(rf"""(?<![\w./'"-])({_NAMES})=("[^"]*"|'[^']*'|[-+\w.]*\w)(?![\w/])""")
# a column may have such a name too: only where a sentence of ours comes before it
_NAMED = re.compile(
    rf"\b([Rr]aise|[Pp]ass|lower|larger|smaller|but|before|or|converge\.) ({_NAMES})\b"
    r"(?![=./'\"-]\w)"
)


def as_options(message: str) -> str:
    """Return a message with options, ``--solver cg``, for Python's parameters, ``solver="cg"``.

    >>> as_options('Raise memory_limit to 75 GiB, or use solver="cg"')
    'Raise --memory-limit to 75 GiB, or use --solver cg'
    """
    # an option without which a thing is automatic is left out, not None
    message = _TWICE.sub(_once, message.removesuffix(", or None"))
    message = _GIVEN.sub(_given, message)
    return _NAMED.sub(lambda found: f"{found[1]} {_option(found[2])}", message)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _once(found: re.Match[str]) -> str:
    return found[2] if _option(found[1]) == f"--{found[3]}" else found[0]


def _given(found: re.Match[str]) -> str:
    name, value = found.groups()
    if value == "True":
        return _option(name)
    if value == "False":
        return f"--no-{_option(name)[2:]}"
    bare = value.strip("\"'")
    # what a shell would take for several words, or none, stays in quotes
    return f"{_option(name)} {bare if _WORD.fullmatch(bare) else value}"
