"""The checkpoint of an unfinished fit, from which the fit can be resumed.

A fit is a chain of passes, and what a solver does is a function of their results. A checkpoint
therefore holds the partial results of passes and the last iterate that the solver saved. A resumed
fit runs the solver again: it gets the same numbers without a pass, and continues to bitwise
identical answers.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from streamreg.checkpoint.file import CheckpointFile
from streamreg.engines.base import PartialResult
from streamreg.errors import CheckpointError, DataCorruptionError, Parameter, Part
from streamreg.solvers.base import IterateStore
from streamreg.sources.fingerprint import identity as rows_identity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import Engine, Reduction
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")
Iterate = TypeVar("Iterate", bound=NamedTuple)


class _Pass(NamedTuple):
    """The partial result of one pass."""

    accumulator: str
    partial: PartialResult  # a large state's fields are references to arrays in the file
    is_large: bool

    def described(self) -> dict[str, Any]:
        """Return all fields but the state, as JSON values."""
        partial = self.partial
        return {
            "accumulator": self.accumulator,
            "n_blocks": partial.n_blocks,
            "n_rows": partial.n_rows,
            # because JSON has no infinity
            "weight_sum": float(partial.weight_sum).hex(),
            "log_weight_sum": float(partial.log_weight_sum).hex(),
            "n_omitted": partial.n_omitted,
            "rounded": sorted(partial.rounded),
        }

    @classmethod
    def parse(cls, known: dict[str, Any]) -> _Pass:
        """Return the pass that ``known`` describes, without state; damage raises any exception."""
        names = ("n_blocks", "n_rows", "n_omitted")
        n_blocks, n_rows, n_omitted = (operator.index(known[name]) for name in names)
        weight_sum = float.fromhex(known["weight_sum"])
        if not weight_sum >= 0 or min(n_blocks, n_rows, n_omitted) < 0:
            raise ValueError("a number is negative")
        logarithms = float.fromhex(known["log_weight_sum"])
        rounded = frozenset(known["rounded"])
        if not isinstance(known["rounded"], list) or not all(type(name) is str for name in rounded):
            raise TypeError("it is not a list of texts")
        counts = n_blocks, n_rows, weight_sum, n_omitted
        partial = PartialResult(None, *counts, rounded, logarithms)
        return cls(known["accumulator"], partial, is_large=False)


class Checkpoint(IterateStore):
    """The checkpoint of one fit; use it as a context manager around the fit.

    Entering the context raises what :meth:`CheckpointFile.open` raises, ``CheckpointError`` if the
    file belongs to another fit, and ``DataCorruptionError`` if data that were read have changed.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], dataset: Dataset) -> None:
        data = {name: rows_identity(source) for name, source in dataset.named().items()}
        self.file = CheckpointFile(path, {**identity, "data": data})
        self._dataset = dataset
        self._stamps = dataset.stamps()
        # the passes before the first iterate, and those after the last
        self._passes: dict[str, list[_Pass]] = {"first": [], "later": []}
        # the saved ones that are not yet used, without their states
        self._saved: dict[str, list[_Pass]] = {"first": [], "later": []}
        self._iterate: NamedTuple | None = None
        self._n_done = 0  # complete passes of the present list, "first" or "later"
        self._is_new = self._is_lost = False

    def __enter__(self) -> Self:
        self.file.open()
        try:
            if self.file.header:
                self._resume()
        except BaseException:
            self.file.close()
            raise
        return self

    def _require_same_fit(self) -> None:
        differences: list[Part] = []
        header = self.file.header
        for name, then, now in _differences(header.get("identity"), self.file.identity):
            differences += ["; ", name, f" was {then!r} and is {now!r}"]
        if differences:
            raise CheckpointError(
                f"{self.file.name} is of another fit: ",
                *differences[1:],
                ". Fit with the same data and parameters, pass another path, or remove it and "
                f"{self.file.previous.name!r} to start over",
            )

    def _resume(self) -> None:
        self._require_same_fit()
        for when in self._saved:
            try:
                self._saved[when] = [_Pass.parse(known) for known in self.file.header[when]]
            except (KeyError, OverflowError, TypeError, ValueError) as error:
                raise self.file.damaged(f"its list of passes ({when}) is malformed") from error
        for name, stamps in self._stamps.items():
            stamps.values[...] = self.file.read(f"stamps/{name}", like=stamps.values)
        try:
            self._dataset.require_unchanged()
        except DataCorruptionError as error:
            error.add_note(
                f"{str(self.file.path)!r} identifies files by their size and time: if they are a "
                "copy, copy them with their times (cp -p); or remove that file to start over"
            )
            raise

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            is_saved = not self._is_new or self._save(self._passes)
            if error is not None and self.file.header:
                state = "The state of the fit" if is_saved else "An earlier state of the fit"
                error.add_note(
                    f"{state} is saved in {str(self.file.path)!r}: start it again with the same "
                    "data and parameters to resume"
                )
        finally:
            self.file.close()

    def error_if_unsaved(self) -> CheckpointError | None:
        """Return the error for a fit that is done but of which nothing could be saved, if so."""
        if self.file.header or not self.file.failure:
            return None
        return CheckpointError(
            f"the fit is done and its answer is valid, but nothing of it could be saved to "
            f"{self.file.name}: {self.file.failure}. Pass a path on a disk with room, or no "
            "checkpoint"
        )

    def reduce(self, engine: Engine, accumulator: Accumulator[Any, Result]) -> Reduction[Result]:
        """Run a pass, or the rest of it, or nothing if its result is saved."""
        is_large = engine.policy.is_large(accumulator.state_nbytes)
        start = last = saved = self._take(accumulator, is_large=is_large)

        def passes(partial: PartialResult) -> dict[str, list[_Pass]]:
            return self._with(_Pass(type(accumulator).__name__, partial, is_large))

        # small states are copied, so that they can be saved at any moment
        def on_partial(partial: PartialResult) -> None:
            nonlocal last, saved
            last = partial
            if not is_large:
                partial = partial.copied()
                self._passes, self._is_new = passes(partial), True
            if self.file.is_due and self._save(passes(partial)):
                saved = last

        reduction = engine.reduce(accumulator, start, on_partial)
        if is_large and last is not None and last is not saved:
            # now, because the solver overwrites the state
            self._is_lost = not self._save(passes(last))
        self._n_done += 1
        return reduction

    def load(self, iterate: Iterate) -> Iterate:
        """Return the last saved iterate, or the given one if none was saved."""
        if self._saved["first"] or not self.file.header.get("has_iterate"):
            return iterate
        # the saved list of losses is longer than the given one, and others begin empty
        saved = iterate._replace(
            **{
                name: self.file.read(
                    f"iterate/{name}", like=value, grows=name == "losses" or value.shape[:1] == (0,)
                )
                for name, value in iterate._asdict().items()
            }
        )
        self._iterate, self._n_done = saved, 0
        return saved

    def save(self, iterate: NamedTuple) -> None:
        """Save an iterate; passes between the first iterate and this one are not needed."""
        if not self._saved[self._when]:
            self._iterate, self._n_done, self._is_lost = iterate, 0, False
            self._passes = self._passes | {"later": []}

    def _take(self, accumulator: Accumulator[Any, Any], *, is_large: bool) -> PartialResult | None:
        """Return the saved partial result of this pass, if there is one."""
        if not self._saved[self._when]:
            return None
        known = self._saved[self._when].pop(0)
        name = f"{self._when}/{self._n_done}"
        if known.accumulator != type(accumulator).__name__:
            raise self.file.damaged(f"its pass {name} is of {known.accumulator}")
        zero = accumulator.zero()
        like = zero._asdict()
        arrays = {each: self.file.read(f"{name}/{each}", like=like[each]) for each in like}
        partial = known.partial._replace(state=zero._replace(**arrays))
        # the engine writes to what it gets
        own = partial if is_large else partial.copied()
        saved = self._in_file(name, _Pass(type(accumulator).__name__, own, is_large))
        self._passes = self._with(saved)
        return partial

    @property
    def _when(self) -> str:
        return "first" if self._iterate is None else "later"

    def _with(self, present: _Pass) -> dict[str, list[_Pass]]:
        """Return the passes with the partial result of the present one."""
        done = self._passes[self._when][: self._n_done]
        return self._passes | {self._when: [*done, present]}

    def _save(self, passes: dict[str, list[_Pass]]) -> bool:
        """Write passes and the iterate to the file; return whether that succeeded."""
        header: dict[str, Any] = {
            when: [each.described() for each in group] for when, group in passes.items()
        } | {"has_iterate": self._iterate is not None}
        states = {
            f"{when}/{at}": each.partial.state
            for when, group in passes.items()
            for at, each in enumerate(group)
        }
        if self._iterate is not None:
            states["iterate"] = self._iterate
        arrays = {
            f"{name}/{field}": array
            for name, state in states.items()
            for field, array in state._asdict().items()
        } | {f"stamps/{name}": stamps.values for name, stamps in self._stamps.items()}
        if self._is_lost or not self.file.save(header, arrays):
            return False
        self._passes = {
            when: [self._in_file(f"{when}/{at}", each) for at, each in enumerate(group)]
            for when, group in passes.items()
        }
        self._is_new = False
        return True

    def _in_file(self, name: str, each: _Pass) -> _Pass:
        """Return a pass whose large state is replaced by references to the file."""
        if not each.is_large:
            return each
        state = each.partial.state
        fields = (self.file.stored(f"{name}/{field}") for field in state._fields)
        return each._replace(partial=each.partial._replace(state=type(state)(*fields)))


def _differences(then: Any, now: Any, name: Part = "") -> list[tuple[Part, Any, Any]]:  # noqa: ANN401
    """Return what differs between two JSON documents: its name, and both values."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [] if then == now else [(name or "all", then, now)]
    found = []
    for key in sorted({*then, *now}):
        label = Parameter(key) if name == "parameters" else f"{name} {key}".strip()
        found += _differences(then.get(key), now.get(key), label)
    return found
