"""The node's parameters: every setting of `patchcut.load`, and a few of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from patchcut import OptionError, Settings, StreamOptions
from patchcut.checks import check_choice, check_flag, check_number, plain

from patchcut_ros.loop import LIVE

TRANSPORTS = ("raw", "compressed")

# A parameter of ROS has a type and no None: what stands for a setting's None, by the setting's type.
_NONE: dict[type, Any] = {int: 0, float: -1.0}
# Recordings alone run frames beside each other.
_NOT_HERE = ("throughput",)


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: a setting's, or the node's own.
        default: a text, a number or a flag.
        description: what it does.
        none: the value that says that nothing is chosen; None where there is always something.
    """

    name: str
    default: str | float | bool
    description: str
    none: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What an operator chose of a node.

    Attributes:
        settings: of the segmenter.
        stream: of the loop.
        image_transport: "raw" or "compressed".
        warn_after: seconds without an image after which the node warns.
    """

    settings: Settings
    stream: StreamOptions
    image_transport: str
    warn_after: float


def _of_settings() -> list[Parameter]:
    found = []
    for one in fields(Settings):
        about = one.metadata
        if not about["on_command_line"] or one.name in _NOT_HERE:
            continue
        none = _NONE[about["type"]] if one.default is None else None
        means = f" {none:g} is {about['default_text']}." if none is not None else ""
        default: Any = one.default if none is None else none
        default = str(default) if about["type"] is str else default
        found.append(Parameter(one.name, default, about["help"] + means, none))
    return found


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "image_transport",
        "raw",
        "raw subscribes to image_raw (sensor_msgs/Image), compressed to image_raw/compressed.",
    ),
    *_of_settings(),
    Parameter("track", True, "Objects keep their ids, and what is found holds still; else each image alone."),
    Parameter("max_fps", 0.0, "At most so many answers a second. 0 is no limit.", 0.0),
    Parameter(
        "reuse_below",
        -1.0,
        "Images that differ by at most so many grey levels get the last one's answer. -1 segments all.",
        -1.0,
    ),
    Parameter("warn_after", 5.0, "Seconds without an image after which the node's diagnostics warn."),
)


def read_parameters(values: Mapping[str, Any]) -> Chosen:
    """What parameters choose; those that are not given have their defaults.

    Raises:
        OptionError: "[mode] must be one of "foreground", "parts", "scene", got 'objects'": there is no such
            parameter, or it has a value that is not allowed.
    Examples:
        >>> chosen = read_parameters({"mode": "parts", "size": 0, "nothing_below": -1.0, "max_fps": 10})
        >>> chosen.settings.mode, chosen.settings.size, chosen.stream.max_fps, chosen.image_transport
        ('parts', None, 10, 'raw')
    """
    known = {one.name: one for one in PARAMETERS}
    for name in values:
        if name not in known:
            raise OptionError(name, f"is no parameter; there are {', '.join(known)}")
    chosen = {one.name: _value(one, values.get(one.name, one.default)) for one in PARAMETERS}
    transport, warn_after = chosen.pop("image_transport"), chosen.pop("warn_after")
    check_choice("image_transport", transport, TRANSPORTS)
    check_number("warn_after", warn_after, 0.1, 3600)
    check_flag("track", chosen["track"])
    stream = {name: chosen.pop(name) for name in ("track", "max_fps", "reuse_below")}
    return Chosen(
        settings=Settings(**chosen),
        stream=replace(LIVE, **stream),
        image_transport=transport,
        warn_after=warn_after,
    )


def _value(parameter: Parameter, value: Any) -> Any:
    """A value as the settings take it: None for the number that stands for it."""
    value = plain(value)
    is_none = parameter.none is not None and not isinstance(value, bool) and value == parameter.none
    return None if is_none else value
