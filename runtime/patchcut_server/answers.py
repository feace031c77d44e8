"""What a client gets of a result: JSON, or a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from patchcut import Result
from patchcut.errors import OptionError
from patchcut.output.label_maps import encode_label_map
from patchcut.output.whole_files import encode_image

from patchcut_server.refusals import Refusal

Answer = tuple[str, bytes]


def _json(result: Result) -> Answer:
    return "application/json", json.dumps(result.to_dict(masks="rle")).encode()


def _labels(result: Result) -> Answer:
    return "image/png", encode_label_map(result.label_map, len(result.labels), result.label_colors)


def _overlay(result: Result) -> Answer:
    return "image/jpeg", encode_image(Path("overlay.jpg"), result.overlay())


def _cutout(result: Result) -> Answer:
    return "image/png", encode_image(Path("cutout.png"), result.cutout())


OUTPUTS: dict[str, Callable[[Result], Answer]] = {
    "json": _json,
    "labels": _labels,
    "overlay": _overlay,
    "cutout": _cutout,
}
_BY_MEDIA_TYPE = {
    "application/json": "json",
    "application/*": "json",
    "image/png": "labels",
    "image/jpeg": "overlay",
    "image/*": "overlay",
    "*/*": "json",
}


def choose_output(word: str | None, accept: str) -> Callable[[Result], Answer]:
    """What makes the answer: what `output=` says, else what the header Accept likes best.

    Args:
        word: json, labels, overlay or cutout; None where nothing is said.
        accept: the header; "" is as if it were */*.
    Raises:
        OptionError: there is no such word.
        Refusal: 406, nothing that is accepted can be given.
    Examples:
        >>> choose_output(None, "image/png") is OUTPUTS["labels"]
        True
    """
    if word is not None:
        if word not in OUTPUTS:
            raise OptionError("output", f"must be one of {', '.join(OUTPUTS)}, got {word[:60]!r}")
        return OUTPUTS[word]
    liked = sorted(map(_liking, (accept or "*/*").split(",")), key=lambda one: -one[1])
    for media_type, weight in liked:
        if weight > 0 and media_type in _BY_MEDIA_TYPE:
            return OUTPUTS[_BY_MEDIA_TYPE[media_type]]
    what = "names nothing of application/json, image/png (labels) and image/jpeg (overlay)"
    raise Refusal(406, OptionError("Accept", what, f"or say output={'|'.join(OUTPUTS)}"))


def _liking(word: str) -> tuple[str, float]:
    """A media type of the header Accept, and its weight."""
    media_type, *parameters = (part.strip().lower() for part in word.split(";"))
    weight = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                weight = float(parameter[2:])
            except ValueError:
                weight = 0.0
    return media_type, weight
