"""Sizes as text, what a process may still use, and what it did use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamreg import machine
from streamreg.errors import InputError
from streamreg.formatting import GIB, KIB, MIB, format_nbytes
from streamreg.machine import PeakMemory, available_nbytes, usable_cpus
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        (1, 1),
        (10**30, 10**30),
        (2048.0, 2048),
        (np.int64(7), 7),
        ("512 MiB", 512 * MIB),
        ("512MiB", 512 * MIB),
        (" 2 gib ", 2 * GIB),
        ("2 GB", 2 * 10**9),
        ("2g", 2 * GIB),
        ("1.5 KiB", 1536),
        (".5 KiB", 512),
        ("7", 7),
        ("800 bytes", 800),
        ("1 byte", 1),
        ("1 B", 1),
        ("3 EiB", 3 * 2**60),
        # more digits than a float holds, and more than it reaches
        ("9007199254740993", 9007199254740993),
        ("1" + 400 * "0" + " EB", 10**418),
    ],
)
def test_sizes_are_read(size, nbytes):
    assert parse_nbytes(size) == nbytes


@pytest.mark.parametrize(
    "size",
    [
        "4 GBB", "", " ", "GiB", "-1 GiB", "1e3 GiB", "1,024 MiB", "1.2.3 GiB", "½ GiB", "٣ GiB",
        "inf", "nan", 0.5, float("nan"), float("inf"), True, None, [1], np.ones(2),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(size):
    with pytest.raises(InputError, match=r"memory_limit=.* is not a size; .*512 MiB"):
        parse_nbytes(size)


@pytest.mark.parametrize("size", [0, -5, "0 GiB", "0.1 bytes"])
def test_a_size_must_be_positive(size):
    with pytest.raises(InputError, match="more than zero"):
        parse_nbytes(size)


def test_the_parameter_is_named():
    with pytest.raises(InputError, match=r"chunk_size='a'"):
        parse_nbytes("a", name="chunk_size")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (KIB, "1.0 KiB"),
        (8 * 100_000**2, "74.5 GiB"),
        (128_000_000, "122.1 MiB"),
        # 1023.97 KiB would print as 1024.0
        (MIB - 30, "1.0 MiB"),
        (8 * 10**20, "693.9 EiB"),
        (10**400, None),
    ],
)
def test_sizes_are_printed(nbytes, text):
    assert format_nbytes(nbytes) == text if text else format_nbytes(nbytes).endswith(" EiB")


@given(st.integers(1, 10**25))
def test_what_is_printed_is_read_back_to_the_digit_that_is_shown(nbytes):
    assert parse_nbytes(format_nbytes(nbytes)) == pytest.approx(nbytes, rel=0.05)
    shown = parse_nbytes(format_nbytes(nbytes, up=True))
    assert nbytes <= shown <= nbytes * 1.1


def test_a_process_may_use_something():
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


def test_every_control_group_around_the_process_counts(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    memberships.write_text("0::/slice/job\n")
    _group(root / "slice", memory__max="1000", memory__current="300", cpu__max="250000 100000")
    _group(root / "slice/job", memory__max="max", memory__current="200", cpu__max="max 100000")
    assert list(machine._headrooms(root, memberships)) == [700]
    assert list(machine._cpu_quotas(root, memberships)) == [2]


def test_files_in_memory_make_room_in_a_container(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    # as docker shows it: the container's own group is the top
    memberships.write_text("0::/\n")
    stat = "anon 100\nfile 850\ninactive_file 500\nactive_file 300"
    _group(root, memory__max="1000", memory__current="950", memory__stat=stat)
    assert list(machine._headrooms(root, memberships)) == [850]


def test_control_groups_of_the_first_version(tmp_path):
    root, memberships = tmp_path / "cgroup", tmp_path / "membership"
    memberships.write_text("5:cpu,cpuacct:/\n4:memory:/host/path/docker/abc\n0::/\n")
    stat = "inactive_file 1\ntotal_inactive_file 40\ntotal_active_file 2"
    _group(
        root / "memory", memory__limit_in_bytes="1000", memory__usage_in_bytes="900",
        memory__stat=stat,
    )  # fmt: skip
    assert list(machine._headrooms(root, memberships)) == [142]


def test_no_control_groups(tmp_path):
    assert list(machine._headrooms(tmp_path, tmp_path / "absent")) == []


def test_peak_memory_sees_what_was_freed_before_it_could_be_sampled():
    program = (
        "import numpy as np; from streamreg.formatting import *; from streamreg.machine import *\n"
        "with PeakMemory() as peak: np.ones(64 * MIB // 8)\n"
        "print(peak.added_nbytes)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 60 * MIB < int(out.stdout) < 80 * MIB


def test_peak_memory_counts_from_where_it_began():
    kept = np.ones(64 * MIB // 8)
    with PeakMemory() as peak:
        pass
    assert peak.added_nbytes < 16 * MIB
    del kept


def test_peak_memory_is_seen_below_the_high_mark_of_the_process():
    highest = np.ones(128 * MIB // 8)
    del highest
    with PeakMemory() as peak:
        block = np.ones(64 * MIB // 8)
        threading.Event().wait(0.1)  # ten samples
        del block
    assert 60 * MIB < peak.added_nbytes < 80 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is inherited on Linux")
def test_the_high_mark_is_not_that_of_the_starting_process():
    program = "from streamreg.machine import _high_mark; print(_high_mark())"
    large = np.ones(256 * MIB // 8)
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(out.stdout) < large.nbytes


def test_peak_memory_leaves_no_thread_behind_after_an_error():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), PeakMemory() as peak:
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert peak.added_nbytes >= 0
