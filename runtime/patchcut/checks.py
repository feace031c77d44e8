"""Checks of what a caller chose; each raises an OptionError that names the option and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from pathlib import Path

from patchcut.errors import OptionError


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
        raise OptionError(option, f"must be one of {listed}, got {value!r}")


def check_whole(option: str, value: object, least: int, largest: int) -> None:
    """Checks that `value` is a whole number from `least` to `largest`.

    Raises:
        OptionError: it is no whole number, or out of that range.
    Examples:
        >>> patchcut.checks.check_whole("k", 1, 2, 256)
        Traceback (most recent call last):
        patchcut.errors.OptionError: [k] must be a whole number from 2 to 256, got 1
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= largest:
        raise OptionError(option, f"must be a whole number from {least} to {largest}, got {value!r}")


def check_number(option: str, value: object, least: float, largest: float) -> None:
    """Checks that `value` is a number from `least` to `largest`.

    Raises:
        OptionError: it is no number, or out of that range.
    Examples:
        >>> patchcut.checks.check_number("alpha", 0, 1e-6, 1e6)
        Traceback (most recent call last):
        patchcut.errors.OptionError: [alpha] must be a number from 1e-06 to 1e+06, got 0
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not least <= float(value) <= largest:
        raise OptionError(option, f"must be a number from {least:g} to {largest:g}, got {value!r}")


def check_flag(option: str, value: object) -> None:
    """Checks that `value` is True or False.

    Raises:
        OptionError: it is something else.
    Examples:
        >>> patchcut.checks.check_flag("single", "yes")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [single] must be True or False, got 'yes'
    """
    if not isinstance(value, bool):
        raise OptionError(option, f"must be True or False, got {value!r}")


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
        raise OptionError(option, f"must be {wanted}, got {str(value)!r}", "name one")
