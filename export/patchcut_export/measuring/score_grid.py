"""A picture of the images that went best and worst, with the truth drawn over what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from patchcut import Segmenter
from patchcut.errors import OutputError
from patchcut.output.whole_files import write_image

from patchcut_export.measuring.datasets import Example
from patchcut_export.measuring.evaluation import Score
from patchcut_export.measuring.squares import read_image
from patchcut_export.measuring.truth import read_truth

_TILE = 224
_COLUMNS = 6
_SUFFIXES = (".jpg", ".jpeg", ".png")
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

Picture = npt.NDArray[np.uint8]


def check_picture(path: Path) -> None:
    """Checks that the name of `path` says a format in which a picture can be written.

    Raises:
        OutputError: it is none of JPEG and PNG.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError("output", f"cannot draw {path}", "name a .jpg or .png file")


def write_grid(path: Path, segmenter: Segmenter, examples: list[Example], scores: list[Score]) -> None:
    """Writes a picture: the best images in the upper rows, the worst in the lower.

    Raises:
        OutputError: it cannot be written.
    """
    order = sorted(range(len(scores)), key=lambda i: -_goodness(scores[i]))
    count = min(2 * _COLUMNS, len(order))
    rows = [order[:count][i : i + _COLUMNS] for i in range(0, count, _COLUMNS)]
    worst = order[max(count, len(order) - count) :]
    rows += [worst[i : i + _COLUMNS] for i in range(0, len(worst), _COLUMNS)]
    picture = np.full((_TILE * len(rows), _TILE * _COLUMNS, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, index in enumerate(row):
            tile = _tile(segmenter, examples[index], _goodness(scores[index]))
            picture[y * _TILE : (y + 1) * _TILE, x * _TILE : (x + 1) * _TILE] = tile
    write_image(path, picture)


def _goodness(score: Score) -> float:
    values = (score.iou, score.class_accuracy, score.box_iou)
    return next((value for value in values if value is not None), 0.0)


def _tile(segmenter: Segmenter, example: Example, goodness: float) -> Picture:
    image = read_image(example)
    overlay = np.ascontiguousarray(segmenter(image).overlay(image))
    _draw_truth(overlay, example)
    tile = cv2.resize(overlay, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    text = f"{example.name} {goodness:.2f}"
    for colour, thickness in ((_BLACK, 3), (_WHITE, 1)):
        cv2.putText(tile, text, (4, _TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _draw_truth(picture: Picture, example: Example) -> None:
    """Outlines true masks and boxes in white on black, as wide as makes a thin line in a tile."""
    width = max(1, round(max(picture.shape[:2]) / _TILE))
    outlines: list[Any] = []
    if example.mask is not None:
        for mask in _true_masks(example, picture.shape[:2]):
            outlines += cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    if example.boxes_xyxy is not None:
        corners = example.boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].round().astype(np.int32)
        outlines += list(corners.reshape(-1, 4, 1, 2))
    for colour, thickness in ((_BLACK, 3 * width), (_WHITE, width)):
        cv2.polylines(picture, outlines, True, colour, thickness)


def _true_masks(example: Example, size_hw: tuple[int, ...]) -> list[Picture]:
    """The foreground, or the pixels of each class of a semantic set."""
    truth = read_truth(example, size_hw)
    if example.classes is None or truth.classes is None:
        return [truth.foreground.astype(np.uint8)]
    numbers = np.unique(truth.classes[truth.foreground])
    return [(truth.classes == number).astype(np.uint8) for number in numbers]
