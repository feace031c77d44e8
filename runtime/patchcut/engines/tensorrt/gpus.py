"""What an engine depends on of a GPU and its driver."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from patchcut.errors import EngineError

_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """A GPU, as far as engines depend on it: two of one kind share engines.

    Attributes:
        name: such as "Orin"; "" where any of its capability will do.
        capability: compute capability, such as "8.7".
        driver: its driver's version, such as "540.4.0, CUDA 12.6"; "" where any will do.
    """

    name: str
    capability: str
    driver: str

    def __str__(self) -> str:
        capability = f"compute capability {self.capability}"
        return f"{self.name} ({capability})" if self.name else f"any GPU of {capability}"


def driver_version() -> str:
    """The driver's version, and that of the CUDA that it knows.

    Raises:
        EngineError: there is no driver.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        what = "TensorRT runs on an NVIDIA GPU, and this machine has no NVIDIA driver"
        remedy = 'install the driver, or pass engine="auto"; `patchcut export engine --capability` needs none'
        raise EngineError("device", what, remedy) from error
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)):
        what = "the NVIDIA driver of this machine does not answer"
        raise EngineError("device", what, 'look at nvidia-smi, or pass engine="auto"')
    cuda = f"CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    try:
        found = re.search(r"Module\D*([\d.]+\d)", _KERNEL_DRIVER.read_text("ascii", "replace"))
    except OSError:  # as below WSL
        found = None
    return f"{found[1]}, {cuda}" if found else cuda
