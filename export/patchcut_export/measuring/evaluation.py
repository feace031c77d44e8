"""Accuracy of a segmenter against masks, boxes and parts, as the papers measure it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby

import cv2
import numpy as np
import numpy.typing as npt
from patchcut import Result, Segmenter
from patchcut.stages import Canvas

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Dataset, Example
from patchcut_export.measuring.empty_scenes import background_crop
from patchcut_export.measuring.metrics import (
    Contingency,
    Curve,
    add_contingencies,
    adjusted_rand_index,
    box_ious,
    contingency,
    f_beta,
    mask_iou,
    normalized_mutual_information,
    precision_recall,
)
from patchcut_export.measuring.protocols import Protocol
from patchcut_export.measuring.semantic import SEMANTIC_METRICS, ClassScore, LabelCounts, count_labels
from patchcut_export.measuring.squares import read_image
from patchcut_export.measuring.truth import Truth, read_truth
from patchcut_export.measuring.videos import (
    VIDEO_METRICS,
    Change,
    FrameOfVideo,
    compare_frames,
    find_objects,
    object_track_ids,
    overlaps,
    summarize_videos,
    unchanged_patches,
)

CORLOC_IOU = 0.5
# Rows and columns on which the part of an image without foreground is looked for.
_CROP_GRID = 32
BETA_SQUARED = 0.3
# SelfMask's code, which FOUND took over, squares β² = 0.3 once more; their tables were made with it.
SELFMASK_BETA_SQUARED = 0.3**2


@dataclass(frozen=True, eq=False)
class Score:
    """One image's numbers; None is what its example does not tell.

    Attributes:
        name: the image's.
        sequence: the video it is a frame of.
        iou: the foreground's, 1 where both are empty.
        accuracy: share of pixels that are right.
        f_max: F-measure at the image's own best threshold, as SelfMask's code has it.
        box_iou: the best box's, with the true one that is nearest.
        hit: whether that is at least 0.5 (CorLoc).
        kept: whether something was found in the image.
        empty: whether nothing was found in a part of it without foreground.
        f_curve: [255] float64, F-measure at each threshold, β² = 0.3.
        parts: [k, c] int64, how many pixels or keypoints of each class each column has.
        labels: the same with all classes of a semantic set, which are matched over the whole set.
        class_accuracy: share of pixels whose class is right, known once they are matched.
        video: what it adds to the numbers of its video.
    """

    name: str
    sequence: str | None = None
    iou: float | None = None
    accuracy: float | None = None
    f_max: float | None = None
    box_iou: float | None = None
    hit: bool | None = None
    kept: bool | None = None
    empty: bool | None = None
    class_accuracy: float | None = None
    f_curve: Curve | None = None
    parts: Contingency | None = None
    labels: LabelCounts | None = None
    video: FrameOfVideo | None = None

    def to_dict(self) -> dict[str, object]:
        """What goes into a line of JSON: all but the arrays, which are there for the means over the set."""
        left_out = ("f_curve", "parts", "labels", "video")
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}
        return plain if self.video is None else plain | self.video.to_dict()


@dataclass(frozen=True)
class Summary:
    """Numbers of a dataset.

    Attributes:
        images: how many.
        metrics: those of `METRICS` that were measured.
        videos: of each video, those that it has by itself.
        classes: of each class of a semantic set, by its name.
    """

    images: int
    metrics: dict[str, float]
    videos: dict[str, dict[str, float]] = field(default_factory=dict)
    classes: dict[str, ClassScore] = field(default_factory=dict)


# What each number is, for the protocol.
METRICS = {
    "mean foreground IoU": "mean over the images",
    "pixel accuracy": "mean over the images",
    "max F-beta": "beta^2 = 0.3, mean over the images at the best of 255 thresholds for the set (TokenCut)",
    "max F-beta (SelfMask)": "beta^2 = 0.09, mean of each image's best of 255 thresholds (SelfMask, FOUND)",
    "CorLoc": "share of images whose best box has an IoU of at least 0.5 with any true one",
    "objects kept": "share of images in which something is found, scores below the bundle's limit left out",
    "empty scenes": "share of images in whose largest rectangle without foreground nothing is found",
    **VIDEO_METRICS,
    **SEMANTIC_METRICS,
    "NMI": "of column and class over all foreground pixels, or visible keypoints, of the set",
    "ARI": "of column and class over all foreground pixels, or visible keypoints, of the set",
}


def evaluate(
    segmenter: Segmenter,
    examples: list[Example],
    advance: Callable[[int, int], None],
    empty_scenes: bool = False,
) -> Iterator[Score]:
    """Scores of the examples in order.

    Args:
        segmenter: made for BGR frames.
        examples: with masks, boxes, keypoints.
        advance: called after each image with (done, total).
        empty_scenes: also measure what is found in images and in parts of them that show nothing.
    Raises:
        SourceError: an image or mask cannot be read.
        DatasetError: a mask is not what its kind says.
    """
    for done, example in enumerate(examples, 1):
        image = read_image(example)
        result = segmenter(image)
        found = score(result, example)
        yield _with_empty_scene(found, segmenter, image, result, example) if empty_scenes else found
        advance(done, len(examples))


def evaluate_videos(
    segmenter: Segmenter,
    dataset: Dataset,
    protocol: Protocol,
    step: Callable[[str, int, int], None],
    empty_scenes: bool = False,
) -> Iterator[Score]:
    """Scores of the frames of videos in order.

    Args:
        segmenter: made for BGR frames.
        dataset: of videos.
        protocol: how results of a video come about.
        step: called before each video and after each of its frames with (title, done, total).
        empty_scenes: as in `evaluate`.
    Raises:
        SourceError: a frame or mask cannot be read.
        DatasetError: a mask is not what its kind says, a video has no object or frames of several sizes.
    """
    groups = groupby(dataset.examples, key=lambda example: example.sequence or "")
    videos = {name: list(frames) for name, frames in groups}
    objects = {name: find_objects(frames) for name, frames in videos.items()}
    for number, (name, frames) in enumerate(videos.items(), 1):
        title = f"{name}, {number} of {len(videos)}"
        step(title, 0, len(frames))
        unchanged = unchanged_patches(segmenter.extractor, frames)  # first: a stream may use the engine ahead
        before: Result | None = None
        for i, (example, result) in enumerate(zip(frames, protocol.run(segmenter, frames), strict=True)):
            truth = read_truth(example, result.label_map.shape)
            counts = dataset.ends_count or not example.is_end
            change = None if before is None else _change(segmenter, example, result, before, unchanged[i - 1])
            video = FrameOfVideo(
                counts,
                overlaps(result, truth, objects[name], followed=protocol.follows),
                _nothing(result, truth),
                change,
                object_track_ids(result, truth, objects[name]),
            )
            found = replace(_score(result, example, truth), video=video)
            if empty_scenes:
                image = read_image(example)
                found = _with_empty_scene(found, segmenter, image, result, example)
            yield found
            before = result
            step(title, i + 1, len(frames))


def _nothing(result: Result, truth: Truth) -> bool | None:
    return result.best_box is None if truth.foreground.any() else None


def _change(
    segmenter: Segmenter, example: Example, now: Result, before: Result, unchanged: npt.NDArray[np.bool_]
) -> Change:
    height, width = now.label_map.shape
    if now.label_map.shape != before.label_map.shape:
        sizes = (
            f"{width}x{height}, the frame before it {before.label_map.shape[1]}x{before.label_map.shape[0]}"
        )
        raise DatasetError(f"{example.image} is {sizes}", "frames of a video must have one size")
    extractor = segmenter.extractor
    canvas = Canvas.of((height, width), extractor.backbone, extractor.graph)
    if now.named:
        return compare_frames(now.label_map, before.label_map, unchanged, canvas)
    return compare_frames(now.foreground, before.foreground, unchanged, canvas)


def score(result: Result, example: Example) -> Score:
    """How one result compares with what is known of its image; F-measures cut its `soft_mask`."""
    truth = None if example.mask is None else read_truth(example, result.label_map.shape)
    return _score(result, example, truth)


def _score(result: Result, example: Example, truth: Truth | None) -> Score:
    if truth is not None and example.classes is not None:
        count = len(example.classes.names)
        return Score(example.name, labels=count_labels(result, truth, count, example.name))
    found = Score(example.name, example.sequence, parts=_parts(result, example, truth))
    if truth is not None:
        found = _with_mask(found, result, truth)
    if example.boxes_xyxy is not None:
        box = result.best_box
        ious = np.zeros(0) if box is None else box_ious(box[None], example.boxes_xyxy)
        iou = float(ious.max(initial=0))
        found = replace(found, box_iou=iou, hit=iou >= CORLOC_IOU)
    return found


def _with_mask(score: Score, result: Result, truth: Truth) -> Score:
    known = np.s_[:] if truth.known is None else truth.known
    found, expected = result.foreground[known], truth.foreground[known]
    accuracy = float((found == expected).mean()) if found.size else 1.0
    precision, recall = precision_recall(result.soft_mask[known], expected)
    return replace(
        score,
        iou=mask_iou(found, expected),
        accuracy=accuracy,
        f_curve=f_beta(precision, recall, BETA_SQUARED),
        f_max=float(f_beta(precision, recall, SELFMASK_BETA_SQUARED).max()),
    )


def _with_empty_scene(
    score: Score, segmenter: Segmenter, image: npt.NDArray[np.uint8], result: Result, example: Example
) -> Score:
    kept = _finds_something(segmenter, result)
    if example.mask is None:
        return replace(score, kept=kept)
    foreground = read_truth(example, image.shape[:2]).foreground.astype(np.float32)
    on_grid = cv2.resize(foreground, (_CROP_GRID, _CROP_GRID), interpolation=cv2.INTER_AREA)
    crop = background_crop(image, np.asarray(on_grid > 0, np.float32))
    if crop is None:
        return replace(score, kept=kept)
    return replace(score, kept=kept, empty=not _finds_something(segmenter, segmenter(crop)))


def _finds_something(segmenter: Segmenter, result: Result) -> bool:
    """Whether the best region of the foreground scores what the settings, or the calibration, ask for."""
    rules = segmenter.masks.rules
    threshold = rules.nothing_below
    if rules.calibration is not None:
        threshold = threshold or rules.calibration.nothing_below
    return result.best_box is not None and float(result.scores[0]) >= threshold


def _parts(result: Result, example: Example, truth: Truth | None) -> Contingency | None:
    """Columns against classes or keypoints; None for heads that tell foreground from background only."""
    if (truth is None or truth.classes is None) and example.keypoints is None:
        return None
    if len(result.labels) <= 2:
        return None
    if truth is not None and truth.classes is not None:
        return contingency(result.label_map[truth.foreground], truth.classes[truth.foreground])
    assert example.keypoints is not None
    height, width = result.label_map.shape
    x, y, part = example.keypoints.T
    return contingency(result.label_map[y.clip(0, height - 1), x.clip(0, width - 1)], part)


def summarize(scores: list[Score]) -> Summary:
    """The numbers of a dataset from those of its images, the ones that were measured."""
    metrics = {
        "mean foreground IoU": _mean([s.iou for s in scores]),
        "pixel accuracy": _mean([s.accuracy for s in scores]),
        "max F-beta": _best_mean([s.f_curve for s in scores if s.f_curve is not None]),
        "max F-beta (SelfMask)": _mean([s.f_max for s in scores]),
        "CorLoc": _mean([s.hit for s in scores]),
        "objects kept": _mean([s.kept for s in scores]),
        "empty scenes": _mean([s.empty for s in scores]),
        **_part_metrics([s.parts for s in scores if s.parts is not None]),
    }
    known = {title: value for title, value in metrics.items() if value is not None}
    videos: dict[str, list[FrameOfVideo]] = {}
    for one in scores:
        if one.sequence is not None and one.video is not None:
            videos.setdefault(one.sequence, []).append(one.video)
    of_all, of_each = summarize_videos(videos)
    return Summary(len(scores), of_all | known, of_each)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _best_mean(curves: list[Curve]) -> float | None:
    return float(np.mean(curves, axis=0).max()) if curves else None


def _part_metrics(tables: list[Contingency]) -> dict[str, float]:
    if not tables:
        return {}
    table = add_contingencies(tables)
    return {"NMI": normalized_mutual_information(table), "ARI": adjusted_rand_index(table)}
