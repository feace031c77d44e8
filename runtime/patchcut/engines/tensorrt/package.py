"""The Python package of TensorRT: which flavour is here, and what it says."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from patchcut.engines.tensorrt.options import FLAVOURS
from patchcut.errors import EngineError, install_hint

_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_KEPT_LINES = 20


@dataclass(frozen=True)
class Package:
    """One flavour of TensorRT, imported.

    Attributes:
        module: `tensorrt` or `tensorrt_rtx`.
        flavour: "tensorrt" or "tensorrt-rtx".
        logger: given to whatever is made of it; it must outlive that.
        errors: the last errors that it logged.
    """

    module: Any
    flavour: str
    logger: Any = None
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))

    @property
    def version(self) -> str:
        """Its version, such as "10.3.0"."""
        return str(self.module.__version__)

    @property
    def is_rtx(self) -> bool:
        """Whether engines are for any GPU of a compute capability, and built without one."""
        return self.flavour == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{self.flavour} {self.version}"

    def last_error(self, otherwise: str) -> str:
        """What it said last, or `otherwise`."""
        return self.errors[-1] if self.errors else otherwise


def import_package(flavour: str) -> Package:
    """A flavour of TensorRT; "auto" is the first that can be imported.

    Raises:
        EngineError: none can; names the extras to install.
    """
    wanted = FLAVOURS[1:] if flavour == "auto" else (flavour,)
    problems = []
    for name in wanted:
        try:
            module = import_module(_MODULES[name])
        except Exception as error:  # a package whose libraries are missing raises what it likes
            problems.append(f"{_MODULES[name]} cannot be imported: {error}")
            continue
        if not hasattr(module, "Builder"):
            problems.append(f"{_MODULES[name]} is a stub package, without TensorRT in it")
            continue
        return _with_logger(module, name)
    extras = " or ".join(f"{install_hint(name)}" for name in wanted)
    remedy = f"{extras}; a Jetson has it in its system's Python (python3 -m venv --system-site-packages)"
    raise EngineError("engine", "; ".join(problems), remedy)


def _with_logger(module: Any, flavour: str) -> Package:
    package = Package(module, flavour)

    class Log(module.ILogger):  # type: ignore[misc]
        """Keeps errors for the exception that follows them; says nothing by itself."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(module.ILogger.ERROR):
                package.errors.append(" ".join(message.split()))

    object.__setattr__(package, "logger", Log())
    return package


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which calls that one flavour deprecates, and the other needs, warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
