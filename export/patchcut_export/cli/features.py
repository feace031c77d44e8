"""The command line's spelling of feature sets, sizes and precisions."""

from __future__ import annotations

import math
from typing import cast, get_args

from patchcut.bundle import Precision
from patchcut.checks import check_choice
from patchcut.errors import OptionError

from patchcut_export.backbones.spec import Component, FeatureSpec
from patchcut_export.cli.lists import parse_list

_GRAMMAR = "write it as key@-1, or NAME=key@-1:2+value@-4"


def parse_features(text: str, scales: tuple[float, ...], join: str, log_bins: int) -> dict[str, FeatureSpec]:
    """Feature sets by name, such as of "key@-1,semantic=token@8,cls@8".

    A set is [NAME=]COMPONENT{+COMPONENT}, a component FACET[@LAYER][:WEIGHT], of layer -1 and weight 1 where
    nothing else is said. A set that has no NAME= is called as its first facet.

    Args:
        scales, join, log_bins: of the sets of patches; class tokens and attention have one scale and no bins.
    Raises:
        OptionError: an entry cannot be read, or two sets have one name.
    """
    sets: dict[str, FeatureSpec] = {}
    for entry in parse_list("features", text):
        named, equals, rest = entry.rpartition("=")
        components = tuple(_component(part.strip(), entry) for part in rest.split("+"))
        name = named.strip() if equals else components[0].facet
        if name in sets:
            raise OptionError("features", f"two sets are called {name}", "name one with NAME=")
        spec = FeatureSpec(components)
        alone = spec.of_image or spec.of_attention
        sets[name] = spec if alone else FeatureSpec(components, scales, join, log_bins)
    return sets


def parse_scales(text: str) -> tuple[float, ...]:
    """Numbers with commas between them, such as "1,0.5".

    Raises:
        OptionError: an entry is no number.
    """
    return tuple(_number("scales", entry) for entry in parse_list("scales", text))


def parse_sizes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, such as "224,392".

    Raises:
        OptionError: an entry is no whole number.
    """
    return tuple(_whole("size", entry, f"got {text!r}") for entry in parse_list("size", text))


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Precisions with commas between them, such as "int8,fp16".

    Raises:
        OptionError: there is no such precision, or one comes twice.
    """
    entries = parse_list("precision", text)
    for entry in entries:
        check_choice("precision", entry, get_args(Precision))
    if len(set(entries)) != len(entries):
        raise OptionError("precision", f"must have each only once, got {text!r}")
    return cast("tuple[Precision, ...]", tuple(entries))


def _component(text: str, entry: str) -> Component:
    rest, colon, weight = text.partition(":")
    facet, at, layer = rest.partition("@")
    if not facet:
        raise OptionError("features", f"cannot read {entry!r}", _GRAMMAR)
    return Component(
        facet,
        _whole("features", layer, f"got {entry!r}") if at else -1,
        _number("features", weight) if colon else 1.0,
    )


def _whole(option: str, text: str, came: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        what = "a layer" if option == "features" else "a size"
        raise OptionError(option, f"{what} must be a whole number, {came}") from error


def _number(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise OptionError(option, f"{text!r} is not a number") from error
    if not math.isfinite(number):
        raise OptionError(option, f"must be finite, got {text}")
    return number
