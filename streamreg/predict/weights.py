"""The weights of a model for the columns of a data set, some targets at a time."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError
from streamreg.formatting import format_nbytes
from streamreg.planning.terms import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamreg.blocks import Float64, Int64
    from streamreg.model import Model
    from streamreg.sources.dataset import Dataset

    ReadWeights = Callable[[slice], tuple[Float64, Float64]]

_INGEST_LIKE = (
    ": predict from the table itself, or ingest it again with `streamreg ingest --like MODEL`"
)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights in the order of the columns of a data set; they are in memory, or in a Zarr array."""

    model: Model
    order: Int64 | None  # the column of the model for each column; ``None`` if it is the same
    is_sparse: bool

    @classmethod
    def of(cls, what: str, model: Model, dataset: Dataset) -> Weights:
        """Refuse rows with other columns than the model, and rows on a GPU; ``what`` is done."""
        weights = cls(model, _order(dataset, model), dataset.X.is_sparse)
        known = model.feature_names
        if weights.order is not None:
            known = dataset.feature_names
        _require_columns(model, known, dataset)
        dataset.require_on_host(f"{what} runs on the processor. Pass ")
        return weights

    @property
    def step(self) -> int:
        """Targets in a chunk of stored weights; 0 if weights are in memory."""
        return 0 if self.model.stored is None else self.model.stored.chunk_targets

    @contextmanager
    def reading(self, most: int) -> Iterator[ReadWeights]:
        """Yield a function that returns w (D, k) and b (k,) of at most ``most`` targets.

        w is valid until the next call.
        """
        model = self.model
        with ExitStack() as opened:
            rows_of: Callable[[int, int], Float64] = model.weights_of
            if model.stored is not None:
                rows_of = opened.enter_context(model.stored.reading(most))

            def read(targets: slice) -> tuple[Float64, Float64]:
                rows = rows_of(targets.start, targets.stop)
                if self.order is not None:
                    rows = rows[:, self.order]
                # the loops for sparse rows take C order; for others a view does
                w = np.ascontiguousarray(rows.T) if self.is_sparse else rows.T
                return w, model.intercept[targets]

            yield read

    def terms(self, n_targets: int) -> list[Term]:
        """Return the memory that ``reading`` takes for this many targets."""
        stored, d = self.model.stored, self.model.n_features
        copies = (stored is not None) + (self.order is not None) + self.is_sparse
        why = f"{n_targets:,} × {d:,} × 8 bytes"  # noqa: RUF001
        if copies > 1:
            why += f", {copies} copies"
        terms = [Term("weights", copies * 8 * d * n_targets, why)]
        if stored is not None:
            chunk = format_nbytes(stored.reader_nbytes)
            terms.append(Term("weights read", stored.reader_nbytes, f"a chunk: {chunk}"))
        return terms


def _order(dataset: Dataset, model: Model) -> Int64 | None:
    """Return the model's columns in the order of a data set that was made of a table.

    A column of levels with another baseline is an ``InputError``, because its zeros mean another
    level.
    """
    if model.schema is None or dataset.schema is None or model.schema == dataset.schema:
        return None
    known = {feature.name: feature for feature in model.schema.features}
    for feature in dataset.schema.features:
        mine = known.get(feature.name, feature)
        if feature.hashing != mine.hashing:
            raise InputError(
                f"column {feature.name} of {dataset.X.name} was hashed otherwise than the model's"
                f"{_INGEST_LIKE}"
            )
        if feature.names == mine.names and feature != mine:
            raise InputError(
                f"column {feature.name} of {dataset.X.name} has the baseline "
                f"{(feature.levels or ('',))[0]!r}, but the model was fitted with "
                f"{(mine.levels or ('',))[0]!r}{_INGEST_LIKE}"
            )
    if set(known.values()) != set(dataset.schema.features):
        return None
    mine_at = dict(zip(known, model.schema.places, strict=True))
    order = np.empty(dataset.schema.n_columns, np.int64)
    for feature, place in zip(dataset.schema.features, dataset.schema.places, strict=True):
        at = np.arange(feature.n_columns)
        order[place + at] = mine_at[feature.name] + at
    return None if np.array_equal(order, np.arange(len(order))) else order


def _require_columns(model: Model, known: tuple[str, ...] | None, dataset: Dataset) -> None:
    """Refuse rows with other columns than the model, whose columns are ``known`` by these names."""
    given = dataset.feature_names
    if dataset.n_features != model.n_features:
        which = ""
        if given is not None and known is not None:
            which = (
                f". {dataset.X.name} lacks {_beyond(known, given)} of the model, and has "
                f"{_beyond(given, known)} that the model does not know. Pass the columns of the "
                "fit, in their order"
            )
            if dataset.schema is not None:
                which += _INGEST_LIKE
        # the first sentence is scikit-learn's
        raise InputError(
            f"X has {dataset.n_features} features, but LinearRegression is expecting "
            f"{model.n_features} features as input{which}"
        )
    if given is not None and known is not None and given != known:
        j = next(j for j in range(len(known)) if given[j] != known[j])
        raise InputError(
            f"column {j} of {dataset.X.name} is {given[j]!r}, but the model was fitted with "
            f"{known[j]!r} in its place; bring the columns into the order of the fit"
            f"{_INGEST_LIKE if dataset.schema is not None else ''}"
        )


def _beyond(columns: Sequence[str], others: Sequence[str]) -> str:
    known = set(others)
    names = [repr(name) for name in columns if name not in known]
    more = f" and {len(names[3:]):,} more" if names[3:] else ""
    return ", ".join(names[:3]) + more if names else "no column"
