"""What is read of a machine, from files that stand for /proc and /sys."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import pytest
from patchcut import machine
from patchcut_kernels import _C

from tests.kernels.test_dispatch import QUOTAS, write_files


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_names_of_cpus(tmp_path: Path) -> None:
    put(tmp_path / "proc/cpuinfo", "processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert machine.cpu_name(tmp_path) == "Some CPU @ 2 GHz"
    put(tmp_path / "proc/cpuinfo", "Model : NVIDIA Jetson Orin Nano\n")
    assert machine.cpu_name(tmp_path) == "NVIDIA Jetson Orin Nano"
    assert machine.cpu_name(tmp_path / "none")


@pytest.mark.parametrize(("threads", "files"), QUOTAS)
def test_the_quota_is_the_one_that_the_kernels_heed(
    tmp_path: Path, threads: int | None, files: dict[str, str]
) -> None:
    root = write_files(tmp_path, files)
    quota = machine.cpu_quota(Path(root))
    assert (quota is None) == (threads is None)
    if threads is not None:
        assert quota is not None and max(1, int(quota)) == threads
    cores = machine.physical_cores(machine.allowed_cpus(), Path(root))
    assert _C.default_threads(root) == max(1, min(cores, 256, int(quota) if quota is not None else cores))


def test_threads_of_one_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        put(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{siblings}\n")
    assert machine.physical_cores(range(4), tmp_path) == 2
    assert machine.physical_cores([0, 2], tmp_path) == 1
    assert machine.physical_cores([7, 9], tmp_path) == 2


MEMORY_LIMITS = [
    (None, {}),
    (None, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}),
    (1 << 30, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": f"{1 << 30}\n",
               "sys/fs/cgroup/a/b/memory.max": f"{2 << 30}\n"}),
    (5, {"proc/self/cgroup": "4:memory:/x\n1:cpu:/y\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "5\n"}),
    (None, {"proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}),
    (None, {"proc/self/cgroup": "nonsense\n::\n0:\n", "sys/fs/cgroup/memory.max": "many\n"}),
]  # fmt: skip


@pytest.mark.parametrize(("limit", "files"), MEMORY_LIMITS)
def test_the_least_memory_limit_of_all_levels(
    tmp_path: Path, limit: int | None, files: dict[str, str]
) -> None:
    assert machine.memory_limit(Path(write_files(tmp_path, files))) == limit


def test_memory(tmp_path: Path) -> None:
    put(tmp_path / "proc/meminfo", "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n")
    assert machine.memory_bytes(tmp_path)[1] == 8 << 20
    total, free = machine.memory_bytes()
    assert free is None or 0 < free < total
    assert machine.memory_bytes(tmp_path / "none")[1] is None


def test_stolen_time(tmp_path: Path) -> None:
    assert machine.stolen_s(tmp_path) is None
    put(tmp_path / "proc/stat", "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1\n")
    assert machine.stolen_s(tmp_path) == 250 / os.sysconf("SC_CLK_TCK")


def test_a_package_with_broken_metadata_is_still_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        if name == "abacus":
            raise importlib.metadata.PackageNotFoundError(name)
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(machine, "version", broken)
    assert machine.versions(["numpy", "abacus"]) == {"numpy": "unknown"}
