"""Texts without the names of users and the passwords of addresses, for a report that is sent to others."""

from __future__ import annotations

import os
import pwd
import re
from functools import cache
from pathlib import Path
from typing import Any

# Folders that hold one folder a user.
_HOMES = re.compile(r"/(?:home|Users|run/media|media|run/user|export/home|var/home)/[^/\s:;,'\"()]+")
_LOGIN = re.compile(r"(\w+://)[^/\s@]+@")
_SECRET = re.compile(r"((?:pass|passwd|password|pwd|token|secret|auth|key)=)[^&\s;,]*", re.IGNORECASE)


def without_users(value: Any) -> Any:
    """A value with "~" in place of homes and of users' names in paths, in all texts that it holds.

    Examples:
        >>> from patchcut.doctor.private import without_users
        >>> without_users(["/media/ann/x", "rtsp://ann:secret@camera/1"])
        ['~/x', 'rtsp://...@camera/1']
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(name)): without_users(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_users(one) for one in value]
    return value


def _text(text: str) -> str:
    for home in _homes():
        # A shell expands no ~ within quotes.
        text = re.sub(rf"'{re.escape(home)}/(?=[^']*')", "~/'", text)
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
    text = _HOMES.sub("~", text)
    for name in _names():
        text = re.sub(rf"(?<=/){re.escape(name)}(?![\w.-])", "~", text)
    return _SECRET.sub(r"\1...", _LOGIN.sub(r"\1...@", text))


@cache
def _homes() -> list[str]:
    """This user's home, as the environment and as the system have it; "/" is none."""
    found = {os.environ.get("HOME", ""), *(entry.pw_dir for entry in _entries())}
    found |= {os.path.realpath(home) for home in found if home}
    return sorted(
        (home.rstrip("/") for home in found if Path(home).is_absolute() and home.strip("/")), key=len
    )[::-1]


@cache
def _names() -> list[str]:
    """This user's names; that of the administrator is none."""
    found = {os.environ.get("USER", ""), os.environ.get("LOGNAME", ""), *(one.pw_name for one in _entries())}
    return sorted(found - {"", "root"})


def _entries() -> list[pwd.struct_passwd]:
    try:
        return [pwd.getpwuid(os.getuid())]
    except KeyError:  # a user that the system does not know, as in containers
        return []
