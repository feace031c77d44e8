"""Accuracy of a segmenter against masks and boxes, as the papers measure it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt
from patchcut import Result, Segmenter
from patchcut.sources.photos import read_photo

from patchcut_export.datasets import Boxes, Example
from patchcut_export.errors import DatasetError

Mask = npt.NDArray[np.bool_]

CORLOC_IOU = 0.5


@dataclass(frozen=True)
class Score:
    """One image's numbers; None is what its example does not tell.

    Attributes:
        name: of the image.
        iou: of the foreground, 1 where both are empty.
        accuracy: share of pixels that are right.
        hit: whether the best box has an IoU of at least 0.5 with any true one (CorLoc).
    """

    name: str
    iou: float | None = None
    accuracy: float | None = None
    hit: bool | None = None


@dataclass(frozen=True)
class Summary:
    """Means over a dataset.

    Attributes:
        images: how many.
        metrics: "mean foreground IoU", "pixel accuracy", "CorLoc", those that were measured.
    """

    images: int
    metrics: dict[str, float]


def evaluate(
    segmenter: Segmenter, examples: list[Example], advance: Callable[[int, int], None]
) -> Iterator[Score]:
    """Scores of the examples in order.

    Args:
        segmenter: made for BGR frames.
        examples: with masks, boxes or both.
        advance: called after each image with (done, total).
    Raises:
        SourceError: an image or mask cannot be read.
        DatasetError: a mask has another size than its image.
    """
    for done, example in enumerate(examples, 1):
        result = segmenter(read_photo(example.image))
        yield score(result, example)
        advance(done, len(examples))


def score(result: Result, example: Example) -> Score:
    """How one result compares with what is known of its image."""
    iou = accuracy = hit = None
    if example.mask is not None:
        expected = read_mask(example, result.label_map.shape)
        iou = mask_iou(result.foreground, expected)
        accuracy = float((result.foreground == expected).mean())
    if example.boxes_xyxy is not None:
        best = result.boxes[:1]
        hit = bool((box_ious(best, example.boxes_xyxy) >= CORLOC_IOU).any())
    return Score(example.name, iou, accuracy, hit)


def summarize(scores: list[Score]) -> Summary:
    """The means of scores."""
    columns = {"mean foreground IoU": "iou", "pixel accuracy": "accuracy", "CorLoc": "hit"}
    rows = [asdict(score) for score in scores]
    known = {
        title: [row[field] for row in rows if row[field] is not None] for title, field in columns.items()
    }
    return Summary(len(scores), {title: float(np.mean(values)) for title, values in known.items() if values})


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks [H, W]; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def box_ious(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """[m, n] intersection over union of boxes [m, 4] and [n, 4], xyxy, half-open."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    ious: npt.NDArray[np.float32] = shared / (areas[0][:, None] + areas[1][None] - shared)
    return ious


def read_mask(example: Example, size_hw: tuple[int, ...]) -> Mask:
    """[H, W] bool, an example's foreground.

    Raises:
        DatasetError: the mask cannot be read, or has another size than `size_hw`.
    """
    assert example.mask is not None
    try:
        data = np.fromfile(example.mask, np.uint8)
    except OSError as error:
        raise DatasetError(
            "eval", f"cannot read {example.mask}: {error.strerror}", "check the file"
        ) from error
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if mask is None:
        raise DatasetError("eval", f"{example.mask} cannot be read as an image", "copy it again")
    if mask.shape != size_hw:
        what = f"{example.mask} is {mask.shape[1]}x{mask.shape[0]}, its image {size_hw[1]}x{size_hw[0]}"
        raise DatasetError("eval", what, "masks must have their images' size")
    if mask.max(initial=0) == 1:
        what = f"{example.mask} has no value but 0 and 1, which are both dark"
        raise DatasetError("eval", what, "foreground must be above 127: multiply by 255")
    return np.asarray(mask > 127)
