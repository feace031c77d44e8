"""The machine that is measured, and what makes its clock uncertain. It reads, and changes nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.machine import ROOT, boosts, clock_mhz, cpu_name, governor, memory_bytes, versions

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


def this_machine(root: Path = ROOT) -> Machine:
    """The machine that runs this.

    Args:
        root: what stands for the root folder.
    Examples:
        >>> patchcut.benchmark.machine.this_machine().cores > 0
        True
    """
    name = cuda.device_name() if cuda.is_available() else "host"
    return Machine(
        cpu=cpu_name(root),
        cores=kernels.default_threads(),
        memory_gb=round(memory_bytes(root)[0] / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        isa=kernels.get_isa(),
        governor=governor(root),
        clock_mhz=clock_mhz(root),
        boost=boosts(root),
        load_1min=round(os.getloadavg()[0], 2),
        gpu=None if name == "host" else name,
        versions={"python": platform.python_version(), **versions(_PACKAGES)},
    )
