"""GPUs, cameras and folders, from trees that stand for /proc, /sys and /dev, and a script for nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from patchcut.doctor import devices

from tests.kernels.test_dispatch import write_files

Smi = Callable[[str], None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts a shell script in place of nvidia-smi."""

    def put(script: str) -> None:
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    return put


def test_gpus_as_nvidias_tool_lists_them(smi: Smi, tmp_path: Path) -> None:
    wanted = "--query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader,nounits"
    lines = "NVIDIA L4, 550.54.15, 23034, 8.9\\nTesla P4, 550.54.15, [N/A], [Not Supported]\\n"
    smi(f'[ "$*" = "{wanted}" ] && printf "{lines}"')
    found = devices.gpus(tmp_path)
    assert found["smi"] == ""
    assert found["devices"] == [
        {"name": "NVIDIA L4", "driver": "550.54.15", "memory_mb": 23034, "capability": "8.9"},
        {"name": "Tesla P4", "driver": "550.54.15"},
    ]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
            "nvidia-smi fails: NVIDIA-SMI has failed because it could not communicate",
        ),
        (
            "echo 'libnvidia-ml.so: version mismatch' >&2; exit 18",
            "nvidia-smi fails: libnvidia-ml.so: version",
        ),
        ("kill -SEGV $$", "nvidia-smi fails: it says nothing"),
        ("sleep 60", "nvidia-smi does not answer within 0.2 s"),
    ],
)
def test_a_tool_that_fails_is_told(
    smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(devices, "_SMI_PATIENCE_S", 0.2)
        script = f"exec {script}"
    smi(script)
    found = devices.gpus(tmp_path)
    assert found["devices"] == [] and found["smi"].startswith(problem)


def test_a_tool_that_is_none(smi: Smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi("")
    (tmp_path / "bin/nvidia-smi").write_bytes(b"\x7fELF not for this machine")
    assert devices.gpus(tmp_path)["smi"].startswith("nvidia-smi cannot be run")
    smi(r"printf '\377\376,,,,,,\n\n,\n'")
    assert len(devices.gpus(tmp_path)["devices"]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.gpus(tmp_path)["smi"] == "no nvidia-smi"


def test_what_is_on_the_bus(tmp_path: Path) -> None:
    pci = "sys/bus/pci/devices/0000:{}:00.0/{}"
    of_bus = {  # maker, class
        "00": ("0x8086", "0x030000"),  # Intel's graphics
        "01": ("0x10de", "0x030200"),
        "02": ("0x10de", "0x030200"),
        "03": ("0x10de", "0x040300"),  # its sound
        "04": ("0x8086", "0x120000"),  # Intel's NPU
        "05": ("0x1234", "0x030000"),  # an emulated display
    }
    for name, (vendor, kind) in of_bus.items():
        write_files(
            tmp_path, {pci.format(name, "vendor"): f"{vendor}\n", pci.format(name, "class"): f"{kind}\n"}
        )
    found = devices.gpus(tmp_path)
    assert found["on_bus"] == ["Intel", "NVIDIA"] and found["npu"] and found["jetson"] == ""


def test_a_jetson(tmp_path: Path) -> None:
    tree = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    }
    assert (
        devices.gpus(Path(write_files(tmp_path, tree)))["jetson"] == "NVIDIA Jetson Orin Nano Developer Kit"
    )
    write_files(tmp_path, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"})
    assert devices.gpus(tmp_path)["jetson"] == ""


def test_cameras_by_the_names_of_their_drivers(tmp_path: Path) -> None:
    node = "sys/class/video4linux/video{}/{}"
    files = {
        node.format(0, "name"): "HD Webcam: HD Webcam\n",
        node.format(0, "index"): "0\n",
        node.format(1, "name"): "HD Webcam: HD Webcam\n",
        node.format(1, "index"): "1\n",  # tells of frames, and has none
        node.format(10, "index"): "0\n",
        node.format(2, "name"): "vi-output, imx219\n",
        node.format("er", "name"): "none\n",
        "dev/video0": "",
        "dev/video2": "",
    }
    write_files(tmp_path, files)
    (tmp_path / "dev/video2").chmod(0)
    first, second, third = devices.cameras(tmp_path)
    assert first == {"number": 0, "device": "/dev/video0", "name": "HD Webcam: HD Webcam", "readable": True}
    assert (second["number"], second["name"]) == (2, "vi-output, imx219")
    assert second["readable"] == (os.getuid() == 0)  # nothing is forbidden to root
    assert third == {"number": 10, "device": "/dev/video10", "name": "unnamed", "readable": False}


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = devices.folders(tmp_path / "not/there/yet")
    assert found["cache"]["path"] == str(tmp_path / "not/there/yet") and found["cache"]["writable"]
    assert found["cache"]["free_bytes"] > 0 and not (tmp_path / "not").exists()
    assert not devices.folders(tmp_path / "file/below")["cache"]["writable"]
    (tmp_path / "here").rmdir()
    gone = devices.folders(None)
    assert gone["cache"] == {"error": "nothing is kept"}
    assert gone["working"] == {"error": "No such file or directory"}
