"""What sensors read while a machine is measured: clocks, temperatures, power. Each may be absent."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from patchcut.benchmark.tegrastats import parse_tegrastats

if TYPE_CHECKING:
    from typing_extensions import Self

_PERIOD_S = 0.5
_SYS = Path("/sys")
# A clock that moves by more was not locked.
_STEADY = 0.02

# Reading → value, such as "gpu clock MHz" → 1980.
Readings = dict[str, float]
Reader = Callable[[], Readings]


@dataclass(frozen=True)
class Range:
    """Of one reading, over a run."""

    low: float
    mean: float
    high: float


class Sensors:
    """Reads sensors twice a second, in a thread of its own, while it is entered.

    Args:
        readers: what to read; those of this machine where none are given.
        period_s: seconds between.
    Examples:
        >>> from patchcut.benchmark.sensors import Sensors
        >>> with Sensors([lambda: {"gpu W": 40.0}]) as sensors:
        ...     pass
        >>> sensors.ranges()["gpu W"].high
        40.0
    """

    def __init__(self, readers: list[Reader] | None = None, period_s: float = _PERIOD_S) -> None:
        self._stack = ExitStack()
        self._readers = _readers(self._stack) if readers is None else readers
        self._period_s = period_s
        self._read: dict[str, list[float]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="patchcut-sensors", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._thread.join()
        self._take()
        self._stack.close()

    def ranges(self) -> dict[str, Range]:
        """The lowest, the mean and the highest of each reading until now, by name."""
        return {
            name: Range(min(values), sum(values) / len(values), max(values))
            for name, values in sorted(self._read.items())
        }

    def _sample(self) -> None:
        while not self._end.wait(self._period_s):
            self._take()

    def _take(self) -> None:
        for reader in self._readers:
            for name, value in reader().items():
                self._read.setdefault(name, []).append(value)


def warnings(ranges: Mapping[str, Range]) -> list[str]:
    """What the readings say against the figures, a line each.

    Examples:
        >>> from patchcut.benchmark.sensors import Range, warnings
        >>> warnings({"gpu clock MHz": Range(1200, 1500, 1980)})[0].partition(";")[0]
        'the gpu clock moved from 1200 to 1980 MHz'
    """
    lines = []
    for name, one in ranges.items():
        if name.startswith("gpu clock") and one.high > one.low * (1 + _STEADY):
            what = f"the gpu clock moved from {one.low:.0f} to {one.high:.0f} MHz"
            lines.append(f"{what}; lock it, such as with `nvidia-smi -lgc` or `jetson_clocks`")
    return lines


def _readers(stack: ExitStack) -> list[Reader]:
    """Those of this machine."""
    readers: list[Reader] = [_cpu]
    readers += _nvml_readers(stack)
    if shutil.which("tegrastats"):
        readers.append(stack.enter_context(_Tegrastats(["tegrastats", "--interval", str(500)])))
    return readers


def _cpu() -> Readings:
    """Mean clock of the CPU, and the hottest of its thermal zones."""
    found: Readings = {}
    clocks = [_number(path) for path in _SYS.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if known := [khz for khz in clocks if khz is not None]:
        found["cpu clock MHz"] = sum(known) / len(known) / 1e3
    zones = [_number(path) for path in _SYS.glob("class/thermal/thermal_zone*/temp")]
    if hot := [milli for milli in zones if milli is not None and milli > 0]:
        found["hottest °C"] = max(hot) / 1e3
    return found


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):  # a zone that is asleep refuses
        return None


def _nvml_readers(stack: ExitStack) -> list[Reader]:
    """That of the first GPU through NVIDIA's library, where `nvidia-ml-py` and a driver are installed."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    stack.callback(pynvml.nvmlShutdown)
    return [_nvml_reader(pynvml)]


def _nvml_reader(nvml: Any) -> Reader:
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    asked: dict[str, Callable[[], float]] = {
        "gpu clock MHz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "gpu memory clock MHz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "gpu °C": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "gpu W": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        "gpu load %": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    }

    def read() -> Readings:
        found: Readings = {}
        for name, ask in asked.items():
            with suppress(nvml.NVMLError):  # not every GPU has every sensor
                found[name] = float(ask())
        return found

    return read


class _Tegrastats:
    """Readings of the newest line of a running `tegrastats`."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._newest: Readings = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        )
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._follow, args=(self._process.stdout,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __call__(self) -> Readings:
        return self._newest

    def _follow(self, lines: IO[str]) -> None:
        for readings in map(tegrastats_readings, _unbroken(lines)):
            self._newest = readings


def tegrastats_readings(line: str) -> Readings:
    """A line's readings by the names of the others.

    Examples:
        >>> from patchcut.benchmark.sensors import tegrastats_readings
        >>> tegrastats_readings("GR3D_FREQ 61%@[611] tj@49.1C VDD_IN 5213mW/5200mW")
        {'gpu load %': 61.0, 'gpu clock MHz': 611.0, 'tj °C': 49.1, 'VDD_IN W': 5.213}
    """
    told = parse_tegrastats(line)
    found: Readings = {}
    if told.gpu_load is not None:
        found["gpu load %"] = float(told.gpu_load)
    if told.gpu_mhz is not None:
        found["gpu clock MHz"] = float(told.gpu_mhz)
    if told.emc_mhz is not None:
        found["memory clock MHz"] = float(told.emc_mhz)
    if told.cores:
        found["cpu clock MHz"] = sum(mhz for _, mhz in told.cores) / len(told.cores)
    found |= {f"{name} °C": celsius for name, celsius in told.temperatures_c.items()}
    return found | {f"{rail} W": mw / 1e3 for rail, mw in told.power_mw.items()}


def _unbroken(lines: IO[str]) -> Iterator[str]:
    """Lines, without the control characters of a terminal."""
    for line in lines:
        yield re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)
