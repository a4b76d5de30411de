"""Fits that can be gone on with: where a fit stands, on disk.

A fit is a chain of passes, and a solver that asks for them is a function of what they give. So a
checkpoint holds what the blocks of each pass were folded into, the last pass as far as it came,
and the place that the solver kept last: run again, the solver is given the same numbers without a
pass, and goes on to the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from streamreg.checkpoint.file import CheckpointFile
from streamreg.engines.base import PartialResult
from streamreg.engines.partition import LARGE_STATE_NBYTES
from streamreg.errors import DataCorruptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import Engine
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")
Place = TypeVar("Place", bound=NamedTuple)


class _Pass(NamedTuple):
    """What a pass gave, as far as it came."""

    accumulator: str
    folded: (
        PartialResult  # its state's fields are arrays, or where they are in the file if it is large
    )
    is_large: bool

    def described(self) -> dict[str, Any]:
        """Return all but the state, as JSON knows it."""
        _, n_blocks, n_omitted, rounded = self.folded
        return {
            "accumulator": self.accumulator, "n_blocks": n_blocks, "n_omitted": n_omitted,
            "rounded": sorted(rounded),
        }  # fmt: skip


class _Position(NamedTuple):
    """Where a fit stands: passes before the solver's first place, its last, and passes after it."""

    first: tuple[_Pass, ...] = ()
    place: Any = None
    later: tuple[_Pass, ...] = ()

    @property
    def current(self) -> str:
        """To which of the passes the next one belongs."""
        return "first" if self.place is None else "later"

    def passes(self) -> dict[str, _Pass]:
        """Return all passes by their names in the file."""
        return {
            f"{when}/{number}": each
            for when in ("first", "later")
            for number, each in enumerate(getattr(self, when))
        }


class Checkpoint:
    """The checkpoint of one fit; use it as a context manager around the fit.

    Parameters
    ----------
    path
        Where it stands, as for :class:`CheckpointFile`.
    identity
        All that an answer depends on, as JSON knows it: parameters and data.
    dataset
        The rows, whose files must be those that were read before.

    Raises
    ------
    InputError
        Nothing can be written there, or another fit uses it.
    CheckpointError
        What is there belongs to another fit, or is damaged.
    DataCorruptionError
        A file that was read before has changed.
    """

    def __init__(self, path: object, identity: Mapping[str, Any], dataset: Dataset) -> None:
        self.file = CheckpointFile(path, identity)
        self._dataset = dataset
        self._stamps = dataset.stamps()
        self._earlier: list[dict[str, Any]] = []  # passes that are still to be given again
        self._position = _Position()
        self._at = 0  # passes that are done, of those to which the next one belongs
        self._is_new = self._is_lost = False

    def __enter__(self) -> Self:
        self.file.open()
        try:
            if self.file.header:
                self._begin_again()
        except BaseException:
            self.file.close()
            raise
        return self

    def _begin_again(self) -> None:
        header = self.file.header
        for when in ("first", "later"):
            known = header.get(when)
            if not isinstance(known, list) or not all(map(_is_pass, known)):
                raise self.file.damaged(f"what it says of passes ({when}) makes no sense")
        self._earlier = list(header["first"])
        for name, stamps in self._stamps.items():
            stamps.values[...] = self.file.read(f"stamps/{name}", like=stamps.values)
        try:
            self._dataset.require_unchanged()
        except DataCorruptionError as error:
            error.add_note(
                f"{str(self.file.path)!r} knows files by their size and time: if they are a copy, "
                "copy them with their times (cp -p); or remove that file to start anew"
            )
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            is_saved = not self._is_new or self._save(self._position)
            if error is not None and self.file.header:
                stood = "where the fit stood" if is_saved else "where the fit stood a while ago"
                error.add_note(
                    f"{stood} is saved in {str(self.file.path)!r}: start it again with the same "
                    "data and parameters, and it goes on from there"
                )
        finally:
            self.file.close()

    @property
    def unsaved(self) -> str:
        """Why nothing was saved at all; empty if something was."""
        return "" if self.file.header else self.file.failure

    def reduce(self, engine: Engine, accumulator: Accumulator[Any, Result]) -> Result:
        """Run a pass, or what is left of it, or nothing if what it gives is known."""
        is_large = accumulator.state_nbytes > LARGE_STATE_NBYTES
        start = last = self._take(accumulator, is_large=is_large)

        def here(folded: PartialResult) -> _Position:
            return self._with(_Pass(type(accumulator).__name__, folded, is_large))

        # small states are copied, so that they can be saved at any moment
        def note(folded: PartialResult) -> None:
            nonlocal last
            last = folded
            if not is_large:
                folded = _copied(folded)
                self._position, self._is_new = here(folded), True
            if self.file.is_due:
                self._save(here(folded))

        result = engine.reduce(accumulator, start, note)
        if is_large and last is not None and last is not start and not self._has(last):
            # now or never: the solver writes to it
            self._is_lost = not self._save(here(last))
        self._at += 1
        return result

    def recall(self, place: Place) -> Place:
        """Return the place that the fit before kept last, or the one given."""
        if self._earlier or not self.file.header.get("has_place"):
            return place
        # losses of more epochs than there were at the start
        kept = place._replace(
            **{
                name: self.file.read(f"place/{name}", like=value, grows=name == "losses")
                for name, value in place._asdict().items()
            }
        )
        self._earlier, self._at = list(self.file.header["later"]), 0
        self._position = self._position._replace(place=kept)
        return kept

    def keep(self, place: NamedTuple) -> None:
        """Forget the passes between the solver's first place and this one."""
        if not self._earlier:
            self._position, self._at = _Position(self._position.first, place), 0
            self._is_lost = False

    def _take(self, accumulator: Accumulator[Any, Any], *, is_large: bool) -> PartialResult | None:
        """Return what the fit before folded in this pass, if it came so far."""
        if not self._earlier:
            return None
        known = self._earlier.pop(0)
        name = f"{self._position.current}/{self._at}"
        if known["accumulator"] != type(accumulator).__name__:
            raise self.file.damaged(f"its pass {name} is of {known['accumulator']}")
        zero = accumulator.zero()
        fields = zero._asdict().items()
        state = type(zero)(*(self.file.read(f"{name}/{each}", like=a) for each, a in fields))
        rounded = frozenset(known["rounded"])
        folded = PartialResult(state, known["n_blocks"], known["n_omitted"], rounded)
        # the engine writes to what it is given
        kept = folded if is_large else _copied(folded)
        here = self._in_file(name, _Pass(type(accumulator).__name__, kept, is_large))
        self._position = self._with(here)
        return folded

    def _has(self, folded: PartialResult) -> bool:
        """Whether just this much of the pass that is under way was saved."""
        passes = getattr(self._position, self._position.current)[self._at :]
        return any(each.folded.n_blocks == folded.n_blocks for each in passes)

    def _with(self, here: _Pass) -> _Position:
        """Return the position with what the pass that is under way gave."""
        before = getattr(self._position, self._position.current)[: self._at]
        return self._position._replace(**{self._position.current: (*before, here)})

    def _save(self, position: _Position) -> bool:
        """Write a position to the file, and have it; say whether that went well."""
        passes = position.passes()
        states = {name: each.folded.state for name, each in passes.items()}
        header: dict[str, Any] = {
            "first": [each.described() for each in position.first],
            "later": [each.described() for each in position.later],
            "has_place": position.place is not None,
        }
        if position.place is not None:
            states["place"] = position.place
        arrays = {
            f"{name}/{field}": array
            for name, state in states.items()
            for field, array in state._asdict().items()
        } | {f"stamps/{name}": stamps.values for name, stamps in self._stamps.items()}
        if self._is_lost or not self.file.save(header, arrays):
            return False
        if any(each.is_large for each in passes.values()):
            in_file = {name: self._in_file(name, each) for name, each in passes.items()}
            position = position._replace(
                first=tuple(in_file[f"first/{at}"] for at in range(len(position.first))),
                later=tuple(in_file[f"later/{at}"] for at in range(len(position.later))),
            )
        self._position, self._is_new = position, False
        return True

    def _in_file(self, name: str, each: _Pass) -> _Pass:
        """Return a pass whose state is where it was just written, if it is large."""
        if not each.is_large:
            return each
        state = each.folded.state
        fields = (self.file.stored(f"{name}/{field}") for field in state._fields)
        return each._replace(folded=each.folded._replace(state=type(state)(*fields)))


def _is_pass(known: Any) -> bool:  # noqa: ANN401  (JSON)
    """Whether this is what :meth:`_Pass.described` writes."""
    if not isinstance(known, dict) or known.keys() != {
        "accumulator", "n_blocks", "n_omitted", "rounded"
    }:  # fmt: skip
        return False
    counts = known["n_blocks"], known["n_omitted"]
    return (
        isinstance(known["accumulator"], str)
        and all(type(number) is int and number >= 0 for number in counts)
        and isinstance(known["rounded"], list)
        and all(isinstance(name, str) for name in known["rounded"])
    )


def _copied(folded: PartialResult) -> PartialResult:
    state = folded.state
    return folded._replace(state=type(state)(*(array.copy(order="K") for array in state)))
