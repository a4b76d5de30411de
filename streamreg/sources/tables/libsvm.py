"""Libsvm text: a line is y and pairs of a column and a value, ``1 3:0.5 17:1``."""

from __future__ import annotations

import codecs
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.errors import InputError, Message, Parameter, Remedy, warn
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.kernels.libsvm import LineError, read_lines
from streamreg.machine import usable_cpus
from streamreg.schema import Feature, Schema
from streamreg.sources.tables.files import find_files
from streamreg.sources.tables.packed import unpacked
from streamreg.sources.tables.reading import reading
from streamreg.sources.tables.spooled import SparsePart, SpooledArray, SpooledRows, spooled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streamreg.blocks import Float64
    from streamreg.errors import Part
    from streamreg.kernels.libsvm import LibsvmRows
    from streamreg.sources.base import RowSource
    from streamreg.sources.tables.file_set import FileSet

_PIECE_NBYTES, _LONGEST_LINE_NBYTES = MIB, 256 * MIB
# more are not kept busy by the thread that reads, copies and counts
_MOST_THREADS = 4
FIRST_COLUMNS = (0, 1)
TARGET = "y"


class Labelled(NamedTuple):
    """Some rows of X and y."""

    part: SparsePart
    targets: Float64  # (n,)


@dataclass(eq=False)
class LibsvmText:
    """Files of libsvm text; ``n_columns`` is known, or found when they are read.

    Columns are numbered from ``first_column``, 0 or 1, in the files and from 0 in X.
    """

    files: FileSet
    first_column: int
    # how many columns X has, and of what that is known
    known_columns: int | None = None
    known_by: Part = ""
    n_columns: int = 0

    @classmethod
    def open(
        cls,
        path: str,
        first_column: int | None,
        like: Schema | None = None,
        n_features: int | None = None,
    ) -> LibsvmText:
        """Find the files; a first column that nobody names is an ``InputError``."""
        if like is not None and like.first_column is None:
            raise InputError(
                f"{path} is libsvm text, whose columns have no names, but the schema names the "
                "columns of a table; pass a table with the columns of the fit"
            )
        if first_column is None and like is not None:
            first_column = like.first_column
        if first_column is None:
            raise InputError(
                f"{path} is libsvm text, which does not say whether its first column is 0 or 1: "
                "pass ",
                Remedy("first_column", 1),
                " for files of LIBSVM and tools like it, or ",
                Remedy("first_column", 0),
                ", as scikit-learn's dump_svmlight_file writes by default",
            )
        files = find_files(path, any_name=True)
        if files.kind not in {"libsvm", "text"}:
            raise InputError(
                f"{path} is a file of {files.kind}, which is no libsvm text; leave out ",
                Parameter("first_column"),
            )
        if like is not None:
            return cls(files, first_column, like.n_columns, "the schema")
        return cls(files, first_column, n_features, Parameter("n_features", n_features))

    @property
    def name(self) -> str:
        """The path of the files."""
        return self.files.name

    def schema(self, n_columns: int, *, has_y: bool = True) -> Schema:
        """Return the schema of X with D columns."""
        targets = (TARGET,) if has_y else ()
        return Schema((Feature("x", width=n_columns),), targets, first_column=self.first_column)

    def rows(self, on_rows: Callable[[int], None] = lambda _: None) -> Iterator[Labelled]:
        """Yield rows of all files; afterwards ``n_columns`` is known.

        Raises ``InputError`` with line and character of what cannot be read.
        """
        n_rows, most, least = 0, -1, 1
        for path in self.files.paths:
            first_line = 1
            for parsed in self._parsed_pieces(path):
                found = self._checked(path, parsed, first_line)
                first_line += found.lines
                most, least = max(most, found.most), min(least, found.least)
                n_rows += len(found.targets)
                part = SparsePart(found.values, found.indices, found.bounds, found.is_float32)
                yield Labelled(part, found.targets)
                on_rows(len(found.targets))
        if not n_rows:
            raise InputError(f"{self.name} has no rows")
        if most < 0 and self.known_columns is None:
            raise InputError(f"{self.name} has no value, so that X would have no column")
        if least and most >= 0 and self.first_column == 0:
            what = f"no row of {self.name} has a value in column 0; if its first is 1, pass "
            warn(Message(what, Remedy("first_column", 1)))
        self.n_columns = self.known_columns or most + 1

    def _parsed_pieces(self, path: Path) -> Iterator[Future[LibsvmRows]]:
        """Yield the rows of a file, in order; some threads parse pieces ahead."""
        n_threads = min(_MOST_THREADS, usable_cpus())
        pending: deque[Future[LibsvmRows]] = deque()
        with ThreadPoolExecutor(n_threads) as pool:
            for text in _pieces(path):
                pending.append(pool.submit(read_lines, text, self.first_column))
                if len(pending) > n_threads + 1:
                    yield pending.popleft()
            yield from pending

    def _checked(self, path: Path, parsed: Future[LibsvmRows], first_line: int) -> LibsvmRows:
        try:
            found = parsed.result()
        except LineError as error:
            line, character, what = error.args
            raise InputError(
                f"{path}, line {first_line + line:,}, character {character + 1:,}: {what}"
            ) from error
        known = self.known_columns
        if known is not None and found.most >= known:
            raise InputError(
                f"{path} has a value in column {found.most + self.first_column:,}, where the first "
                f"is {self.first_column}: that takes {count(found.most + 1, 'column')}, and ",
                self.known_by,
                f" gives {known:,}. Pass a file with the columns of the fit, or a larger number",
            )
        return found


@dataclass(frozen=True, eq=False)
class LibsvmTable:
    """The rows of libsvm text, which stand where a data set stands.

    They were parsed once, into temporary files without a name.
    """

    name: str
    schema: Schema
    n_rows: int
    sources: dict[str, RowSource]  # X and perhaps y

    @classmethod
    def parsed(cls, text: LibsvmText, *, needs_y: bool = True) -> LibsvmTable:
        """Read all rows."""
        targets = SpooledArray(np.float64)

        def parts() -> Iterator[SparsePart]:
            for part, y in text.rows():
                targets.append(y)
                yield part

        arrays = spooled(parts(), text.name)
        X = SpooledRows(
            arrays,
            text.n_columns,
            text.name,
            paths=list(text.files.paths),
            require_unchanged=text.files.require_unchanged,
            storage=f"libsvm from {text.first_column}",
        )
        y = {"y": targets.source(f"y of {text.name}")} if needs_y else {}
        schema = text.schema(text.n_columns, has_y=needs_y)
        return cls(text.name, schema, X.shape[0], {"X": X, **y})

    def __repr__(self) -> str:
        return (
            f"LibsvmTable({self.name!r}: {count(self.n_rows, 'row')}, "
            f"{count(self.schema.n_columns, 'feature')})"
        )


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield whole lines, about 1 MiB at a time."""
    rest: list[bytes | memoryview] = []
    is_first = True
    with reading(str(path)), unpacked(path) as stream:
        while piece := stream.read(_PIECE_NBYTES):
            if is_first:
                piece, is_first = piece.removeprefix(codecs.BOM_UTF8), False
            end = piece.rfind(b"\n") + 1
            if not end:
                rest.append(piece)
                if len(rest) * _PIECE_NBYTES > _LONGEST_LINE_NBYTES:
                    longest = format_nbytes(_LONGEST_LINE_NBYTES)
                    raise InputError(f"{path} has a line of more than {longest}; is it text?")
                continue
            view = memoryview(piece)
            yield b"".join([*rest, view[:end]])
            rest = [view[end:]]
    last = b"".join(rest)
    if last:
        yield last + b"\n"
