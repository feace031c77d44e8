"""Drawing: tinted masks, contours, boxes, and numbers of regions over a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.settings import ColorOrder
from patchcut.stages.regions import Regions

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]

# RGB. First a magenta that photographs seldom have, then Okabe and Ito's colours, apart even for colour-blind
# eyes, then nine more that are apart from these.
PALETTE_RGB = (
    (233, 30, 140),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (120, 60, 200),
    (150, 220, 60),
    (130, 80, 60),
    (20, 230, 230),
    (255, 160, 160),
    (150, 150, 150),
    (20, 30, 120),
    (120, 120, 0),
    (180, 255, 200),
)
# The palette's later rounds: mixed with black (0) or white (255) by a share. Then it begins again.
_ROUNDS = ((0, 0.0), (0, 0.4), (255, 0.45), (0, 0.65), (255, 0.7))
COLORS = len(PALETTE_RGB) * len(_ROUNDS)

TINT, BACKGROUND_TINT = 0.45, 0.25

# A plate for each of twenty parts hides what it is about: regions beyond these have their number only.
MAX_CAPTIONS = 6
# Shares of the frame that one plate, and all together, may take: a small frame has few, or none.
_LARGEST_PLATE, _MOST_COVERED = 1 / 12, 1 / 8
_STRIP_PIXELS = 1 << 16  # tinted at a time, so that a large frame needs no copies of it for that
_COARSE = 64  # pixels along a box within which the middle of a region is looked for


def color_of(number: int, order: ColorOrder = "rgb") -> tuple[int, int, int]:
    """Colour of a region's or a label's number, from 1, as (r, g, b) or (b, g, r) in 0..255.

    The first 80 differ.

    Examples:
        >>> patchcut.output.overlay.color_of(1)
        (233, 30, 140)
    """
    turn, i = divmod((number - 1) % COLORS, len(PALETTE_RGB))
    towards, share = _ROUNDS[turn]
    red, green, blue = (round(value + (towards - value) * share) for value in PALETTE_RGB[i])
    return (red, green, blue) if order == "rgb" else (blue, green, red)


def draw_overlay(
    regions: Regions,
    labels: Sequence[str],
    frame: Frame,
    background: Sequence[int] = (0,),
    *,
    by_label: bool = False,
    numbers: npt.NDArray[np.int32] | None = None,
    label_colors: Sequence[int] = (),
    named: bool = False,
) -> Image:
    """[H, W, 3] uint8: a copy of a frame with its regions drawn, best on top.

    Each region bears its number, and the best few have a box and a caption: the number, the label where there
    are several or they are names, the score. No text covers another: it moves, is cut to the number, or is
    left out. Regions of the background are tinted a little and have no outline.

    Args:
        regions: those of this very frame.
        labels: names of the columns.
        frame: whose order of channels the picture has.
        background: the columns that are background.
        by_label: as parts are drawn: a colour and at most one caption for each label, not for each region.
        numbers: [m] from 1, what each region is called and which colour it has, such as its track id; None
            is 1 for the best, 2, ...; regions that are drawn by label are always called so.
        label_colors: number of the colour of each label, 0 for none; of its column where there are none.
        named: whether labels are names, which are told where there is only one, too.
    Raises:
        PatchcutError: OpenCV is missing.
    Examples:
        >>> patchcut.output.overlay.draw_overlay(result, result.labels, patchcut.Frame(frame)).shape
        (512, 512, 3)
    """
    image = np.array(frame.image, order="C")
    if not len(regions.scores):
        return image
    behind = np.isin(regions.region_labels, background)
    ranks = np.arange(1, len(behind) + 1, dtype=np.int32)
    called = ranks if by_label or numbers is None else numbers
    if by_label:
        ids, ids_behind = regions.label_map, np.isin(np.arange(len(labels)), background)
        ids_color = np.array(label_colors or range(len(labels)))
        colors = ids_color[regions.region_labels]
    else:
        ids, ids_behind = regions.region_ids, np.append(True, behind)
        colors = called
        ids_color = np.append(0, colors)
    _tint(image, ids, np.where(ids_behind, 0, ids_color), TINT, frame.color)
    _tint(image, ids, np.where(ids_behind, ids_color, 0), BACKGROUND_TINT, frame.color)
    drawn = [color_of(int(number), frame.color) for number in colors]
    captioned = _captioned(regions, behind, by_label)
    for i in reversed(np.flatnonzero(~behind)):
        _outline(image, regions, int(i), drawn[i], boxed=int(i) in captioned)
    told = named or len(labels) - len(set(background)) > 1
    names = [f": {labels[column]}" if told else "" for column in regions.region_labels]
    texts = {i: f"{called[i]}{names[i]} {regions.scores[i]:.2f}" for i in captioned}
    _write(image, regions, texts, called, drawn)
    return image


def _captioned(regions: Regions, behind: npt.NDArray[np.bool_], by_label: bool) -> list[int]:
    """The regions that have a box and a caption: the first ones, by label the first of each."""
    shown = [int(i) for i in np.flatnonzero(~behind)]
    if by_label:
        first = {int(regions.region_labels[i]): i for i in reversed(shown)}
        shown = sorted(first.values())
    return shown[:MAX_CAPTIONS]


def _tint(
    image: Image,
    ids: npt.NDArray[np.int32],
    numbers: npt.NDArray[np.integer[Any]],
    share: float,
    order: ColorOrder,
) -> None:
    """Blends a share of the colour of the number numbers[id] into each pixel of `image`; 0 is none."""
    cv2 = load_cv2()
    table = np.where(numbers > 0, (numbers - 1) % COLORS + 1, 0).astype(np.uint8)
    if not table.any():
        return
    rows = max(1, _STRIP_PIXELS // image.shape[1])
    for top in range(0, image.shape[0], rows):
        strip = image[top : top + rows]
        codes = _look_up(table, ids[top : top + rows])
        colors = cv2.applyColorMap(codes, _color_map(order))
        cv2.copyTo(cv2.addWeighted(strip, 1 - share, colors, share, 0), codes, strip)


def _look_up(table: Mask, ids: npt.NDArray[np.int32]) -> Mask:
    """table[ids], which numpy takes ten times as long for."""
    if len(table) > 256:
        return table.take(ids, mode="clip")
    padded = np.zeros(256, np.uint8)
    padded[: len(table)] = table
    return load_cv2().LUT(ids.astype(np.uint8), padded)  # type: ignore[no-any-return]


@cache
def _color_map(order: ColorOrder) -> Image:
    """[256, 1, 3] uint8, black and then the colours of the numbers."""
    colors = [(0, 0, 0), *(color_of(number, order) for number in range(1, 256))]
    return np.array(colors, np.uint8)[:, None]


def _outline(image: Image, regions: Regions, i: int, color: tuple[int, int, int], *, boxed: bool) -> None:
    cv2 = load_cv2()
    x0, y0, x1, y1 = (int(side) for side in regions.boxes[i])
    thickness = max(1, round(min(image.shape[:2]) / 300))
    mask = (regions.region_ids[y0:y1, x0:x1] == i + 1).view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, contours, -1, color, thickness, cv2.LINE_AA, offset=(x0, y0))
    if boxed:
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), color, thickness)


def _write(
    image: Image,
    regions: Regions,
    texts: dict[int, str],
    called: npt.NDArray[np.integer[Any]],
    colors: Sequence[tuple[int, int, int]],
) -> None:
    """The captions, and the numbers of all regions that have none."""
    plates = _Plates(image)
    put = {i for i, text in texts.items() if plates.put(text, regions, i, colors[i])}
    for i in range(len(colors)):
        if i not in put:
            plates.put(str(called[i]), regions, i, colors[i], inside=True)


class _Plates:
    """Texts on plates of one colour, as large as the image asks for, none of which covers another."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._scale = max(0.4, min(image.shape[:2]) / 1000)
        self._thickness = max(1, round(self._scale * 1.5))
        self._free = np.ones(image.shape[:2], bool)  # where no plate is yet
        self._pixels_left = self._free.size * _MOST_COVERED

    def put(
        self, text: str, regions: Regions, i: int, color: tuple[int, int, int], *, inside: bool = False
    ) -> bool:
        """Whether there was room for region i's text: beside its box, or where the region is widest."""
        font = load_cv2().FONT_HERSHEY_SIMPLEX
        (text_width, text_height), baseline = load_cv2().getTextSize(text, font, self._scale, self._thickness)
        pad = max(2, baseline // 2)
        height, width = text_height + baseline + pad, text_width + 2 * pad
        most_y, most_x = self._image.shape[0] - height, self._image.shape[1] - width
        most = min(self._pixels_left, self._free.size * _LARGEST_PLATE)
        if min(most_x, most_y) < 0 or height * width > most:
            return False
        corners = _beside(regions.boxes[i], (height, width))
        for corner in chain(_inside(regions, i, (height, width)), corners) if inside else corners:
            x, y = min(max(corner[0], 0), most_x), min(max(corner[1], 0), most_y)
            plate = np.s_[y : y + height, x : x + width]
            if self._free[plate].all():
                self._free[plate] = False
                self._pixels_left -= height * width
                self._image[plate] = color
                self._ink(text, (x + pad, y + text_height + pad // 2 + 1), color)
                return True
        return False

    def _ink(self, text: str, origin: tuple[int, int], color: tuple[int, int, int]) -> None:
        cv2 = load_cv2()
        ink = (0, 0, 0) if sum(color) > 330 else (255, 255, 255)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(self._image, text, origin, font, self._scale, ink, self._thickness, cv2.LINE_AA)


def _beside(box: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Corners (x, y) of a plate at a box: above it, in it, below it; left, then right."""
    x0, y0, x1, y1 = (int(side) for side in box)
    for y in (y0 - size_hw[0], y0, y1):
        yield x0, y
        yield x1 - size_hw[1], y


def _inside(regions: Regions, i: int, size_hw: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The corner (x, y) of a plate in the middle of a region, where it is widest."""
    x0, y0, x1, y1 = (int(side) for side in regions.boxes[i])
    step = max(1, max(x1 - x0, y1 - y0) // _COARSE)
    mask = regions.region_ids[y0:y1:step, x0:x1:step] == i + 1
    cv2 = load_cv2()
    depth = cv2.distanceTransform(np.pad(mask, 1).view(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    if mask.any():  # not between the pixels looked at
        yield int(x0 + (x - 1) * step - size_hw[1] // 2), int(y0 + (y - 1) * step - size_hw[0] // 2)
