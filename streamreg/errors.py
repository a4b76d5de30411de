"""Every error that a user can meet, and the messages that they carry.

StreamregError
├── InputError           ValueError       shapes, types, parameters, NaN or inf
├── MemoryLimitError     MemoryError      the plan needs more than memory_limit
├── DataCorruptionError  OSError          a missing, truncated or damaged chunk
├── DivergenceError      ArithmeticError  the loss rose, or is NaN or inf
├── CheckpointError      ValueError       a checkpoint of other data, or damaged
└── ClusterError         RuntimeError     a cluster's workers or scheduler are lost

DataWarning              UserWarning      the fit is done, but its data deserve a look

Python writes ``solver="cg"`` where the command line writes ``--solver cg``. A :class:`Message`
therefore holds the parameters that it names as data: :class:`Parameter` and :class:`Remedy`.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

# parameters whose options have other names; ``path`` is the parameter of streamreg.load
_OPTION_NAMES = {"client": "scheduler", "path": "model", "X": "x"}
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_WORD = re.compile(r"[\w.+-]+")


class Verbatim(str):
    """A value that is printed as it is, not as a text in quotes: a placeholder such as PATH."""

    __slots__ = ()


class PythonOnly(str):
    """A part of a message that the command line leaves out."""

    __slots__ = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter and perhaps its value, as Python and the command line write them.

    >>> print(Parameter("memory_limit"), Parameter("missing_chunks", "fill"))
    memory_limit missing_chunks="fill"
    >>> Parameter("missing_chunks", "fill").for_command_line()
    '--missing-chunks fill'
    """

    parameter: str
    value: str | bool | float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.parameter
        if not isinstance(self.value, str) or isinstance(self.value, Verbatim):
            return f"{self.parameter}={self.value}"
        text = repr(self.value)
        return f"{self.parameter}={text}" if '"' in text else f'{self.parameter}="{text[1:-1]}"'

    def for_command_line(self) -> str:
        """Return the option: a flag alone, another with its value, quoted for a shell."""
        name = _OPTION_NAMES.get(self.parameter, self.parameter).replace("_", "-")
        if self.value is None or self.value is True:
            return f"--{name}"
        if self.value is False:
            return f"--no-{name}"
        text = str(self.value)
        if isinstance(self.value, Verbatim):
            # the value is a repr: a single word loses its quotes
            bare = text.strip("\"'")
            return f"--{name} {bare if _WORD.fullmatch(bare) else text}"
        return f"--{name} {shlex.quote(text)}"


@dataclass(frozen=True)
class Remedy(Parameter):
    """What a user can pass to avoid an error, and what it costs.

    >>> print(Remedy("solver", "cg", cost="131 MiB, about 41 passes"))
    solver="cg": 131 MiB, about 41 passes
    """

    cost: str = ""

    def __str__(self) -> str:
        return self._with_cost(super().__str__())

    def for_command_line(self) -> str:
        return self._with_cost(super().for_command_line())

    def _with_cost(self, text: str) -> str:
        return f"{text}: {self.cost}" if self.cost else text


Part: TypeAlias = "str | Parameter"


class Message(str):
    """A text for the user, as Python writes it, that can also be written for the command line.

    ``f"{message}"`` is a plain ``str``; ``+`` gives a ``Message``.

    >>> message = Message("pass ", Remedy("solver", "cg"), ", or more memory")
    >>> print(message)
    pass solver="cg", or more memory
    >>> message.for_command_line()
    'pass --solver cg, or more memory'
    """

    __slots__ = ("parts",)

    parts: tuple[Part, ...]

    def __new__(cls, *parts: Part) -> Self:
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = tuple(
            piece
            for part in parts
            for piece in (part.parts if isinstance(part, Message) else [part])
        )
        return message

    def for_command_line(self) -> str:
        """Return the message with options in place of Python's parameters."""
        parts = (part for part in self.parts if not isinstance(part, PythonOnly))
        return "".join(
            part.for_command_line() if isinstance(part, Parameter) else part for part in parts
        )

    def __add__(self, other: str) -> Message:
        return Message(self, other)

    def __radd__(self, other: str) -> Message:
        return Message(other, self)

    def __reduce__(self) -> tuple[type[Message], tuple[Part, ...]]:
        return Message, self.parts


class StreamregError(Exception):
    """The root of all errors that streamreg raises on purpose; its parts become a Message."""

    def __init__(self, *parts: Part) -> None:
        super().__init__(Message(*parts))


class InputError(StreamregError, ValueError):
    """Data or a parameter cannot be used: names the array, rows and columns, or the parameter."""


class MemoryLimitError(MemoryError, StreamregError):
    """The plan needs more than ``memory_limit``; raised before any data is read.

    During a fit it is raised if the system refuses memory that the limit allows.
    """

    # MemoryError is the first base, because tblib, with which Dask sends errors between processes,
    # calls __new__, and CPython refuses any but that of MemoryError for this class.
    __init__ = StreamregError.__init__


class DataCorruptionError(StreamregError, OSError):
    """A chunk is missing, truncated or damaged: names the array, the chunk key and the rows."""


class DivergenceError(StreamregError, ArithmeticError):
    """The loss rose, or is NaN or inf: names the learning rate and the largest stable one.

    Attributes
    ----------
    largest_stable
        An estimate of the learning rate above which gradient descent diverges, 2/λ_max.
    """

    largest_stable: float = float("nan")


class CheckpointError(StreamregError, ValueError):
    """A checkpoint belongs to other data or other parameters, or is damaged."""


class ClusterError(StreamregError, RuntimeError):
    """A Dask cluster cannot do the work: its workers differ, are lost, or do not answer."""


class DataWarning(UserWarning):
    """The fit is done, but something in the data deserves a look: names columns or chunks."""


def warn(message: str, category: type[Warning] = DataWarning) -> None:
    """Issue a warning that points to the line that called this package."""
    frames = traceback.walk_stack(inspect.currentframe())
    files = [frame.f_code.co_filename for frame, _ in frames]
    ours = [level for level, file in enumerate(files, 1) if file.startswith(_PACKAGE)]
    warnings.warn(message, category, stacklevel=ours[-1] + 1)
