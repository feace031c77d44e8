"""The machine that is measured, and what makes its clock uncertain. It reads, and changes nothing."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import patchcut_kernels as kernels
from patchcut_kernels import cuda

_SYS = Path("/sys")
_CPUINFO, _STAT = Path("/proc/cpuinfo"), Path("/proc/stat")
_FREQUENCIES = "devices/system/cpu/cpu[0-9]*/cpufreq"
_PACKAGES = (
    "patchcut",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
)
_BUSY_LOAD = 0.5


@dataclass(frozen=True)
class Machine:
    """What figures are to be read with.

    Attributes:
        cpu: its name.
        cores: physical ones that this process may use, by its mask and its quota.
        governor: of the CPU's clock, such as "performance"; None where the system does not tell.
        clock_mhz: the lowest and the highest clock that the governor may choose; None as above.
        boost: whether the CPU may run above its nominal clock; None as above.
        load_1min: processes that wanted to run in the minute before.
        gpu: the first one of CUDA, None without.
        versions: of the packages that take part, where they are installed.
    """

    cpu: str
    cores: int
    memory_gb: float
    system: str
    isa: str
    governor: str | None
    clock_mhz: tuple[int, int] | None
    boost: bool | None
    load_1min: float
    gpu: str | None
    versions: dict[str, str] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """What makes times of this machine uncertain, a line each with what would help.

        Examples:
            >>> all("; " in line for line in patchcut.benchmark.machine.this_machine().warnings())
            True
        """
        lines = []
        if self.governor is None:
            lines.append(
                "the system does not tell the CPU's clock, as in most virtual machines; repeat the run, and "
                "compare runs with `patchcut bench --compare`"
            )
        elif self.governor != "performance":
            lines.append(
                f'the CPU\'s clock follows the load (governor "{self.governor}"); '
                "`cpupower frequency-set -g performance` holds it"
            )
        if self.boost:
            lines.append(
                "the CPU may boost above its nominal clock while it is cool; switch boost off in the "
                "firmware, or in /sys/devices/system/cpu/cpufreq/boost, for figures that last"
            )
        if self.load_1min > _BUSY_LOAD:
            lines.append(f"other processes were running (load {self.load_1min:.1f}); stop them, and repeat")
        return lines


def this_machine() -> Machine:
    """The machine that runs this.

    Examples:
        >>> patchcut.benchmark.machine.this_machine().cores > 0
        True
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = cuda.device_name() if cuda.is_available() else "host"
    return Machine(
        cpu=cpu_name(),
        cores=kernels.default_threads(),
        memory_gb=round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        isa=kernels.get_isa(),
        governor=_governor(),
        clock_mhz=_clock_mhz(),
        boost=_boost(),
        load_1min=round(os.getloadavg()[0], 2),
        gpu=None if name == "host" else name,
        versions=versions(_PACKAGES),
    )


def cpu_name() -> str:
    """The CPU's name as the system has it; its architecture where there is none.

    Examples:
        >>> patchcut.benchmark.machine.cpu_name() != ""
        True
    """
    names = re.findall(r"^(?:model name|Model)\s*:\s*(.+)$", _read(_CPUINFO), re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine() or "unknown"


def stolen_s() -> float | None:
    """Seconds of CPU time that a hypervisor gave to others since this machine started; None if unknown.

    Examples:
        >>> stolen = patchcut.benchmark.machine.stolen_s()
        >>> stolen is None or stolen >= 0
        True
    """
    line = _read(_STAT).partition("\n")[0].split()
    return int(line[8]) / os.sysconf("SC_CLK_TCK") if len(line) > 8 and line[0] == "cpu" else None


def _governor() -> str | None:
    found = sorted({_read(path / "scaling_governor").strip() for path in _SYS.glob(_FREQUENCIES)} - {""})
    return ", ".join(found) or None


def _clock_mhz() -> tuple[int, int] | None:
    limits = [
        [int(text) // 1000 for text in (_read(path / f"scaling_{end}_freq").strip(),) if text.isdigit()]
        for path in _SYS.glob(_FREQUENCIES)
        for end in ("min", "max")
    ]
    clocks = [mhz for one in limits for mhz in one]
    return (min(clocks), max(clocks)) if clocks else None


def _boost() -> bool | None:
    cpu = _SYS / "devices/system/cpu"
    if (text := _read(cpu / "intel_pstate/no_turbo").strip()) in ("0", "1"):
        return text == "0"
    if (text := _read(cpu / "cpufreq/boost").strip()) in ("0", "1"):
        return text == "1"
    return None


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed.

    Examples:
        >>> "python" in patchcut.benchmark.machine.versions(["numpy", "abacus"])
        True
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
