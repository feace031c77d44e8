"""Texts made of names: those of files may hold any bytes, and a terminal obeys some characters."""

from __future__ import annotations

import contextlib
import os

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def name_text(path: str | os.PathLike[str]) -> str:
    """A file's name as text that every encoder takes: its bytes as UTF-8, those that are none as %XX.

    It does not depend on the locale, in which Python reads names.
    Examples:
        >>> patchcut.texts.name_text("caf\\udce9.jpg")
        'caf%E9.jpg'
    """
    text = os.fspath(path)
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:  # no name that a file can have
        data = text.encode("utf-8", "surrogatepass")
    return encodable(data.decode("utf-8", "surrogateescape"))


def encodable(text: str) -> str:
    """A text that UTF-8 takes: bytes that Python could not read, and halves of characters, become %XX.

    Examples:
        >>> patchcut.texts.encodable("caf\\udce9 \\ud800")
        'caf%E9 %ED%A0%80'
    """
    with contextlib.suppress(UnicodeEncodeError):  # UTF-8 that Python took for bytes
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return "".join(map(_encodable, text))


def one_line(text: str) -> str:
    """A text as a terminal may print it: line breaks and other control characters are written as escapes.

    Examples:
        >>> patchcut.texts.one_line("a\\n\\x1b[31mb")
        'a\\\\n\\\\x1b[31mb'
    """
    return "".join(map(_printable, encodable(text)))


def _encodable(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that it could not read
        return f"%{ord(character) & 0xFF:02X}"
    if "\ud800" <= character <= "\udfff":
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    width = "x02" if code < 0x100 else "u04" if code < 0x10000 else "U08"
    return _ESCAPES.get(character, f"\\{width[0]}{code:{width[1:]}x}")
