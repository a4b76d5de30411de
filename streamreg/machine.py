"""CPUs and memory that this process may use, and the memory that it did use."""

from __future__ import annotations

import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from streamreg.formatting import KIB

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAMPLE_SECONDS = 0.01
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIPS = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")


def usable_cpus() -> int:
    """Return the CPUs that affinity and the quota of a container allow this process."""
    from joblib import cpu_count  # noqa: PLC0415  (0.1 s, which `import streamreg` need not take)

    return int(cpu_count())


def available_nbytes(cgroups: Path = _CGROUPS, memberships: Path = _MEMBERSHIPS) -> int:
    """Return the bytes that the system, containers and ``ulimit`` still leave to this process."""
    bounds = [psutil.virtual_memory().available, *_headrooms(cgroups, memberships)]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        bounds.append(soft - psutil.Process().memory_info().vms)
    return max(0, int(min(bounds)))


def memory_limit_or_default(memory_limit: int | None) -> int:
    """Return the limit in bytes; by default half of what the process may still use."""
    return available_nbytes() // 2 if memory_limit is None else memory_limit


def _headrooms(root: Path, memberships: Path) -> Iterator[int]:
    """Yield the bytes left to each control group that contains this process."""
    for group in _groups(root, memberships):
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _read(group / limit_name), _read(group / usage_name)
            if limit is not None and limit.isdigit() and usage is not None:
                yield int(limit) - int(usage) + _page_cache_nbytes(group)


def _page_cache_nbytes(group: Path) -> int:
    """Bytes of cached files: they count as used, but the system frees them on demand."""
    lines = (_read(group / "memory.stat") or "").splitlines()
    values = dict(line.split(maxsplit=1) for line in lines)
    # cgroup v1 counts nested groups only under "total_"
    names = ("inactive_file", "active_file")
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)


def _groups(root: Path, memberships: Path) -> Iterator[Path]:
    """Yield the folders of this process's control group and of the groups that contain it."""
    for line in (_read(memberships) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        # cgroup v2 has one tree for all controllers, cgroup v1 one tree for each
        if controllers and "memory" not in controllers.split(","):
            continue
        group = (root / "memory" if controllers else root) / path.lstrip("/")
        # a container may show the path on the host, of which only parents exist in the container
        yield from (
            folder for folder in (group, *group.parents) if root in (folder, *folder.parents)
        )


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def resident_nbytes() -> int:
    """Return the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """Measure the peak of the bytes that a block of code adds to this process.

    A thread samples resident memory every 10 ms. The system's high-water mark of the process misses
    no peak; it is used if it rises in the block.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._start = self._highest = resident_nbytes()
        self._mark = _high_mark()
        self._sampler.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._sampler.join()
        mark = _high_mark()
        self._highest = max(self._highest, resident_nbytes(), mark if mark > self._mark else 0)

    @property
    def added_nbytes(self) -> int:
        """The peak so far, minus the bytes at the start of the block."""
        return self._highest - self._start

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._highest = max(self._highest, resident_nbytes())


def _high_mark() -> int:
    """Return the peak resident memory of this process; 0 where the system does not say."""
    if sys.platform == "darwin":
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # on Linux, ru_maxrss is no use, because a process inherits that of its parent
    lines = (_read(_STATUS) or "").splitlines()
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith("VmHWM:")), 0)
