"""Sizes: parse and print them, what this process may still use, and what it did use."""

from __future__ import annotations

import os
import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from streamreg.formatting import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


_SAMPLE_SECONDS = 0.01
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIPS = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")


def usable_cpus() -> int:
    """Return the processors that this process may run on, containers' quotas kept."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min([count, *_cpu_quotas(_CGROUPS, _MEMBERSHIPS)])


def available_nbytes() -> int:
    """Return the bytes that this process may still take, bounds of containers and ulimit kept."""
    bounds = [psutil.virtual_memory().available, *_headrooms(_CGROUPS, _MEMBERSHIPS)]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        bounds.append(soft - psutil.Process().memory_info().vms)
    return max(0, int(min(bounds)))


def _cpu_quotas(root: Path, memberships: Path) -> Iterator[int]:
    """Yield the processors granted to each control group that this process lies in."""
    for group in _groups(root, memberships, "cpu"):
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        if quota.isdigit():
            yield max(1, int(quota) // int(period))


def _headrooms(root: Path, memberships: Path) -> Iterator[int]:
    """Yield the bytes left to each control group that this process lies in."""
    for group in _groups(root, memberships, "memory"):
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _read(group / limit_name), _read(group / usage_name)
            if limit is not None and limit.isdigit() and usage is not None:
                yield int(limit) - int(usage) + _page_cache_nbytes(group)


def _page_cache_nbytes(group: Path) -> int:
    """Bytes of files in memory: they count as used, but make room for whoever asks."""
    lines = (_read(group / "memory.stat") or "").splitlines()
    values = dict(line.split(maxsplit=1) for line in lines)
    # version 1 counts those of the groups within under "total_"
    names = ("inactive_file", "active_file")
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)


def _groups(root: Path, memberships: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group, and of those around it."""
    for line in (_read(memberships) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        # version 2 has one tree for all controllers, version 1 one for each
        if controllers and controller not in controllers.split(","):
            continue
        group = (root / controller if controllers else root) / path.lstrip("/")
        # in a container the path may be one of the host, and only those above it be there
        yield from (
            folder for folder in (group, *group.parents) if root in (folder, *folder.parents)
        )


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def resident_nbytes() -> int:
    """Return the bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """Measure the bytes that a block of code adds to this process at its highest.

    Resident memory is sampled every 10 ms by a thread of its own; where the process's own high
    mark rose meanwhile, that mark, which misses nothing, is used as well.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._start = self._highest = resident_nbytes()
        self._mark = _high_mark()
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._sampler.join()
        self._highest = max(self._highest, resident_nbytes())
        mark = _high_mark()
        if mark > self._mark:
            self._highest = max(self._highest, mark)

    @property
    def added_nbytes(self) -> int:
        """Bytes added at the highest moment since the block was entered."""
        return self._highest - self._start

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._highest = max(self._highest, int(process.memory_info().rss))


def _high_mark() -> int:
    """Return the most bytes that this process ever had in memory; 0 where that is not told."""
    if sys.platform == "darwin":
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # on Linux not ru_maxrss: a process inherits that of the one which started it
    lines = (_read(_STATUS) or "").splitlines()
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith("VmHWM:")), 0)
