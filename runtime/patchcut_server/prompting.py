"""What a client of a stream points at: one object of JSON a message."""

from __future__ import annotations

import json
from typing import Any

from patchcut.errors import OptionError, PatchcutError
from patchcut.video import PointedObjects, Prompt

# Objects of one stream; each costs a column of its assignment.
_MOST_OBJECTS = 32
_MOST_TEXT, _MOST_NAME = 4096, 64
_KINDS = ("point", "box", "remove")


def point_at(objects: PointedObjects, text: str) -> dict[str, Any]:
    """What to answer to a message that points at an object, or has one forgotten; never raises.

    Args:
        objects: of the stream; they are changed.
        text: {"point": [x, y]} or {"box": [x0, y0, x1, y1]} in pixels of the frame that comes next, with a
            "name" or without; or {"remove": id}.
    Returns:
        {"added": id}, {"removed": id} or {"error": why}.
    Examples:
        >>> objects = PointedObjects()
        >>> point_at(objects, '{"point": [10, 20]}'), point_at(objects, '{"remove": 1}')
        ({'added': 1}, {'removed': 1})
        >>> point_at(objects, "here")
        {'error': '[prompt] must be an object of JSON with one of point, box and remove'}
    """
    try:
        return _changed(objects, _read(text))
    except PatchcutError as error:
        return {"error": str(error)}


def _read(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text) if len(text) <= _MOST_TEXT else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or sum(kind in said for kind in _KINDS) != 1:
        raise OptionError("prompt", "must be an object of JSON with one of point, box and remove")
    if unknown := sorted(said.keys() - {*_KINDS, "name"}):
        raise OptionError("prompt", f"has no {unknown[0][:60]!r}; there are {', '.join(_KINDS)}, name")
    name = said.get("name", "")
    if not (isinstance(name, str) and len(name) <= _MOST_NAME and name.isprintable()):
        raise OptionError("name", f"must be a text of at most {_MOST_NAME} letters")
    return said


def _changed(objects: PointedObjects, said: dict[str, Any]) -> dict[str, Any]:
    if "remove" in said:
        number = said["remove"]
        if not isinstance(number, int) or isinstance(number, bool):
            raise OptionError("remove", "must be the id of an object")
        objects.remove(number)
        return {"removed": number}
    if len(objects.ids) >= _MOST_OBJECTS:
        raise OptionError("prompt", f"would be more than {_MOST_OBJECTS} objects", "remove one first")
    prompt = Prompt(point=said.get("point"), box=said.get("box"), name=said.get("name", ""))
    if objects.frame_hw is not None:
        prompt.check_frame(objects.frame_hw)
    return {"added": objects.add(prompt)}
