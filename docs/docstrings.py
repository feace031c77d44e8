"""A Griffe extension: reads this repository's docstrings and settings for the API page."""

from __future__ import annotations

import re
from typing import Any

from griffe import Attribute, Class, ExprCall, Extension, Object

# Griffe takes a title with no blank line above it for text, and only the first of several names for a name.
_TITLE = re.compile(r"(?<=\S)\n(?=(?:Args|Attributes|Examples|Raises|Returns):\n)")
_SEVERAL_NAMES = re.compile(r"^ {4}(\w+(?:, \w+)+)(:.*\n(?: {8}.*\n)*)", re.M)


class HouseStyle(Extension):
    """Sections of docstrings come out as sections, defaults of settings as plain values."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Puts a blank line above each section's title, and gives each name an entry."""
        if obj.docstring is not None:
            text = _TITLE.sub("\n\n", obj.docstring.value + "\n")
            obj.docstring.value = _SEVERAL_NAMES.sub(_an_entry_each, text)

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """Makes the default of a `Settings` field its first argument: `x: int = setting(1, ...)` is 1."""
        value = attr.value
        if isinstance(value, ExprCall) and str(value.function) == "setting":
            attr.value = value.arguments[0]

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Titles the attributes of `Settings` as arguments: only those are shown with their defaults."""
        if cls.path == "patchcut.settings.Settings" and cls.docstring is not None:
            cls.docstring.value = cls.docstring.value.replace("Attributes:\n", "Args:\n")


def _an_entry_each(entry: re.Match[str]) -> str:
    return "".join(f"    {name}{entry[2]}" for name in entry[1].split(", "))
