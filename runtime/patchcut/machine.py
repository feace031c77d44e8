"""What the system tells of this machine. It needs no package, reads /proc and /sys, and changes nothing."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path("/")
_FREQUENCIES = "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
# A control group without a limit has "max" (version 2) or a number near 2^63 (version 1).
_NO_LIMIT = 1 << 60


def read_text(path: Path) -> str:
    """A file's text without white space around it; "" where it cannot be read.

    Examples:
        >>> from pathlib import Path
        >>> patchcut.machine.read_text(Path("/proc/none"))
        ''
    """
    try:
        return path.read_text("utf-8", "replace").strip().strip("\0")
    except OSError:
        return ""


def cpu_name(root: Path = ROOT) -> str:
    """The CPU's name as the system has it; its architecture where there is none.

    Args:
        root: what stands for the root folder, here and below.
    Examples:
        >>> patchcut.machine.cpu_name() != ""
        True
    """
    names = re.findall(r"^(?:model name|Model)\s*:\s*(.+)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine() or "unknown"


def allowed_cpus() -> list[int]:
    """Numbers of the CPUs that this process may run on: its affinity mask.

    Examples:
        >>> len(patchcut.machine.allowed_cpus()) >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def physical_cores(cpus: Sequence[int], root: Path = ROOT) -> int:
    """Cores that some CPUs are: the threads of one core count once.

    Examples:
        >>> patchcut.machine.physical_cores([0])
        1
    """
    folder = root / "sys/devices/system/cpu"
    return len({read_text(folder / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus})


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPUs that the control groups of this process grant it, the least of all levels; None without a limit.

    Examples:
        >>> quota = patchcut.machine.cpu_quota()
        >>> quota is None or quota > 0
        True
    """
    quotas = [_quota(read_text(folder / "cpu.max")) for folder in _groups(root, "")]
    for folder in _groups(root, "cpu"):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quotas.append(_quota(" ".join(read_text(folder / name) for name in names)))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes of memory that the control groups of this process allow it; None without a limit.

    Examples:
        >>> limit = patchcut.machine.memory_limit()
        >>> limit is None or limit > 0
        True
    """
    texts = [read_text(folder / "memory.max") for folder in _groups(root, "")]
    texts += [read_text(folder / "memory.limit_in_bytes") for folder in _groups(root, "memory")]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def memory_bytes(root: Path = ROOT) -> tuple[int, int | None]:
    """Bytes of memory that this machine has, and those that are free for new work, None where unknown.

    Examples:
        >>> patchcut.machine.memory_bytes()[0] > 0
        True
    """
    known = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read_text(root / "proc/meminfo"), re.MULTILINE))
    free = int(known["MemAvailable"]) << 10 if "MemAvailable" in known else None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), free


def governor(root: Path = ROOT) -> str | None:
    """What governs the CPU's clock, such as "performance"; None where the system does not tell.

    Examples:
        >>> from pathlib import Path
        >>> patchcut.machine.governor(Path("/none")) is None
        True
    """
    found = {read_text(path / "scaling_governor") for path in root.glob(_FREQUENCIES)}
    return ", ".join(sorted(found - {""})) or None


def clock_mhz(root: Path = ROOT) -> tuple[int, int] | None:
    """The lowest and the highest clock that the governor may choose; None where the system does not tell.

    Examples:
        >>> from pathlib import Path
        >>> patchcut.machine.clock_mhz(Path("/none")) is None
        True
    """
    paths = [path / f"scaling_{end}_freq" for path in root.glob(_FREQUENCIES) for end in ("min", "max")]
    clocks = [int(text) // 1000 for text in map(read_text, paths) if text.isdecimal()]
    return (min(clocks), max(clocks)) if clocks else None


def boosts(root: Path = ROOT) -> bool | None:
    """Whether the CPU may run above its nominal clock; None where the system does not tell.

    Examples:
        >>> from pathlib import Path
        >>> patchcut.machine.boosts(Path("/none")) is None
        True
    """
    cpu = root / "sys/devices/system/cpu"
    if (text := read_text(cpu / "intel_pstate/no_turbo")) in ("0", "1"):
        return text == "0"
    if (text := read_text(cpu / "cpufreq/boost")) in ("0", "1"):
        return text == "1"
    return None


def stolen_s(root: Path = ROOT) -> float | None:
    """Seconds of CPU time that a hypervisor gave to others since this machine started; None if unknown.

    Examples:
        >>> stolen = patchcut.machine.stolen_s()
        >>> stolen is None or stolen >= 0
        True
    """
    line = read_text(root / "proc/stat").partition("\n")[0].split()
    return int(line[8]) / os.sysconf("SC_CLK_TCK") if len(line) > 8 and line[0] == "cpu" else None


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed; "unknown" of one whose metadata is broken.

    Examples:
        >>> list(patchcut.machine.versions(["numpy", "abacus"]))
        ['numpy']
    """
    found = {}
    for name in packages:
        try:
            found[name] = version(name) or "unknown"
        except ImportError:  # PackageNotFoundError is one
            continue
        except Exception:  # what a damaged folder of metadata leads to is up to the parser
            found[name] = "unknown"
    return found


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups and of those above them: of a controller, "" is version 2.

    Lines of /proc/self/cgroup are "0::/group" (version 2) and "4:cpu,cpuacct:/group" (version 1). In a
    container the group's path may be that of the host: the root of the mount is then the group itself.
    """
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not group.startswith("/") or controller not in controllers.split(","):
            continue
        mounts = ("", "unified") if controller == "" else (controllers, controller)
        for mount in (root / "sys/fs/cgroup" / name for name in mounts):
            folder = mount / group.lstrip("/")
            yield from (folder, *(above for above in folder.parents if above.is_relative_to(mount)))


def _quota(text: str) -> float | None:
    """CPUs that "quota period" grants; "max 100000" and -1 are no limit."""
    try:
        quota, period = map(float, text.split())
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None
