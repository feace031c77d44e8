"""What kind of CPU this is, as far as it matters to how fast a backbone runs in which precision."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# By the flags that Linux names, the best first.
_KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "x86": (
        ("x86-amx", ("amx_int8", "amx_bf16")),
        ("x86-avx512-bf16", ("avx512_bf16", "avx512_vnni")),
        ("x86-avx512-vnni", ("avx512_vnni",)),
        ("x86-avx512", ("avx512f", "avx512bw", "avx512vl")),
        ("x86-avx2-vnni", ("avx2", "avx_vnni")),
        ("x86-avx2", ("avx2", "fma")),
    ),
    "arm": (("arm-i8mm", ("i8mm", "asimddp")), ("arm-dotprod", ("asimddp",))),
}
_FAMILIES = {"x86_64": "x86", "amd64": "x86", "i686": "x86", "aarch64": "arm", "arm64": "arm"}

# They multiply 8 bits and add up in 32 at once. Elsewhere that takes 16 bits on the way, and what is won by
# half the bits is lost again to rounding the activations.
_MULTIPLY_INT8 = frozenset(
    ("x86-amx", "x86-avx512-bf16", "x86-avx512-vnni", "x86-avx2-vnni", "arm-i8mm", "arm-dotprod")
)


def cpu_kind() -> str:
    """The kind of this machine's CPU: "x86-amx", "x86-avx512-bf16", "x86-avx512-vnni", "x86-avx512",
    "x86-avx2-vnni", "x86-avx2", "x86", "arm-i8mm", "arm-dotprod", "arm", or what the system calls others.

    Examples:
        >>> patchcut.engines.cpu_kind().partition("-")[0] in ("x86", "arm")
        True
    """
    try:
        text = _CPUINFO.read_text("ascii", "replace")
    except OSError:
        text = ""
    return kind_of(platform.machine(), text)


def kind_of(machine: str, cpuinfo: str) -> str:
    """The kind of a CPU.

    Args:
        machine: its architecture, as `uname -m` says it.
        cpuinfo: what /proc/cpuinfo has of all its cores. What one of them lacks none is taken to have.
    Examples:
        >>> patchcut.engines.cpu_kind.kind_of("aarch64", "Features : fp asimd asimddp")
        'arm-dotprod'
    """
    family = _FAMILIES.get(machine.lower())
    if family is None:
        return machine.lower() or "unknown"
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    cores = [set(flags.split()) for name, _, flags in lines if name.strip() in ("flags", "Features")]
    held = set.intersection(*cores) if cores else set()
    return next((kind for kind, flags in _KINDS[family] if held.issuperset(flags)), family)


def multiplies_int8(kind: str) -> bool:
    """Whether a kind of CPU is faster in 8 bits than in fp32.

    Examples:
        >>> patchcut.engines.cpu_kind.multiplies_int8("x86-avx2")
        False
    """
    return kind in _MULTIPLY_INT8
