"""Checks of what a caller chose; each raises an OptionError that names the option and what is allowed.

Numbers and flags of numpy and its kin are as welcome as Python's own; `use_plain_values` makes them so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from patchcut.errors import OptionError

_SHOWN_LETTERS = 60


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Checks that `value` is one of `allowed`.

    Raises:
        OptionError: it is none of them.
    Examples:
        >>> patchcut.checks.check_choice("device", "gpu", ("auto", "cpu", "cuda"))
        Traceback (most recent call last):
        patchcut.errors.OptionError: [device] must be one of "auto", "cpu", "cuda", got 'gpu'
    """
    if not isinstance(value, str) or value not in allowed:
        listed = ", ".join(f'"{choice}"' for choice in allowed)
        raise OptionError(option, f"must be one of {listed}, got {shown(value)}")


def check_whole(option: str, value: object, least: int, largest: int) -> None:
    """Checks that `value` is a whole number from `least` to `largest`.

    Raises:
        OptionError: it is no whole number, or out of that range.
    Examples:
        >>> patchcut.checks.check_whole("k", 1, 2, 256)
        Traceback (most recent call last):
        patchcut.errors.OptionError: [k] must be a whole number from 2 to 256, got 1
    """
    number = plain(value)
    if not _is_among(number, Integral, least, largest):
        what = f"must be a whole number from {least} to {largest}, got {shown(value)}"
        raise OptionError(option, what)


def check_number(option: str, value: object, least: float, largest: float) -> None:
    """Checks that `value` is a number from `least` to `largest`.

    Raises:
        OptionError: it is no number, or out of that range.
    Examples:
        >>> patchcut.checks.check_number("alpha", 0, 1e-6, 1e6)
        Traceback (most recent call last):
        patchcut.errors.OptionError: [alpha] must be a number from 1e-06 to 1e+06, got 0
    """
    number = plain(value)
    if not _is_among(number, Real, least, largest):
        what = f"must be a number from {least:g} to {largest:g}, got {shown(value)}"
        raise OptionError(option, what)


def _is_among(number: Any, kind: type, least: float, largest: float) -> bool:
    # Compared as it is: 10**400 is no float.
    if not isinstance(number, kind) or isinstance(number, bool):
        return False
    value: Any = number
    return bool(least <= value <= largest)


def check_flag(option: str, value: object) -> None:
    """Checks that `value` is True or False.

    Raises:
        OptionError: it is something else.
    Examples:
        >>> patchcut.checks.check_flag("single", "yes")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [single] must be True or False, got 'yes'
    """
    if not isinstance(plain(value), bool):
        raise OptionError(option, f"must be True or False, got {shown(value)}")


def check_text(option: str, value: object) -> None:
    """Checks that `value` is a text that is not empty.

    Raises:
        OptionError: it is none.
    Examples:
        >>> patchcut.checks.check_text("engine", b"onnxruntime")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [engine] must be a text, got b'onnxruntime'
    """
    if not isinstance(value, str) or not value:
        raise OptionError(option, f"must be a text, got {shown(value)}")


def check_path(option: str, value: object, wanted: str) -> None:
    """Checks that `value` is a text or a path, and not empty.

    Raises:
        OptionError: it is something else, such as bytes or an open file, or has a NUL character.
    Examples:
        >>> patchcut.checks.check_path("bundle", b"x.patchcut", "a bundle's name or path")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [bundle] must be a bundle's name or path, got bytes; write it as a text
    """
    if not isinstance(value, str | Path):
        raise OptionError(option, f"must be {wanted}, got {type(value).__name__}", "write it as a text")
    if not str(value) or "\0" in str(value):
        raise OptionError(option, f"must be {wanted}, got {shown(str(value))}", "name one")


def check_environment() -> None:
    """Checks what the kernels read from the environment, which they refuse only when an op runs.

    Raises:
        OptionError: "[PATCHCUT_THREADS] must be 1 to 256, got '0'; change the environment variable, ...".
    Examples:
        >>> patchcut.checks.check_environment() is None
        True
    """
    import patchcut_kernels as kernels  # the command line's help needs none of it

    read: dict[str, Callable[[], object]] = {
        "PATCHCUT_THREADS": kernels.get_threads,
        "PATCHCUT_ISA": kernels.get_isa,
    }
    for name, get in read.items():
        try:
            get()
        except ValueError as error:
            allowed = str(error).partition(f"{name} ")[2].partition(", got ")[0] or "must be a text"
            what = f"{allowed}, got {shown(os.environ.get(name))}"
            raise OptionError(name, what, "change the environment variable, or unset it") from error


def plain(value: object) -> object:
    """A scalar of an array library as Python's own number; anything else as it is.

    Examples:
        >>> patchcut.checks.plain(np.float32(0.5))
        0.5
    """
    if type(value) in (str, int, float, bool) or getattr(value, "shape", None) != ():
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def use_plain_values(chosen: Any) -> None:
    """Makes `plain` what a frozen dataclass holds; called first in its `__post_init__`.

    Examples:
        >>> patchcut.heads.KMeansHead(k=np.int64(3)).k
        3
    """
    for one in fields(chosen):
        object.__setattr__(chosen, one.name, plain(getattr(chosen, one.name)))


def shown(value: object) -> str:
    """A value for an error: its repr, cut short; its type where it has none.

    Examples:
        >>> patchcut.checks.shown("x" * 1000)
        "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
        >>> patchcut.checks.shown(10**9999)
        'something of type int'
    """
    try:
        text = repr(value)
    except Exception:  # such as an int of more than 4300 digits, or a class of the caller's
        return f"something of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "..."
