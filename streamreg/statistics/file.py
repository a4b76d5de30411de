"""Statistics in a file, which is not trusted when it is read."""

from __future__ import annotations

import secrets
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.errors import InputError, MemoryLimitError, Remedy
from streamreg.formatting import format_nbytes
from streamreg.machine import available_nbytes, memory_limit_or_default
from streamreg.output.archive import Archive, write_archive
from streamreg.output.atomic import atomic_write, require_folder
from streamreg.statistics.about import About
from streamreg.statistics.gathered import Gathered
from streamreg.validate import path_text

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from streamreg.blocks import Array, Float64

SUFFIX = ".npz"
_FORMAT, _VERSION = "streamreg-statistics", 1
# of the sums of the same weights, made in different orders
_MOST_DIFFERENCE = 1e-9


def save_gathered(gathered: Gathered, path: str | os.PathLike[str]) -> Path:
    """Write statistics to a ``.npz`` file, whole or not at all; an older file is replaced."""
    path = Path(path_text("path", path))
    if path.suffix != SUFFIX:
        raise InputError(f"files of statistics end in .npz, not {path.suffix!r}: {path.name!r}")
    require_folder(path, f"file {str(path)!r}")
    gathered.about.statistic.settle(gathered.state)
    header = {"format": _FORMAT, "version": _VERSION, **gathered.about.to_json()}
    arrays = {**gathered.state._asdict(), "x_units": gathered.units.x, "y_units": gathered.units.y}
    # a random name, because another process may save to the same path
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with atomic_write(partial, path) as file:
            write_archive(file, header, arrays)
    except OSError as error:
        raise InputError(
            f"the statistics cannot be written to {str(path)!r}: {error.strerror}"
        ) from error
    return path


class StoredStatistics:
    """A file of statistics, of which ``about`` was read.

    Raises
    ------
    InputError
        There is no such file, or it is not one of statistics; nothing in it is ever run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path_text("path", path))
        if not self.path.is_file():
            raise InputError(f"there is no file of statistics at {str(self.path)!r}")
        with self._one_kind_of_error(), closing(Archive(self.path)) as archive:
            self.about = _about(archive)

    def load(self, memory_limit: int | None = None) -> Gathered:
        """Return the statistics.

        Raises
        ------
        InputError
            The file is damaged.
        MemoryLimitError
            They take more than ``memory_limit``, or the system refuses memory for them.
        """
        needed, limit = self.about.statistic.state_nbytes, memory_limit_or_default(memory_limit)
        if needed > limit:
            raise MemoryLimitError(
                f"the statistics in {str(self.path)!r} take {format_nbytes(needed, up=True)} but ",
                Remedy("memory_limit"),
                f" is {format_nbytes(limit)}; their sums were not read",
            )
        with self._one_kind_of_error(), closing(Archive(self.path)) as archive:
            about = _about(archive)
            return _gathered(archive, about)

    def take(self) -> Gathered:
        """Return the statistics, for a plan that counts them."""
        return self.load(self.about.statistic.state_nbytes)

    @contextmanager
    def _one_kind_of_error(self) -> Iterator[None]:
        """Raise :class:`InputError`, which names the file, for all that a damaged file raises."""
        try:
            yield
        except MemoryError as error:
            raise MemoryLimitError(
                f"the system refused memory for the statistics in {str(self.path)!r}: "
                f"{str(error) or 'none is left'}; {format_nbytes(available_nbytes())} are available"
            ) from error
        # a damaged file makes json, zipfile and NumPy raise many kinds of errors
        except Exception as error:
            raise InputError(
                f"{str(self.path)!r} holds no statistics of streamreg ({type(error).__name__}: "
                f"{error}); gather them again"
            ) from error


def _about(archive: Archive) -> About:
    for name, expected in (("format", _FORMAT), ("version", _VERSION)):
        if archive.header.get(name) != expected:
            raise ValueError(f"its {name} is {archive.header.get(name)!r}, not {expected!r}")
    about = About.from_json(archive.header)
    # before memory is allocated for what a header claims
    if about.statistic.state_nbytes > archive.nbytes:
        raise ValueError(f"{archive.nbytes:,} bytes are too few for its columns")
    return about


def _gathered(archive: Archive, about: About) -> Gathered:
    d, k = about.n_features, about.n_targets
    units = Scaling(_powers(archive.read("x_units"), d), _powers(archive.read("y_units"), k))
    # NumPy and the system reserve these zeros, and take no memory for them
    expected = about.statistic.zero()
    shapes = {name: array.shape for name, array in expected._asdict().items()}
    kind = type(expected)
    del expected
    state = kind(**{name: _sums(name, archive.read(name), shape) for name, shape in shapes.items()})
    about.statistic.require_consistent(state)
    if state.n != about.n_counted or abs(state.s / about.weight_sum - 1) > _MOST_DIFFERENCE:
        raise ValueError(f"its sums are of {float(state.n):,} rows, not {about.n_counted:,}")
    return Gathered(about, state, units)


def _sums(name: str, array: Array, shape: tuple[int, ...]) -> Float64:
    if array.dtype != np.float64 or array.shape != shape:
        raise ValueError(f"its {name} is {array.dtype} {array.shape}, not float64 {shape}")
    # a line of memory at a time, because a mask of the whole array would take memory
    lines = np.atleast_2d(array.T if array.flags.f_contiguous else array)
    if not all(np.isfinite(line).all() for line in lines):
        raise ValueError(f"its {name} holds NaN or inf")
    if array.ndim > 1 and shape[0] == shape[1]:
        return np.asarray(array, order="F")
    return array


def _powers(array: Array, size: int) -> Float64:
    units = _sums("units", array, (size,))
    if not (units > 0).all() or (np.frexp(units)[0] != 0.5).any():  # noqa: PLR2004
        raise ValueError("its units are no powers of two")
    return units
