"""The package `onnxruntime`: imported in silence, one wheel of it, with the CUDA libraries beside it."""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from patchcut import telemetry
from patchcut.errors import EngineError, install_hint

# Both hold the module `onnxruntime`; the one that was installed last has overwritten the other's files.
_WHEELS = ("onnxruntime", "onnxruntime-gpu")


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, without its telemetry; whatever imports it does it here.

    Raises:
        EngineError: it is not installed, naming the extra; or twice, naming the wheel to remove.
    """
    telemetry.switch_off()
    try:
        module = import_module("onnxruntime")
    except ImportError as error:
        remedy = f"{install_hint('cpu')}, or with [gpu]"
        raise EngineError("engine", f"onnxruntime cannot be imported: {error}", remedy) from error
    _check_wheels()
    return module


def _check_wheels() -> None:
    """Raises where both wheels are installed: which of them would be imported is chance."""
    plain, gpu = (_version(name) for name in _WHEELS)
    if plain and gpu:
        what = f"onnxruntime {plain} and onnxruntime-gpu {gpu} are both installed, over each other"
        remedy = "pip uninstall -y onnxruntime && pip install --no-deps --force-reinstall onnxruntime-gpu"
        raise EngineError("engine", what, f"remove the first, and mend the other: {remedy}=={gpu}")


def _version(wheel: str) -> str:
    try:
        return version(wheel)
    except PackageNotFoundError:
        return ""


def preload_cuda(onnxruntime: Any) -> str:
    """Loads the CUDA libraries of the extra `gpu`, and says which could not be, for people.

    They lie in packages of their own, where no loader looks.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return ""
    said = io.StringIO()  # it prints what fails
    with contextlib.redirect_stdout(said):
        try:
            onnxruntime.preload_dlls()
        except Exception as error:  # whatever keeps it from loading them: the provider says what it misses
            return str(error)
    failed = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return "; ".join(failed)
