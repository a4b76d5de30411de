"""What statistics are of: their columns, their rows and where these came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from streamreg.errors import InputError
from streamreg.formatting import column_names, count, target_names
from streamreg.model import names_from_json, schema_from_json
from streamreg.solvers.registry import SOLVER_OF_KIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.schema import Schema
    from streamreg.solvers.factor_solver import FactorSolver


class Piece(NamedTuple):
    """Rows of one source."""

    source: str  # its name, with its path if it has one
    n_rows: int  # rows that were read, with those left out


@dataclass(frozen=True)
class About:
    """All that is known of statistics without their sums."""

    kind: str  # a key of ``SOLVER_OF_KIND``
    n_features: int  # D
    n_targets: int  # K
    has_one_target: bool  # whether y was (N,)
    n_counted: int  # rows that count: neither left out nor of weight 0
    weight_sum: float  # Σ sᵢ of these rows
    log_weight_sum: float  # Σ log sᵢ of these rows
    n_omitted: int  # rows left out for NaN or inf
    is_weighted: bool
    pieces: tuple[Piece, ...]
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    schema: Schema | None = None

    @property
    def n_rows(self) -> int:
        """N, with rows that were left out."""
        return sum(piece.n_rows for piece in self.pieces)

    @property
    def solver(self) -> type[FactorSolver]:
        """The solver that takes these statistics."""
        return SOLVER_OF_KIND[self.kind]

    @property
    def statistic(self) -> SecondMoments[Any]:
        """What makes, merges and finalises the state."""
        return self.solver.statistic(self.n_features, self.n_targets)

    def followed_by(self, later: About) -> About:
        """Return what the statistics of these rows and the later ones are of.

        Raises
        ------
        InputError
            They are of another kind, or of other columns or targets: the message names the first.
        """
        if self.kind != later.kind:
            raise InputError(
                f"statistics of kind {self.kind!r} and {later.kind!r} cannot be merged; gather "
                "both with the same kind"
            )
        _require_same("column", "feature", self, later)
        _require_same("target", "target", self, later)
        _require_same_levels(self.schema, later.schema)
        return replace(
            self,
            n_counted=self.n_counted + later.n_counted,
            weight_sum=self.weight_sum + later.weight_sum,
            log_weight_sum=self.log_weight_sum + later.log_weight_sum,
            n_omitted=self.n_omitted + later.n_omitted,
            is_weighted=self.is_weighted or later.is_weighted,
            pieces=_joined(self.pieces, later.pieces),
            feature_names=self.feature_names or later.feature_names,
            target_names=self.target_names or later.target_names,
            schema=self.schema or later.schema,
        )

    def selected(self, columns: Sequence[int], targets: Sequence[int]) -> About:
        """Return what the statistics of some columns and targets are of.

        The schema stays if all columns of X are selected, in their order.
        """
        known, known_targets = self.feature_names, self.target_names
        is_whole = list(columns) == list(range(self.n_features))
        is_whole = is_whole and list(targets) == list(range(self.n_targets))
        return replace(
            self,
            n_features=len(columns),
            n_targets=len(targets),
            feature_names=None if known is None else tuple(known[j] for j in columns),
            target_names=None
            if known_targets is None
            else tuple(known_targets[k] for k in targets),
            schema=self.schema if is_whole else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all this as JSON values."""
        return {
            **vars(self),
            "pieces": [list(piece) for piece in self.pieces],
            "schema": None if self.schema is None else self.schema.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return what :meth:`to_json` wrote; ``ValueError`` or ``KeyError`` if it is not that."""
        kind = document["kind"]
        if kind not in SOLVER_OF_KIND:
            raise ValueError(f"its kind is {kind!r}, not one of {', '.join(SOLVER_OF_KIND)}")
        least = {"n_features": 1, "n_targets": 1, "n_counted": 1, "n_omitted": 0}
        whole = {name: _whole(name, document[name], value) for name, value in least.items()}
        weight_sum = _finite("weight_sum", document["weight_sum"])
        one, is_weighted = document["has_one_target"], document["is_weighted"]
        if not (isinstance(one, bool) and isinstance(is_weighted, bool)):
            raise ValueError(f"has_one_target={one!r}, is_weighted={is_weighted!r}")  # noqa: TRY004
        if weight_sum <= 0 or (one and whole["n_targets"] > 1):
            raise ValueError(f"its weight_sum is {weight_sum!r}, has_one_target={one!r}")
        pieces = document["pieces"]
        if not isinstance(pieces, list) or not pieces:
            raise ValueError("it lists no pieces")
        about = cls(
            kind=kind,
            **whole,
            weight_sum=weight_sum,
            log_weight_sum=_finite("log_weight_sum", document["log_weight_sum"]),
            has_one_target=one,
            is_weighted=is_weighted,
            pieces=tuple(map(_piece, pieces)),
            feature_names=names_from_json(
                document["feature_names"], whole["n_features"], "feature"
            ),
            target_names=names_from_json(document["target_names"], whole["n_targets"], "target"),
            schema=schema_from_json(document["schema"], whole["n_features"]),
        )
        if about.n_counted + about.n_omitted > about.n_rows:
            raise ValueError(f"its pieces have {about.n_rows:,} rows, fewer than it counts")
        return about


def _joined(pieces: tuple[Piece, ...], later: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Return all pieces; consecutive ones of the same name are one: batches have no names."""
    joined = list(pieces)
    for piece in later:
        if joined[-1].source == piece.source:
            joined[-1] = piece._replace(n_rows=joined[-1].n_rows + piece.n_rows)
        else:
            joined.append(piece)
    return tuple(joined)


def _require_same(what: str, names: str, first: About, second: About) -> None:
    """Refuse other columns, or targets, by the first difference."""
    size, other_size = getattr(first, f"n_{names}s"), getattr(second, f"n_{names}s")
    mine, theirs = getattr(first, f"{names}_names"), getattr(second, f"{names}_names")
    if mine is not None and theirs is not None:
        for j, (name, other) in enumerate(zip(mine, theirs, strict=False)):
            if name != other:
                raise InputError(
                    f"{what} {j} is {name!r} in the first statistics and {other!r} in the second; "
                    "gather both with the same columns in the same order"
                )
    if size == other_size:
        return
    text = f"the first statistics have {count(size, what)} and the second {other_size:,}"
    listed = column_names if names == "feature" else target_names
    longer, at = (first, other_size) if size > other_size else (second, size)
    known = getattr(longer, f"{names}_names")
    if known is not None:
        text += f"; {listed(known, len(known))[at]!r} is in one of them only"
    raise InputError(text)


def _require_same_levels(first: Schema | None, second: Schema | None) -> None:
    """Refuse tables in which the zeros of a one-hot column mean different levels."""
    if first is None or second is None:
        return
    for mine, theirs in zip(first.features, second.features, strict=False):
        if mine != theirs:
            raise InputError(
                f"column {mine.name!r} of the first statistics has the baseline "
                f"{(mine.levels or ('',))[0]!r}, and {theirs.name!r} of the second "
                f"{(theirs.levels or ('',))[0]!r}; read the second table with the schema of the "
                "first: like"
            )


def _piece(document: object) -> Piece:
    if not isinstance(document, list) or len(document) != 2 or not isinstance(document[0], str):  # noqa: PLR2004
        raise ValueError("a piece is not a name and a number of rows")
    return Piece(document[0], _whole("number of rows", document[1], 0))


def _whole(name: str, value: object, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"its {name} is {value!r}")
    return value


def _finite(name: str, value: object) -> float:
    if type(value) not in {int, float} or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"its {name} is {value!r}")
    return float(value)  # type: ignore[arg-type]
