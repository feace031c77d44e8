"""Regions of a label map: connected, scored, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import CalibrationSpec
from patchcut.features import Array, to_host

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

# A region of this share of the frame has half the score that its confidence alone would give.
SCORE_AREA_SHARE = 0.01
# Confidences are cut off here before their logarithm is taken.
_SUREST = 1 - 1e-6


class _OnHost:
    """A field of a dataclass; an array on a GPU that it is given comes to the host when it is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self._name)  # so that the dataclass sees no default
        array = instance.__dict__[self._name] = to_host(instance.__dict__[self._name])
        return array

    def __set__(self, instance: object, array: Array) -> None:
        instance.__dict__[self._name] = array


def on_host() -> Any:
    """A field [...] in host memory, which may be set to an array on a GPU."""
    return _OnHost()


@dataclass(frozen=True, eq=False, kw_only=True)
class Regions:
    """m regions of one label map, best first; `Result`, which is one, says what the fields are."""

    label_map: Int32
    region_ids: Int32
    confidence: Float32 = on_host()
    boxes: Float32
    scores: Float32
    areas: npt.NDArray[np.int64]
    region_labels: Int32

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._found()}>"

    def _found(self) -> str:
        """Size and regions in a few words; whole arrays would fill the screen."""
        height, width = self.label_map.shape
        best = f", best {self.scores[0]:.2f}" if len(self.scores) else ""
        return f"{width}x{height}, {len(self.scores)} region{'' if len(self.scores) == 1 else 's'}{best}"

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: memory of a GPU means nothing to another process, so it comes down."""
        return {name: to_host(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Components:
    """The m 8-connected components of a label map that are large enough.

    Attributes:
        label_map: [H, W] int32, 0 is background and what was too small.
        ids: [H, W] int32, i + 1 where component i is, in scan order; 0 elsewhere.
        confidence: [H, W] float32 in [0, 1], of the label that each pixel had; it may lie on a GPU.
        stats: area, box, mean confidence and label of each.
        kept: pixels that have their label from the frame before, as flat indices; no score depends on them.
    """

    label_map: Int32
    ids: Int32
    confidence: Array
    stats: kernels.RegionStats
    kept: npt.NDArray[np.intp] | None = None

    @property
    def features(self) -> Float64:
        """[m, 4] float64, what a calibration weighs: `region_features`."""
        height, width = self.label_map.shape
        return region_features(self._of_this_frame, (height, width))

    @property
    def plain_scores(self) -> Float32:
        """[m] float32 in [0, 1], scores without a calibration."""
        return plain_scores(self._of_this_frame, self.label_map.size)

    @property
    def _of_this_frame(self) -> kernels.RegionStats:
        """The statistics without the pixels that are kept, of those that have others."""
        if self.kept is None or not len(self.kept):
            return self.stats
        area, mean = self.stats.area, self.stats.mean_confidence
        assert mean is not None
        ids = np.take(self.ids, self.kept)
        count, total = (
            np.bincount(ids, weights, minlength=len(area) + 1)[1:]
            for weights in (None, np.take(to_host(self.confidence), self.kept))
        )
        left = area - count
        mean = np.where(left > 0, np.clip((area * mean - total) / np.maximum(left, 1), 0, 1), mean)
        return replace(
            self.stats, area=np.where(left > 0, left, area), mean_confidence=mean.astype(np.float32)
        )


@dataclass(frozen=True)
class Rules:
    """Which components are regions, and how they score.

    Attributes:
        min_score: in [0, 1]; regions that score less are none. What a caller asks for.
        nothing_below: in [0, 1]; the same. What the calibration asks for, so that where nothing is shown
            nothing is found, and beside an object no crumbs.
        single: whether the best one alone is.
        calibration: makes a score of the features of a region; None for `plain_scores`.
    """

    min_score: float = 0.0
    nothing_below: float = 0.0
    single: bool = False
    calibration: CalibrationSpec | None = None


def find_components(
    label_map: Int32, confidence: Float32, min_area: int, kept: npt.NDArray[np.intp] | None = None
) -> Components:
    """The components of at least `min_area` pixels; all others become background.

    Args:
        label_map: [H, W] int32, 0 is background; changed in place where a component is dropped.
        confidence: [H, W] float32 in [0, 1], of the label at each pixel.
        min_area: pixels, at least 1.
        kept: pixels that have their label from the frame before, as flat indices.
    """
    ids, count = kernels.connected_components(label_map, min_area=min_area, labels_out=label_map)
    stats = kernels.region_stats(ids, count, label_map=label_map, confidence=confidence)
    return Components(label_map, ids, confidence, stats, kept)


def rank(components: Components, rules: Rules) -> Regions:
    """The components that score enough, best first; all others become background, in place."""
    return ranked(components, *ranking(components, rules))


def ranking(components: Components, rules: Rules) -> tuple[Float32, npt.NDArray[np.intp]]:
    """The scores [m] float32 of all components, and those that score enough, best first, as indices."""
    if rules.calibration is None:
        scores = components.plain_scores
    else:
        scores = calibrated_scores(components.features, rules.calibration)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= max(rules.min_score, rules.nothing_below)]
    return scores, order[:1] if rules.single else order


def ranked(components: Components, scores: Float32, order: npt.NDArray[np.intp]) -> Regions:
    """Components order[0], order[1], ... as regions 1, 2, ...; the others become background, in place."""
    stats = components.stats
    assert stats.label is not None
    labels, count = stats.label[order], len(stats.area)
    if len(order) < count or np.any(order != np.arange(count)):
        _renumber(components.ids, order, count)
    if len(order) < count:
        table = np.concatenate([np.zeros(1, np.int32), labels])
        kernels.relabel(components.ids, table, out=components.label_map)
    return Regions(
        label_map=components.label_map,
        region_ids=components.ids,
        confidence=cast("Float32", components.confidence),  # which stays where it is until it is read
        boxes=stats.boxes_xyxy[order],
        scores=scores[order],
        areas=stats.area[order],
        region_labels=labels,
    )


def divide(
    objects: Regions, label_map: Int32, confidence: Float32, *, min_area: int, background: Sequence[int]
) -> tuple[Regions, Int32]:
    """The components of a label map that divides the objects of another, and its background, too.

    With them comes the number of the object [m] that each is of, from 1; 0 of the background.

    Args:
        objects: regions of the same frame; the parts of each have its score.
        label_map: [H, W] int32; components that are too small are no regions, but stay in it.
        confidence: [H, W] float32 in [0, 1].
        min_area: pixels, at least 1.
        background: labels of the background's regions; they come last, with `plain_scores`.
    """
    ids, count = kernels.connected_components(label_map, min_area=min_area)
    stats = kernels.region_stats(ids, count, label_map=label_map, confidence=confidence)
    components = Components(label_map, ids, confidence, stats)
    assert stats.label is not None
    owners = kernels.region_stats(ids, count, label_map=objects.region_ids).label
    assert owners is not None
    scores = np.append(np.float32(0), objects.scores)[owners]
    in_background = np.isin(stats.label, background)
    scores[in_background] = components.plain_scores[in_background]
    order = np.lexsort((-stats.area, -scores, in_background))
    return ranked(components, scores, order), owners[order]


def plain_scores(stats: kernels.RegionStats, frame_area: int) -> Float32:
    """[m] float32 in [0, 1]: mean confidence * area / (area + 0.01 * frame_area): sure and large first."""
    assert stats.mean_confidence is not None
    scores = stats.mean_confidence * stats.area / (stats.area + SCORE_AREA_SHARE * frame_area)
    return np.clip(scores, 0, 1).astype(np.float32)


def region_features(stats: kernels.RegionStats, frame_hw: tuple[int, int]) -> Float64:
    """[m, 4] float64, what a calibration weighs.

    They are the logit of the mean confidence; the logarithm of the share of the frame's area; how many of the
    frame's sides the box touches, 0 to 4; and the share of its box that the region fills, in (0, 1].
    """
    assert stats.mean_confidence is not None
    height, width = frame_hw
    sure = np.clip(stats.mean_confidence.astype(np.float64), 1 - _SUREST, _SUREST)
    x0, y0, x1, y1 = stats.boxes_xyxy.T.astype(np.float64)
    sides = (x0 <= 0).astype(np.float64) + (y0 <= 0) + (x1 >= width) + (y1 >= height)
    box_area = np.maximum((x1 - x0) * (y1 - y0), 1)
    share = stats.area / (height * width)
    return np.stack([np.log(sure / (1 - sure)), np.log(share), sides, stats.area / box_area], axis=1)


def calibrated_scores(features: Float64, calibration: CalibrationSpec) -> Float32:
    """[m] float32 in [0, 1], the probability that a region is an object."""
    logits = features @ np.array(calibration.weights) + calibration.bias
    scores: Float32 = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
    return scores


def _renumber(ids: Int32, order: npt.NDArray[np.intp], count: int) -> None:
    """Replaces order[i] + 1 in `ids` [H, W] by i + 1, in place; numbers that `order` leaves out become 0."""
    new = np.zeros(count + 1, np.int32)
    new[order + 1] = np.arange(1, len(order) + 1, dtype=np.int32)
    kernels.relabel(ids, new, out=ids)
