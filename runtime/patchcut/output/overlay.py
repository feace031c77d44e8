"""Drawing: tinted masks, contours, boxes and scores over a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.errors import FrameError
from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.settings import ColorOrder
from patchcut.stages.regions import Regions

Image = npt.NDArray[np.uint8]

# RGB by column of the assignment, from column 1: a label has one colour on every frame. First a magenta that
# photographs seldom have, then Okabe and Ito's colours, apart even for colour-blind eyes, then nine more that
# are apart from these; then round again.
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
TINT, BACKGROUND_TINT = 0.45, 0.25


def color_of(column: int, order: ColorOrder = "rgb") -> tuple[int, int, int]:
    """Colour of a column of the assignment, (r, g, b) or (b, g, r) in 0..255.

    Examples:
        >>> patchcut.output.overlay.color_of(1)
        (233, 30, 140)
    """
    red, green, blue = PALETTE_RGB[(column - 1) % len(PALETTE_RGB)]
    return (red, green, blue) if order == "rgb" else (blue, green, red)


def draw_overlay(
    regions: Regions, labels: Sequence[str], frame: Frame, background: Sequence[int] = (0,)
) -> Image:
    """[H, W, 3] uint8: a copy of a frame with its regions drawn, best on top.

    Regions of the background are tinted a little and have no outline. A caption that would cover a better
    region's is left out.

    Args:
        regions: those of this very frame.
        labels: names of the columns.
        frame: whose order of channels the picture has.
        background: the columns that are background.
    Raises:
        FrameError: the frame is not of the regions' size.
        PatchcutError: OpenCV is missing.
    Examples:
        >>> patchcut.output.overlay.draw_overlay(result, result.labels, patchcut.Frame(frame)).shape
        (512, 512, 3)
    """
    if frame.image.shape[:2] != regions.label_map.shape:
        came = f"got {frame.image.shape[:2]}, the result is of {regions.label_map.shape}"
        raise FrameError(
            "overlay", f"frame and result must have one size; {came}", "pass the frame it was made from"
        )
    cv2 = load_cv2()
    image = np.array(frame.image, order="C")
    for column in map(int, np.unique(regions.region_labels)):
        share = BACKGROUND_TINT if column in background else TINT
        _tint(cv2, image, regions.label_map == column, color_of(column, frame.color), share)
    shown = [i for i, column in enumerate(regions.region_labels) if column not in background]
    for i in reversed(shown):
        _draw_region(cv2, image, regions, i, frame.color)
    free = np.ones(image.shape[:2], bool)
    for i in shown:
        text = f"{labels[regions.region_labels[i]]} {regions.scores[i]:.2f}"
        _draw_caption(cv2, image, free, text, regions.boxes[i], _color(regions, i, frame.color))
    return image


def _color(regions: Regions, i: int, order: ColorOrder) -> tuple[int, int, int]:
    return color_of(int(regions.region_labels[i]), order)


def _tint(
    cv2: Any, image: Image, mask: npt.NDArray[np.bool_], color: tuple[int, int, int], share: float
) -> None:
    """Blends a share of one colour into `image` under `mask`, by a table of each channel's 256 values."""
    values = np.arange(256)[:, None] * (1 - share) + np.array(color) * share
    table = np.rint(values).astype(np.uint8)[None]
    cv2.copyTo(cv2.LUT(image, table), mask.view(np.uint8), image)


def _draw_region(cv2: Any, image: Image, regions: Regions, i: int, order: ColorOrder) -> None:
    x0, y0, x1, y1 = (int(side) for side in regions.boxes[i])
    color = _color(regions, i, order)
    thickness = max(1, round(min(image.shape[:2]) / 300))
    mask = (regions.region_ids[y0:y1, x0:x1] == i + 1).view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, contours, -1, color, thickness, cv2.LINE_AA, offset=(x0, y0))
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), color, thickness)


def _draw_caption(
    cv2: Any,
    image: Image,
    free: npt.NDArray[np.bool_],
    text: str,
    box: npt.NDArray[np.float32],
    color: tuple[int, int, int],
) -> None:
    """A text on a plate above the box, moved inside the frame; none where it cannot be read.

    Args:
        free: [H, W] bool, where no caption is yet; changed in place.
    """
    height, width = image.shape[:2]
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.4, min(height, width) / 1000)
    thickness = max(1, round(scale * 1.5))
    (text_width, text_height), baseline = cv2.getTextSize(text, font, scale, thickness)
    pad = max(2, baseline // 2)
    plate_width, plate_height = text_width + 2 * pad, text_height + baseline + pad
    if plate_width > width or 3 * plate_height > height:
        return
    x = min(int(box[0]), width - plate_width)
    y = max(int(box[1]) - plate_height, 0)
    plate = np.s_[y : y + plate_height, x : x + plate_width]
    if not free[plate].all():
        return
    free[plate] = False
    image[plate] = color
    ink = (0, 0, 0) if sum(color) > 330 else (255, 255, 255)
    origin = (x + pad, y + text_height + pad // 2 + 1)
    cv2.putText(image, text, origin, font, scale, ink, thickness, cv2.LINE_AA)
