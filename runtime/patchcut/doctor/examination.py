"""An examination of this machine: sections of plain facts, what runs, and what could be better."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import patchcut
from patchcut import machine
from patchcut.cache_folder import cache_folder
from patchcut.doctor.apart import PATIENCE_S, Facts, run_apart
from patchcut.doctor.devices import cameras, folders, gpus
from patchcut.doctor.private import without_users
from patchcut.doctor.remedies import Remedy, remedies
from patchcut.installed import has_engine, is_there

SCHEMA_VERSION = 1

# Wheels that bring an engine; the first two, and those of OpenCV, overwrite each other.
_ENGINE_WHEELS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx"),
    "torch": ("torch",),
}
_OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_PACKAGES = ("patchcut", "numpy", "pydantic", "av", "pillow", "pillow-heif", "rerun-sdk")
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY", "LD_PRELOAD")


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        found: section → its facts: software, cpu, memory, kernels, gpu, cuda, driver, engines, opencv, av,
            cameras, folders, environment, runs. One that could not be found out has an "error".
        remedies: what could be better, the gravest first.
    """

    found: Facts
    remedies: list[Remedy]

    @property
    def can_run(self) -> bool:
        """Whether the default bundle segments a frame here."""
        return "error" not in self.found["runs"]

    def to_dict(self) -> Facts:
        """All of it as plain values, ready for JSON.

        Examples:
            >>> patchcut.doctor.Examination({"runs": {"error": "no engine"}}, []).to_dict()
            {'schema_version': 1, 'can_run': False, 'runs': {'error': 'no engine'}, 'remedies': []}
        """
        better = [{"what": one.what, "remedy": one.remedy} for one in self.remedies]
        head = {"schema_version": SCHEMA_VERSION, "can_run": self.can_run}
        return {**head, **self.found, "remedies": better}


def examine(
    *, open_cameras: bool = False, root: Path = machine.ROOT, patience_s: float = PATIENCE_S
) -> Examination:
    """What this machine has, what would run, and what could be better. It raises nothing, whatever is broken.

    Args:
        open_cameras: take a frame of each camera, too.
        root: what stands for the root folder, of which /proc, /sys and /dev are read.
        patience_s: seconds until a package that does not answer is given up.
    Examples:
        >>> patchcut.doctor.examine(patience_s=600).can_run
        True
    """
    found: Facts = {name: _guarded(section, root) for name, section in _SECTIONS.items()}
    # torch takes seconds to import, and runs only where it is asked for
    engines = [name for name in _ENGINE_WHEELS if has_engine(name)]
    alone = [name for name in engines if name != "torch"]
    alone += [name for name, module in (("opencv", "cv2"), ("av", "av")) if is_there(module)]
    processes = {name: [name] for name in alone + ["cameras"] * open_cameras}
    told = run_apart({"runs": ["kernels", "runs"], "cuda": ["cuda", "driver"], **processes}, patience_s)
    for name in ("kernels", "cuda", "driver", "runs", "opencv", "av"):
        found[name] = told.get(name, {"error": "is not installed"})
    found["opencv"]["wheels"] = machine.versions(_OPENCV_WHEELS)
    found["engines"] = {
        name: {"installed": name in engines, "wheels": machine.versions(wheels), **told.get(name, {})}
        for name, wheels in _ENGINE_WHEELS.items()
    }
    if open_cameras:
        found["opened"] = told["cameras"]
    better = _guarded(remedies, found)
    if isinstance(better, dict):
        better = [Remedy(f"what could be better is not known: {better['error']}", "please report it")]
    better = [Remedy(*without_users([one.what, one.remedy])) for one in better]
    return Examination(without_users(found), better)


def _guarded(section: Callable[[Any], Any], asked: Any) -> Any:
    """What a section finds; an "error" where the system is odd in a way that nobody foresaw."""
    try:
        return section(asked)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _software(root: Path) -> Facts:
    return {
        "patchcut": patchcut.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(root),
        "libc": " ".join(platform.libc_ver()),
        "installed_at": str(Path(patchcut.__file__).parent),
        "packages": machine.versions(_PACKAGES),
    }


def _distribution(root: Path) -> str:
    lines = machine.read_text(root / "etc/os-release").splitlines()
    names = (line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME="))
    return next(names, "unknown")


def _cpu(root: Path) -> Facts:
    allowed = machine.allowed_cpus()
    return {
        "name": machine.cpu_name(root),
        "online": os.cpu_count(),
        "allowed": allowed,
        "cores": machine.physical_cores(allowed, root),
        "quota": machine.cpu_quota(root),
        "governor": machine.governor(root),
        "clock_mhz": machine.clock_mhz(root),
        "boost": machine.boosts(root),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _memory(root: Path) -> Facts:
    total, free = machine.memory_bytes(root)
    return {"total_bytes": total, "available_bytes": free, "limit_bytes": machine.memory_limit(root)}


def _folders(root: Path) -> Facts:
    return folders(cache_folder())


def _environment(root: Path) -> dict[str, str]:
    names = [name for name in sorted(os.environ) if name.startswith("PATCHCUT_")]
    return {name: os.environ[name] for name in (*names, *_VARIABLES) if name in os.environ}


_SECTIONS: dict[str, Callable[[Path], Any]] = {
    "software": _software,
    "cpu": _cpu,
    "memory": _memory,
    "gpu": gpus,
    "cameras": cameras,
    "folders": _folders,
    "environment": _environment,
}
