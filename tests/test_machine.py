"""CPUs and memory that a process may use, and the memory that it did use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from streamreg.formatting import GIB, MIB
from streamreg.machine import PeakMemory, available_nbytes, usable_cpus

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is set on Linux")
def test_affinity_limits_the_cpus():
    program = (
        "import os; from streamreg.machine import usable_cpus\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(usable_cpus())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(out.stdout) == 1


def test_this_process_may_use_a_cpu_and_some_memory():
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert 0 < available_nbytes() < 2**60


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
def test_an_address_space_limit_is_respected():
    program = (
        "import resource; from streamreg.formatting import *; from streamreg.machine import *\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 * GIB, 8 * GIB))\n"
        "print(available_nbytes())"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(out.stdout) < 8 * GIB


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_every_control_group_that_contains_the_process_limits_memory(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    memberships.write_text("0::/slice/job\n")
    _group(root / "slice", memory__max="1000", memory__current="300")
    _group(root / "slice/job", memory__max="max", memory__current="200")
    assert available_nbytes(root, memberships) == 700


def test_cached_files_of_a_container_count_as_available(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    # in Docker the group of the container is the root
    memberships.write_text("0::/\n")
    stat = "anon 100\nfile 850\ninactive_file 500\nactive_file 300"
    _group(root, memory__max="1000", memory__current="950", memory__stat=stat)
    assert available_nbytes(root, memberships) == 850


def test_control_groups_of_version_1_limit_memory(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    memberships.write_text("5:cpu,cpuacct:/\n4:memory:/host/path/docker/abc\n0::/\n")
    stat = "inactive_file 1\ntotal_inactive_file 40\ntotal_active_file 2"
    _group(
        root / "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="900",
        memory__stat=stat,
    )
    assert available_nbytes(root, memberships) == 142


def test_memory_is_available_without_control_groups(tmp_path):
    assert available_nbytes(tmp_path, tmp_path / "absent") > 0


def test_peak_memory_includes_an_array_that_lives_shorter_than_a_sampling_interval():
    program = (
        "import numpy as np; from streamreg.formatting import *; from streamreg.machine import *\n"
        "with PeakMemory() as peak: np.ones(64 * MIB // 8)\n"
        "print(peak.added_nbytes)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 60 * MIB < int(out.stdout) < 80 * MIB


def test_peak_memory_excludes_what_was_allocated_before():
    before = np.ones(64 * MIB // 8)
    with PeakMemory() as peak:
        pass
    assert peak.added_nbytes < 16 * MIB
    del before


def test_peak_memory_is_sampled_below_the_high_water_mark():
    # in a new process, because this one may free other memory meanwhile
    program = """
import time
import numpy as np
from streamreg.machine import PeakMemory
highest = np.ones(16 << 20)
del highest
with PeakMemory() as peak:
    block = np.ones(8 << 20)
    while peak.added_nbytes < 60 << 20:
        time.sleep(0.001)  # until the sampler has seen the block
    del block
print(peak.added_nbytes)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 60 * MIB < int(out.stdout) < 80 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is inherited on Linux")
def test_the_high_water_mark_is_not_inherited_from_the_parent():
    program = "from streamreg.machine import _high_mark; print(_high_mark())"
    large = np.ones(256 * MIB // 8)
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(out.stdout) < large.nbytes


def test_peak_memory_stops_its_thread_after_an_error():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), PeakMemory() as peak:
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert peak.added_nbytes >= 0
