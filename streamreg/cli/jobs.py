"""What ``plan`` and ``fit`` work on: rows, or a file of statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from streamreg.cli.options import dataset_of
from streamreg.errors import InputError
from streamreg.fitting.fit import fit_dataset
from streamreg.fitting.plan import plan_fit
from streamreg.statistics.file import SUFFIX, StoredStatistics
from streamreg.statistics.fit import fit_gathered, plan_gathered

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.fitting.result import Described, Fit
    from streamreg.planning.plan import Plan
    from streamreg.progress import Progress
    from streamreg.sources.dataset import Dataset


class Job(Protocol):
    """Data and parameters."""

    @property
    def described(self) -> Described:
        """What a model keeps of the data."""

    @property
    def advice_for_many_passes(self) -> str:
        """What to do first if a solver takes many passes; empty if nothing pays."""

    def plan(self) -> Plan:
        """Plan the fit; reads metadata only."""

    def fit(self, progress: Progress) -> Fit:
        """Fit."""


@dataclass(frozen=True)
class RowsJob:
    """A fit of rows."""

    described: Dataset
    config: FitConfig

    @property
    def advice_for_many_passes(self) -> str:
        """That of X."""
        return self.described.X.advice_for_many_passes

    def plan(self) -> Plan:
        """Plan the fit."""
        return plan_fit(self.described, self.config)

    def fit(self, progress: Progress) -> Fit:
        """Read the rows in passes."""
        return fit_dataset(self.described, self.config, progress)


@dataclass(frozen=True)
class StatisticsJob:
    """A fit of statistics in a file."""

    stored: StoredStatistics
    config: FitConfig
    advice_for_many_passes: str = ""

    @property
    def described(self) -> Described:
        """What the statistics are of."""
        return self.stored.about

    def plan(self) -> Plan:
        """Plan the fit, from what the file says of its sums."""
        return plan_gathered(self.stored.about, self.config)

    def fit(self, progress: Progress) -> Fit:
        """Load the sums, which the solver overwrites."""
        return fit_gathered(self.stored, self.config, progress)


def is_statistics(data: object) -> bool:
    """Whether DATA names a file of statistics; the file may be damaged, or absent."""
    return isinstance(data, str) and data.endswith(SUFFIX) and not Path(data).is_dir()


def job_of(config: FitConfig, data: object, *others: str | None) -> Job:
    """Open DATA, or ``others``: --x, --y, --sample-weight and --groups."""
    if not is_statistics(data):
        return RowsJob(dataset_of(config, data, *others), config)  # type: ignore[arg-type]
    for name, other in zip(("x", "y", "sample-weight", "groups"), others, strict=True):
        if other is not None:
            raise InputError(f"--{name} is of rows, and {data} holds statistics: leave it out")
    return StatisticsJob(StoredStatistics(str(data)), config)
