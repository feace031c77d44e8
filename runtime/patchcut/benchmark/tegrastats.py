"""Lines of Jetson's `tegrastats`: clocks, loads, temperatures and power, all of them optional."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d+)%@(\d+)")
# "61%", "61%@114", "61%@[611]" and, of several clusters, "61%@[611,598]"
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?")
_EMC = re.compile(r"\bEMC_FREQ \d+%@(\d+)")
_TEMPERATURE = re.compile(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
# Since JetPack 5 with units, before it without.
_POWER = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")
# A sensor that is not there reads so.
_ABSENT_C = -200.0


@dataclass(frozen=True)
class Tegrastats:
    """One line.

    Attributes:
        ram_mb: used and all.
        cores: load in percent and clock in MHz of each core that is on.
        gpu_load: percent; gpu_mhz, emc_mhz: clocks of GPU and memory. None where the line has none: clocks
            need root on some versions.
        temperatures_c: by sensor.
        power_mw: by rail, at this moment.
    """

    ram_mb: tuple[int, int] | None = None
    cores: tuple[tuple[int, int], ...] = ()
    gpu_load: int | None = None
    gpu_mhz: int | None = None
    emc_mhz: int | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, int] = field(default_factory=dict)


def parse_tegrastats(line: str) -> Tegrastats:
    """What a line tells; of one that is none, nothing.

    Examples:
        >>> from patchcut.benchmark.tegrastats import parse_tegrastats
        >>> parse_tegrastats("RAM 3426/7620MB CPU [15%@1190,off] GR3D_FREQ 61%@[611] tj@49.1C").gpu_mhz
        611
    """
    ram, cpu, gpu, emc = (pattern.search(line) for pattern in (_RAM, _CPU, _GPU, _EMC))
    temperatures = {name: float(celsius) for name, celsius in _TEMPERATURE.findall(line)}
    return Tegrastats(
        ram_mb=(int(ram[1]), int(ram[2])) if ram else None,
        cores=tuple((int(load), int(mhz)) for load, mhz in _CORE.findall(cpu[1])) if cpu else (),
        gpu_load=int(gpu[1]) if gpu else None,
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        emc_mhz=int(emc[1]) if emc else None,
        temperatures_c={name: celsius for name, celsius in temperatures.items() if celsius > _ABSENT_C},
        power_mw={rail: int(now) for rail, now, _ in _POWER.findall(line) if rail not in ("RAM", "SWAP")},
    )
