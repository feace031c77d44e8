"""What the ways say of the same images, beside the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from patchcut import Segmenter
from patchcut.features import to_host
from patchcut.frames import Frame
from patchcut.stages import Canvas

from patchcut_export.measuring.parity.ways import Way

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What one way says of one image: features [n, d], labels [n], and the foreground [H, W] of its mask."""

    features: Float32
    labels: npt.NDArray[np.intp]
    foreground: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How near a way comes to the reference, over all images.

    Attributes:
        cosine_mean, cosine_worst: of a patch's features; the worst of all patches of all images.
        labels: share of patches that get the same label.
        iou_mean, iou_worst: of the masks of what is found, at the frames' own size; 1 where both are empty.
    """

    cosine_mean: float
    cosine_worst: float
    labels: float
    iou_mean: float
    iou_worst: float


def answer(segmenter: Segmenter, frame: Frame) -> Answer:
    """What a segmenter says of a frame, in memory of its own."""
    extractor, head = segmenter.extractor, segmenter.head
    features = extractor([frame])
    rows = np.array(to_host(features.default)[0])
    usable = features if features.device in head.devices else features.to("cpu")
    assignment = to_host(head(usable)[0])
    height, width = frame.image.shape[:2]
    canvas = Canvas.of((height, width), extractor.backbone, extractor.graph)
    label_map = segmenter.masks(frame, assignment, canvas).label_map
    return Answer(rows, assignment.argmax(axis=1), label_map > 0)


def compare(ways: Sequence[Way], reference: Way, frames: Iterable[Frame]) -> list[Agreement]:
    """Agreement of each way with the reference, in the order of `ways`."""
    found: list[list[tuple[Float32, float, float]]] = [[] for _ in ways]
    for frame in frames:
        wanted = answer(reference.segmenter, frame)
        for way, rows in zip(ways, found, strict=True):
            rows.append(beside(answer(way.segmenter, frame), wanted))
    return [_over_images(rows) for rows in found]


def beside(one: Answer, other: Answer) -> tuple[Float32, float, float]:
    """Cosine of each patch [n], share of equal labels, IoU of the masks."""
    lengths = np.linalg.norm(one.features, axis=1) * np.linalg.norm(other.features, axis=1)
    products = (one.features.astype(np.float64) * other.features).sum(axis=1)
    cosines = (products / np.maximum(lengths, 1e-30)).astype(np.float32)
    both, either = (one.foreground & other.foreground).sum(), (one.foreground | other.foreground).sum()
    return cosines, float((one.labels == other.labels).mean()), float(both / either) if either else 1.0


def _over_images(rows: list[tuple[Float32, float, float]]) -> Agreement:
    cosines, labels, ious = (np.stack(column) for column in zip(*rows, strict=True))
    return Agreement(
        cosine_mean=float(cosines.mean()),
        cosine_worst=float(cosines.min()),
        labels=float(labels.mean()),
        iou_mean=float(ious.mean()),
        iou_worst=float(ious.min()),
    )
