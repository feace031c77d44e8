"""What a data set is to an evaluation: images, and what is known of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Keypoints = npt.NDArray[np.int32]

# On what semantic masks are measured: `Example.square`.
RESOLUTIONS: Mapping[str, int | None] = {"full": None, "320": 320}

# How a mask's file says what is foreground:
# "grey": above half of the range; "colour": anything but black; "index": a class per pixel, 0 is background
# and 255 is not known; "objects": the same with an object of the video per pixel; "semantic": a value per
# pixel, of which `Classes.of_values` makes a class; "panoptic": the same in red, green and blue tell objects.
MaskKind = Literal["grey", "colour", "index", "objects", "semantic", "panoptic"]

VOID = 255
_NOT_OF_NAMES = re.compile(r"[\W_]+")


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set for semantic segmentation.

    Attributes:
        names: of the classes 0 to c - 1; no two are the same to `plain_name`.
        of_values: the class of each value that a mask may have; `VOID` where it is not known.
        has_background: whether class 0 is background.
        by_iou: whether clusters are matched so that the sum of the IoUs is largest; else so that most pixels
            are right.
        other_names: more names of some classes: a column that is called so stands for the class, too.
    """

    names: tuple[str, ...]
    of_values: Mapping[int, int]
    has_background: bool
    by_iou: bool = False
    other_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def numbers(self) -> dict[str, int]:
        """The class of each of their names, as `plain_name` has it."""
        numbers = {plain_name(name): number for number, name in enumerate(self.names)}
        for number, name in enumerate(self.names):
            for other in self.other_names.get(name, ()):
                numbers.setdefault(plain_name(other), number)
        return numbers


def plain_name(name: str) -> str:
    """What has to be equal for two names to be the same: "TV/monitor" and "tvmonitor" are."""
    return _NOT_OF_NAMES.sub("", name).casefold()


@dataclass(frozen=True)
class Example:
    """One image and what is known of it.

    Attributes:
        name: the image's, without its folder; "SEQUENCE/FRAME" in a video.
        image: its file.
        mask: the file of its foreground mask.
        mask_kind: how that file is read.
        boxes_xyxy: [m, 4] float32, half-open pixels.
        keypoints: [p, 3] int32, (x, y, part) of the visible ones.
        sequence: the video it is a frame of.
        is_end: whether it is the first or the last frame of that.
        upright: whether the truth is that of the image as its EXIF orientation shows it; False: as stored.
        classes: of a "semantic" or "panoptic" mask.
        square: the image and its mask are scaled so that the shorter side has so many pixels, and the square
            in the middle is measured; None is all of it, as it is.
    """

    name: str
    image: Path
    mask: Path | None = None
    mask_kind: MaskKind = "grey"
    boxes_xyxy: Boxes | None = None
    keypoints: Keypoints | None = None
    sequence: str | None = None
    is_end: bool = False
    upright: bool = True
    classes: Classes | None = None
    square: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Examples, and what has to be said of them beside a number.

    Attributes:
        name: the set's and its split's.
        examples: sorted by name.
        truth: how its truth was read, for the protocol.
        published: how many images the published set has; None for anybody's own.
        ends_count: of videos, whether their first and last frames are measured.
        classes: of sets for semantic segmentation.
    """

    name: str
    examples: list[Example]
    truth: str
    published: int | None = None
    ends_count: bool = True
    classes: Classes | None = None


@dataclass(frozen=True)
class Choices:
    """What may be chosen of a data set; None is the layout's own default.

    Attributes:
        split: such as "val".
        names: a file that lists the images, one a line.
        difficult: whether boxes that are marked as difficult count as objects.
        sequences: names of the videos to take.
        every: frames 0, every, 2 * every, ... of each video are taken.
        background: whether class 0 is background.
        resolution: a key of `RESOLUTIONS`.
    """

    split: str | None = None
    names: Path | None = None
    difficult: bool | None = None
    sequences: tuple[str, ...] | None = None
    every: int | None = None
    background: bool | None = None
    resolution: str | None = None

    def words(self) -> list[str]:
        """The options of the command line that repeat these choices."""
        words = [] if self.split is None else ["--split", self.split]
        words += [] if self.names is None else ["--list", self.names.name]
        words += [] if self.sequences is None else ["--sequences", ",".join(self.sequences)]
        words += [] if self.every is None else ["--every", str(self.every)]
        words += {None: [], True: ["--difficult"], False: ["--no-difficult"]}[self.difficult]
        words += {None: [], True: ["--background"], False: ["--no-background"]}[self.background]
        return words + ([] if self.resolution is None else ["--resolution", self.resolution])
