"""What a row says of where it was measured: machine, versions, commit, threads. Never a name or a path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from patchcut import machine
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parent.parent
# Changes here change what is measured; changes elsewhere, such as new result rows, do not.
_MEASURED = ("kernels", "runtime", "export", "bench", "CMakeLists.txt", "pyproject.toml")
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "openvino",
    "opencv-python-headless",
    "opencv-python",
    "torch",
    "torch-geometric",
    "onnx",
)


class Machine(BaseModel):
    """Where rows may be compared: equal machines only.

    Attributes:
        cores: physical ones that this process may use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    memory_gb: int
    system: str
    isa: str
    gpu: str | None = None

    def __str__(self) -> str:
        parts = [self.cpu, f"{self.cores} cores", self.isa, f"{self.memory_gb} GB", self.system]
        return ", ".join([*parts, self.gpu] if self.gpu else parts)


def this_machine() -> Machine:
    """The machine that runs this."""
    import patchcut_kernels

    return Machine(
        cpu=machine.cpu_name(),
        cores=patchcut_kernels.default_threads(),
        memory_gb=round(machine.memory_bytes()[0] / 2**30),
        system=f"{platform.system()} {platform.machine()}",
        isa=patchcut_kernels.get_isa(),
        gpu=_gpu_name(),
    )


def _gpu_name() -> str | None:
    """Name of the first GPU the kernels can run on; None also where they are built to run on the host."""
    from patchcut_kernels import cuda

    name = cuda.device_name() if cuda.is_available() else "host"
    return None if name == "host" else name


def versions() -> dict[str, str]:
    """Versions of Python and of each package that may take part, where it is installed."""
    return {"python": platform.python_version(), **machine.versions(_PACKAGES)}


def commit() -> str:
    """Short hash of the checkout, with a "+" where measured files differ from it; "unknown" without git."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", *_MEASURED, ":!bench/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+" if changed.strip() else head


def load_1min() -> float:
    """Processes that wanted to run during the last minute; the bench itself is one of them while it runs."""
    return round(os.getloadavg()[0], 2)


def resident_mb() -> float:
    """Memory that this process holds now; 0 where nothing tells."""
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*([0-9]+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def set_threads(threads: int) -> None:
    """Gives every thread pool in this process the same number: kernels, OpenCV, BLAS, torch where loaded."""
    import cv2
    import patchcut_kernels
    from threadpoolctl import threadpool_limits

    patchcut_kernels.set_threads(threads)
    cv2.setNumThreads(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    threadpool_limits(threads)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout
