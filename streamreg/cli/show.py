"""What commands print: results on standard output, messages on standard error."""

from __future__ import annotations

import codecs
import json
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from streamreg.errors import Message
from streamreg.formatting import as_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MIN_WIDTH = 100
_MOST_NAMES = 12
# what is written where the encoding of the output lacks a mark; ? for all others
_PLAIN = {"→": "->", "←": "<-", "─": "-", "–": "-", "…": "...", "×": "x", "·": "*", "‖": "||"}  # noqa: RUF001
# whether standard output has the JSON document of the command that runs
_has_document = ContextVar("has_document", default=False)


def write_in_any_encoding() -> None:
    """Let standard output and error replace what their encoding lacks, such as → in Latin-1."""
    codecs.register_error("streamreg.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        # a stream of a program that runs commands in its own process may have no encoding
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="streamreg.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(mark, "?") for mark in lacking), error.end


def say(message: str) -> None:
    """Write a message to standard error."""
    typer.echo(f"streamreg: {message}", err=True)


def warn(message: str | Warning) -> None:
    """Write a warning to standard error."""
    say(f"warning: {text_of(message)}")


def text_of(message: str | BaseException) -> str:
    """Return a message, or an error and its notes, in the words of the command line."""
    if isinstance(message, BaseException):
        text = message.args[0] if len(message.args) == 1 else str(message)
        return sentences(*map(text_of, [text, *getattr(message, "__notes__", [])]))
    return message.for_command_line() if isinstance(message, Message) else str(message)


def sentences(*texts: str) -> str:
    """Join sentences, of which some end with a full stop already."""
    return ". ".join([*(text.removesuffix(".") for text in texts[:-1]), texts[-1]])


def write(text: str = "") -> None:
    """Write a line of the result to standard output."""
    typer.echo(text)


def write_names(what: str, names: Sequence[str]) -> None:
    """Write the first names of a list."""
    more = f", … {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    write(f"{what}: {', '.join(names[:_MOST_NAMES])}{more}")


def write_json(document: dict[str, Any]) -> None:
    """Write the one JSON document of a command; NaN and inf become null."""
    _has_document.set(True)
    write(json.dumps(as_json(document), indent=1))


def write_error(error: BaseException, message: str, exit_code: int) -> None:
    """Write the JSON document of a command that failed, unless its result is written already."""
    if not _has_document.get():
        kind = type(error).__name__
        write_json({"error": kind, "message": message, "exit_code": exit_code})


def write_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table; the first column is text, the others numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    console.print(table)
