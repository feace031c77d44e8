"""What is read of a machine: from files that stand for /sys and /proc, and from lines of tegrastats."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patchcut.benchmark import machine, sensors
from patchcut.benchmark.sensors import Range, Sensors, tegrastats_readings
from patchcut.benchmark.tegrastats import parse_tegrastats

# Recorded formats of JetPack 6, JetPack 5 without root, and JetPack 4.
ORIN = (
    "11-29-2026 10:00:00 RAM 3426/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [15%@1190,8%@1190,off,"
    "off,0%@1190,1%@729] EMC_FREQ 2%@2133 GR3D_FREQ 61%@[611] NVDEC off NVJPG off VIC off OFA off APE 174 "
    "cpu@48.062C soc2@47.187C soc0@47.5C gpu@48.468C cv0@-256C tj@49.093C soc1@48C VDD_IN 5213mW/5200mW "
    "VDD_CPU_GPU_CV 1264mW/1264mW VDD_SOC 1520mW/1520mW"
)
XAVIER = (
    "RAM 2456/31920MB (lfb 6400x4MB) SWAP 0/15960MB (cached 0MB) CPU [2%@1190,0%@1190] EMC_FREQ 0% "
    "GR3D_FREQ 7% AO@33.5C GPU@34C Tboard@34C Tdiode@36.5C AUX@33.5C CPU@35C thermal@34.05C PMIC@50C "
    "GPU 0mW/0mW CPU 466mW/466mW"
)
NANO = (
    "RAM 1120/3964MB (lfb 35x4MB) SWAP 0/1982MB (cached 0MB) CPU [10%@102,6%@102,1%@102,0%@102] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 PLL@20C CPU@22.5C PMIC@100C GPU@22C AO@28.5C thermal@22.25C "
    "POM_5V_IN 1532/1532 POM_5V_GPU 0/0 POM_5V_CPU 163/163"
)


def test_lines_of_tegrastats() -> None:
    orin = parse_tegrastats(ORIN)
    assert orin.ram_mb == (3426, 7620)
    assert orin.cores == ((15, 1190), (8, 1190), (0, 1190), (1, 729))
    assert (orin.gpu_load, orin.gpu_mhz, orin.emc_mhz) == (61, 611, 2133)
    assert orin.temperatures_c["tj"] == 49.093 and "cv0" not in orin.temperatures_c
    assert orin.power_mw == {"VDD_IN": 5213, "VDD_CPU_GPU_CV": 1264, "VDD_SOC": 1520}
    xavier = parse_tegrastats(XAVIER)
    assert (xavier.gpu_load, xavier.gpu_mhz, xavier.emc_mhz) == (7, None, None)
    assert xavier.power_mw == {"GPU": 0, "CPU": 466} and xavier.temperatures_c["AO"] == 33.5
    nano = parse_tegrastats(NANO)
    assert (nano.gpu_load, nano.gpu_mhz) == (0, 76)
    assert nano.power_mw == {"POM_5V_IN": 1532, "POM_5V_GPU": 0, "POM_5V_CPU": 163}
    for broken in ("", "not a line", ORIN[:37], "CPU [] GR3D_FREQ %"):
        assert parse_tegrastats(broken).gpu_load is None


def test_a_running_tegrastats_is_read_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(
        f"#!{sys.executable}\nimport time\nwhile True: print({ORIN!r}, flush=True); time.sleep(0.01)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with Sensors(period_s=0.01) as running:
        deadline = time.monotonic() + 20
        while "gpu clock MHz" not in running.ranges() and time.monotonic() < deadline:
            time.sleep(0.01)
    found = running.ranges()
    assert found["gpu clock MHz"] == Range(611, 611, 611) and found["VDD_IN W"].high == 5.213
    assert found.keys() >= tegrastats_readings(ORIN).keys()


def test_a_gpu_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    clocks = iter((1200, 1980, 1980, 1980))

    class NVMLError(Exception):
        pass

    def no_power(gpu: Any) -> int:
        raise NVMLError

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: ended.append(True),
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetClockInfo=lambda gpu, kind: next(clocks) if kind == 1 else 2619,
        nvmlDeviceGetTemperature=lambda gpu, kind: 41,
        nvmlDeviceGetPowerUsage=no_power,
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=97),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(sensors.shutil, "which", lambda name: None)
    with Sensors(period_s=60) as running:
        pass
    found = running.ranges()
    assert found["gpu clock MHz"] == Range(1200, 1590, 1980) and found["gpu load %"].mean == 97
    assert "gpu W" not in found and ended == [True]
    (line,) = sensors.warnings(found)
    assert line.startswith("the gpu clock moved from 1200 to 1980 MHz; lock it")


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def fail() -> None:
        raise NVMLError

    nvml = SimpleNamespace(NVMLError=NVMLError, nvmlInit=fail)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with Sensors(period_s=60) as running:
        pass
    assert not any(name.startswith("gpu") for name in running.ranges())


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the root."""
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_cpu_that_follows_the_load_is_told(system: Path) -> None:
    for core in range(2):
        folder = system / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        put(folder / "scaling_governor", "schedutil\n")
        put(folder / "scaling_min_freq", "800000\n")
        put(folder / "scaling_max_freq", "3600000\n")
    put(system / "sys/devices/system/cpu/intel_pstate/no_turbo", "0\n")
    found = machine.this_machine(system)
    assert (found.governor, found.clock_mhz, found.boost) == ("schedutil", (800, 3600), True)
    follows, boosts = found.warnings()
    assert 'governor "schedutil"' in follows and "cpupower frequency-set -g performance" in follows
    assert boosts.startswith("the CPU may boost")


def test_a_steady_quiet_cpu_has_no_warnings(system: Path) -> None:
    put(system / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    put(system / "sys/devices/system/cpu/cpufreq/boost", "0\n")
    assert machine.this_machine(system).warnings() == []


def test_a_machine_that_tells_nothing_and_is_busy(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (3.0, 0, 0))
    silent, busy = machine.this_machine(system).warnings()
    assert (
        "virtual machines" in silent
        and busy == "other processes were running (load 3.0); stop them, and repeat"
    )
