"""Which packages that patchcut runs on are installed; the import of those that would tell others of it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from patchcut import telemetry
from patchcut.errors import EngineError, install_hint

# Modules of which an engine needs one; one that is not here is somebody's own, and is taken to be whole.
ENGINE_MODULES = {
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-tensorrt": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt_rtx"),
    "torch": ("torch",),
}

# Both hold the module `onnxruntime`; the one that was installed last has overwritten the other's files.
_WHEELS = ("onnxruntime", "onnxruntime-gpu")


def is_there(module: str) -> bool:
    """Whether a module is installed; whether it can be imported is not known.

    Examples:
        >>> from patchcut.installed import is_there
        >>> is_there("numpy"), is_there("abacus")
        (True, False)
    """
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a finder of somebody else's may say it so
        return False


def has_engine(engine: str) -> bool:
    """Whether a module that an engine needs is installed.

    Examples:
        >>> from patchcut.installed import has_engine
        >>> has_engine("onnxruntime")
        True
    """
    return any(map(is_there, ENGINE_MODULES.get(engine, ("patchcut",))))


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


def import_openvino() -> Any:
    """The module `openvino`, without its telemetry; whatever imports it does it here.

    Raises:
        EngineError: it is not installed; names the extra.
    """
    try:
        with telemetry.kept_out("openvino_telemetry"):
            return import_module("openvino")
    except ImportError as error:
        remedy = install_hint("openvino")
        raise EngineError("engine", f"openvino cannot be imported: {error}", remedy) from error
