"""What is built into this machine or plugged in, as the system and NVIDIA's tool tell it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from patchcut.machine import ROOT, read_text

Facts = dict[str, Any]

_SMI = "nvidia-smi"
_SMI_FIELDS = ("name", "driver_version", "memory.total", "compute_cap")
_SMI_PATIENCE_S = 5.0
_VENDORS = {"0x10de": "NVIDIA", "0x8086": "Intel", "0x1002": "AMD"}
# PCI classes of displays and 3D controllers, and of what accelerates networks.
_GPU_CLASS, _NPU_CLASS = "0x03", "0x12"


def gpus(root: Path = ROOT) -> Facts:
    """GPUs and accelerators: as NVIDIA's tool lists them, and what is on the PCI bus.

    Args:
        root: what stands for the root folder, here and below.
    Returns:
        "devices": of NVIDIA's, each with name, driver, memory_mb and capability where known; "smi": why the
        tool lists none; "on_bus": makers of GPUs, such as ["NVIDIA"]; "npu": whether Intel's is there;
        "jetson": the board's name, "" elsewhere.
    Examples:
        >>> from pathlib import Path
        >>> patchcut.doctor.devices.gpus(Path("/none"))["on_bus"]
        []
    """
    devices, problem = _listed_by_smi()
    board = read_text(root / "proc/device-tree/model")
    tegra = "tegra" in read_text(root / "proc/device-tree/compatible")
    return {
        "devices": devices,
        "smi": problem,
        "on_bus": _makers(root, _GPU_CLASS),
        "npu": "Intel" in _makers(root, _NPU_CLASS),
        "jetson": board if tegra else "",
    }


def _listed_by_smi() -> tuple[list[Facts], str]:
    """What nvidia-smi lists, and what kept it from that."""
    program = shutil.which(_SMI)
    if program is None:
        return [], f"no {_SMI}"
    command = [program, f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SMI_PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return [], f"{_SMI} does not answer within {_SMI_PATIENCE_S:g} s"
    except OSError as error:
        return [], f"{_SMI} cannot be run: {error.strerror}"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] + lines
        return [], f"{_SMI} fails: {(said or ['it says nothing'])[0]}"
    return [_device(line) for line in lines], ""


def _device(line: str) -> Facts:
    name, driver, memory, capability = ([part.strip() for part in line.split(",")] + [""] * 4)[:4]
    known = {
        "name": name,
        "driver": driver,
        "memory_mb": int(memory) if memory.isdecimal() else None,
        "capability": capability if re.fullmatch(r"\d+\.\d+", capability) else None,
    }
    return {key: value for key, value in known.items() if value}


def _makers(root: Path, pci_class: str) -> list[str]:
    """Makers of what is on the PCI bus in a class, each once."""
    folders = sorted((root / "sys/bus/pci/devices").glob("*"))
    vendors = (read_text(one / "vendor") for one in folders if read_text(one / "class").startswith(pci_class))
    return list(dict.fromkeys(_VENDORS[vendor] for vendor in vendors if vendor in _VENDORS))


def cameras(root: Path = ROOT) -> list[Facts]:
    """Cameras by the names that their drivers give, none of which is opened.

    Nodes of a camera that only tell of frames are left out.

    Returns:
        Of each: number, as a source; device, such as "/dev/video0"; name; readable.
    Examples:
        >>> from pathlib import Path
        >>> patchcut.doctor.devices.cameras(Path("/none"))
        []
    """
    found = []
    for folder in (root / "sys/class/video4linux").glob("video*"):
        number = folder.name.removeprefix("video")
        if number.isdecimal() and read_text(folder / "index") in ("", "0"):
            found.append(
                {
                    "number": int(number),
                    "device": f"/dev/{folder.name}",
                    "name": read_text(folder / "name") or "unnamed",
                    "readable": os.access(root / "dev" / folder.name, os.R_OK | os.W_OK),
                }
            )
    return sorted(found, key=lambda camera: int(camera["number"]))


def folders(cache: Path | None) -> dict[str, Facts]:
    """The folders that patchcut writes to: the temporary one, the working one, and that of compiled engines.

    Args:
        cache: where engines keep what they compile; None where nothing is kept.
    Returns:
        Of each: path, writable, free_bytes; of one that cannot be had "error".
    Examples:
        >>> patchcut.doctor.devices.folders(None)["cache"]
        {'error': 'nothing is kept'}
    """
    found: dict[str, Facts] = {}
    for name, get in (("temporary", tempfile.gettempdir), ("working", os.getcwd)):
        try:
            found[name] = _folder(Path(get()))
        except OSError as error:  # there is none that can be written to, or it was removed
            found[name] = {"error": error.strerror or str(error)}
    found["cache"] = {"error": "nothing is kept"} if cache is None else _folder(cache)
    return found


def _folder(path: Path) -> Facts:
    there = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    facts: Facts = {
        "path": str(path),
        "writable": there.is_dir() and os.access(there, os.W_OK | os.X_OK),
    }
    try:
        return {**facts, "free_bytes": shutil.disk_usage(there).free}
    except OSError as error:
        return {**facts, "error": error.strerror or str(error)}
