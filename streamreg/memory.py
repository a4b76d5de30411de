"""Sizes: parse and print them, what this process may still use, and what it did use."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from streamreg.errors import InputError

if TYPE_CHECKING:
    from types import TracebackType

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_UNITS = {
    "": 1, "b": 1,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024**4,
    "k": KIB, "m": MIB, "g": GIB, "t": 1024**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*")
_SAMPLE_SECONDS = 0.01


def parse_nbytes(size: int | str, *, name: str = "memory_limit") -> int:
    """Return the bytes that ``size`` says: a count, or text such as ``"512 MiB"``.

    Raises
    ------
    InputError
        ``size`` is neither, or is not positive.
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise InputError(
                f"{name}={size!r} is not a size; write bytes as a number, "
                'or a text such as "512 MiB" or "2 GB"'
            )
        nbytes = int(float(match[1]) * unit)
    else:
        if isinstance(size, bool) or not isinstance(size, int | float) or size != size // 1:
            raise InputError(f'{name}={size!r} is not a size; pass bytes or a text like "512 MiB"')
        nbytes = int(size)
    if nbytes <= 0:
        raise InputError(f"{name}={size!r} must be more than zero bytes")
    return nbytes


def format_nbytes(nbytes: float) -> str:
    """Return a size for people: ``74.5 GiB``, ``122.1 MiB``, ``800 bytes``."""
    if nbytes < KIB:
        return f"{int(nbytes)} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        nbytes /= 1024
        # 1023.95 would print as 1024.0
        if nbytes < 1023.95:  # noqa: PLR2004
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1024:,.1f} PiB"


def available_nbytes() -> int:
    """Return the bytes that this process may still take, containers' and ``ulimit``'s bounds kept."""
    bounds = [psutil.virtual_memory().available, *_cgroup_headroom()]
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  (POSIX only)

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            bounds.append(soft - psutil.Process().memory_info().vms)
    return max(0, min(bounds))


def _cgroup_headroom() -> list[int]:
    """Bytes left under each memory limit of this process's control group (v2, then v1)."""
    root = Path("/sys/fs/cgroup")
    pairs = [
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ]
    headroom = []
    for limit_file, usage_file in pairs:
        try:
            limit, usage = limit_file.read_text().strip(), usage_file.read_text().strip()
        except OSError:
            continue
        if limit.isdigit():
            headroom.append(int(limit) - int(usage))
    return headroom


def resident_nbytes() -> int:
    """Return the bytes of this process that are in memory now."""
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """Measure the bytes that a block of code adds to this process at its highest.

    Resident memory is sampled every 10 ms by a thread of its own; where the process's own high
    mark (``ru_maxrss``) rose meanwhile, that mark, which misses nothing, is used as well.
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
    """The most bytes that this process ever had in memory; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415  (POSIX only)

    unit = 1 if sys.platform == "darwin" else KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def usable_cpus() -> int:
    """Return the processors that this process may run on, containers' quotas kept."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    if quota.isdigit():
        count = min(count, max(1, int(quota) // int(period)))
    return count
