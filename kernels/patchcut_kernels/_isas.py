"""Instruction sets of the ops on the CPU."""

from __future__ import annotations

from . import _C


def available_isas() -> list[str]:
    """Instruction sets that this build holds and this machine can run, slowest first.

    Some of "baseline", "avx2" and "avx512" on x86-64, "neon" on aarch64, "baseline" elsewhere.

    Examples:
        >>> pk.get_isa() in pk.available_isas()
        True
    """
    return _C.available_isas()


def get_isa() -> str:
    """The instruction set in use: PATCHCUT_ISA, else the fastest available.

    Examples:
        >>> pk.get_isa() in ("baseline", "avx2", "avx512", "neon")
        True
    """
    return _C.get_isa()


def set_isa(name: str) -> None:
    """Chooses one of `available_isas()`.

    Raises:
        ValueError: the name is not among them.
    Examples:
        >>> slowest = pk.available_isas()[0]
        >>> pk.set_isa(slowest)
        >>> pk.get_isa() == slowest
        True
    """
    _C.set_isa(name)
