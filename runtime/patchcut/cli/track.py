"""`patchcut track`: `patchcut run` of what somebody pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.cli.run import run
from patchcut.cli.run_options import RunOptions
from patchcut.errors import COPY_AGAIN, OptionError, SourceError
from patchcut.opencv import load_cv2
from patchcut.texts import name_text
from patchcut.video import prompts_of


def track(
    options: RunOptions,
    *,
    points: Sequence[str],
    boxes: Sequence[str],
    masks: Sequence[Path],
    names: Sequence[str],
    at: int,
) -> int:
    """The exit status of a run that follows what is pointed at.

    Args:
        options: those of the run.
        points, boxes: "X,Y" and "X0,Y0,X1,Y1" of each.
        masks: a picture for each, anything but black is the object.
        names: of the objects, in that order.
        at: index of the frame that is pointed at.
    Raises:
        OptionError: nothing is pointed at, a point, box or mask is none, or an option has no meaning here.
        SourceError: the picture of a mask cannot be read.
    """
    if not (points or boxes or masks):
        raise OptionError(
            "track", "needs at least one --point, --box or --mask", "or let `patchcut run` find objects"
        )
    for option, given in (
        ("no-track", not options.stream.track),
        ("reuse-below", options.stream.reuse_below is not None),
    ):
        if given:
            what = "is for objects that are found, not for those that are pointed at"
            raise OptionError(option, what, "leave it out")
    prompts = prompts_of(
        [_numbers("point", "X,Y", text) for text in points],
        [_numbers("box", "X0,Y0,X1,Y1", text) for text in boxes],
        [read_mask(path) for path in masks],
        names,
    )
    return run(replace(options, prompts=prompts, at=at))


def _numbers(option: str, wanted: str, text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(wanted.split(",")):
        raise OptionError(
            option, f"must be {wanted} in pixels, got {text!r}", "write numbers and commas only"
        )
    return numbers


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """[H, W] bool, where a picture is neither black nor transparent.

    Raises:
        SourceError: it cannot be read.
    """
    name = name_text(path)
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise SourceError(name, what, "name the picture of a mask") from error
    cv2: Any = load_cv2()
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        picture = None
    if picture is None:
        raise SourceError(name, "is no picture that OpenCV can read", COPY_AGAIN)
    if picture.ndim == 2:
        return np.asarray(picture != 0)
    mask: npt.NDArray[np.bool_] = (picture[..., :3] != 0).any(axis=2)
    return mask & (picture[..., 3] != 0) if picture.shape[2] == 4 else mask
