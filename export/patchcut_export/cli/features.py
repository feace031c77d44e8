"""The command line's spelling of what features are: lists with commas, weights after colons."""

from __future__ import annotations

import math

from patchcut.errors import OptionError

from patchcut_export.backbones.vit import Component


def parse_components(facet: str, layer: str) -> tuple[Component, ...]:
    """Every facet of every layer; a component's weight is its facet's times its layer's.

    Args:
        facet: such as "key" or "key:2,value".
        layer: such as "-1" or "-1,-4:0.5".
    Raises:
        OptionError: an entry is not a name or a whole number, or a weight no number.
    """
    facets = _weighted("facet", facet)
    layers = [(_whole("layer", text), weight) for text, weight in _weighted("layer", layer)]
    return tuple(Component(name, index, a * b) for name, a in facets for index, b in layers)


def parse_scales(scales: str) -> tuple[float, ...]:
    """Numbers with commas between them, such as "1,0.5".

    Raises:
        OptionError: an entry is no number.
    """
    return tuple(_number("scales", text) for text in _entries("scales", scales))


def _entries(option: str, text: str) -> list[str]:
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise OptionError(option, f"must be a list with commas, got {text!r}")
    return entries


def _weighted(option: str, text: str) -> list[tuple[str, float]]:
    pairs = [entry.partition(":") for entry in _entries(option, text)]
    return [(name, _number(option, weight) if colon else 1.0) for name, colon, weight in pairs]


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise OptionError(option, f"must be whole numbers with commas, got {text!r}") from error


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise OptionError(option, f"{text!r} is not a number") from error
    if not math.isfinite(number):
        raise OptionError(option, f"must be finite, got {text}")
    return number
