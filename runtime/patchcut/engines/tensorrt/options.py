"""What is chosen of TensorRT alone: by the variable PATCHCUT_TENSORRT, or by the command that builds."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from patchcut.checks import check_choice, check_whole
from patchcut.errors import OptionError

VARIABLE = "PATCHCUT_TENSORRT"
FLAVOURS = ("auto", "tensorrt", "tensorrt-rtx")
MEMORIES = ("kernels", "pycuda")
MAX_BATCH = 256

_SMALL_BOARD_MB = 12 << 10
_WORKSPACE_MB, _SMALL_WORKSPACE_MB = 1024, 256


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions:
    """What TensorRT builds, and with what it runs.

    Attributes:
        flavour: "tensorrt", "tensorrt-rtx", or "auto": the first of these that can be imported.
        memory: what holds memory and streams of the GPU: "kernels", or "pycuda", which kernels that were
            built without CUDA need.
        max_batch: the most frames in one run; the engine is tuned for one.
        workspace_mb: memory that TensorRT may take for one layer, while it builds and runs; 0 is 256 MiB on
            machines with up to 12 GiB, else 1024.
        low_memory: "yes" tries fewer of the algorithms that need much memory; "auto" does on machines with
            up to 12 GiB, which on a Jetson CPU and GPU share.
        cache: folder of built engines; "" is patchcut/engines in XDG_CACHE_HOME or ~/.cache.
    Examples:
        >>> patchcut.engines.tensorrt.TensorRtOptions(max_batch=16).words()
        'max_batch=16'
    """

    flavour: str = "auto"
    memory: str = "kernels"
    max_batch: int = 8
    workspace_mb: int = 0
    low_memory: str = "auto"
    cache: str = ""

    def __post_init__(self) -> None:
        check_choice("flavour", self.flavour, FLAVOURS)
        check_choice("memory", self.memory, MEMORIES)
        check_whole("max_batch", self.max_batch, 1, MAX_BATCH)
        check_whole("workspace_mb", self.workspace_mb, 0, 1 << 20)
        check_choice("low_memory", self.low_memory, ("auto", "yes", "no"))

    @classmethod
    def from_environment(cls) -> TensorRtOptions:
        """What PATCHCUT_TENSORRT says, such as "memory=pycuda,max_batch=16".

        Raises:
            OptionError: it names an option that there is not, or a value that is not allowed.
        Examples:
            >>> patchcut.engines.tensorrt.TensorRtOptions.from_environment().memory
            'kernels'
        """
        known = {one.name: one.type for one in fields(cls)}
        chosen: dict[str, Any] = {}
        for word in filter(None, os.environ.get(VARIABLE, "").split(",")):
            name, _, value = (part.strip() for part in word.partition("="))
            if name not in known:
                raise OptionError(VARIABLE, f"has no option {name!r}, only {', '.join(known)}")
            chosen[name] = _number(value) if known[name] == "int" else value
        try:
            return cls(**chosen)
        except OptionError as error:
            raise OptionError(VARIABLE, f"{error.where} {error.what}", error.remedy) from error

    @property
    def folder(self) -> Path:
        """Where built engines lie."""
        if self.cache:
            return Path(self.cache).expanduser()
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(base).expanduser() / "patchcut" / "engines"

    def spares_memory(self, *, portable: bool) -> bool:
        """Whether building spares memory; what is portable is built alike on every machine."""
        small = not portable and _memory_mb() <= _SMALL_BOARD_MB
        return self.low_memory == "yes" or (self.low_memory == "auto" and small)

    def workspace_bytes(self, *, portable: bool) -> int:
        """The cap of one layer's memory; what is portable is built alike on every machine."""
        small = not portable and _memory_mb() <= _SMALL_BOARD_MB
        return (self.workspace_mb or (_SMALL_WORKSPACE_MB if small else _WORKSPACE_MB)) << 20

    def words(self) -> str:
        """What PATCHCUT_TENSORRT must say for the same; "" for the defaults.

        Examples:
            >>> patchcut.engines.tensorrt.TensorRtOptions().words()
            ''
        """
        given = [(one.name, getattr(self, one.name), one.default) for one in fields(self)]
        return ",".join(f"{name}={value}" for name, value, usual in given if value != usual)


def _number(value: str) -> object:
    return int(value) if value.isdecimal() and len(value) < 9 else value


def _memory_mb() -> int:
    """Memory of the machine, in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
