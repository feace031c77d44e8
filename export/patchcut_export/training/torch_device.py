"""Where torch trains."""

from __future__ import annotations

import torch
from patchcut.checks import check_choice
from patchcut.settings import DEVICES

from patchcut_export.errors import ExportError

CPU = torch.device("cpu")


def open_device(name: str) -> torch.device:
    """The device called "cpu" or "cuda"; for "auto" CUDA where torch finds it, else the CPU.

    Raises:
        OptionError: another name.
        ExportError: torch finds no CUDA.
    """
    check_choice("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        remedy = "choose cpu, or install a build of torch with CUDA on a machine that has it"
        raise ExportError("device", f"torch {torch.__version__} finds no CUDA here", remedy)
    return torch.device("cuda") if name != "cpu" and found else CPU
