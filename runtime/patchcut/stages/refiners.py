"""Refiners: each moves a label map's borders onto the frame's edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.frames import Frame

LabelMap = npt.NDArray[np.int32]
Confidence = npt.NDArray[np.float32]

# The guided filter's window reaches GUIDED_RADIUS patches, which is how far off a border may be, and takes
# GUIDED_SAMPLES samples on the way. On 300 images of ECSSD at 224 the IoU rises from 0.736 to 0.761; with
# half the radius to 0.757, with 10 times the eps to 0.758.
GUIDED_RADIUS = 1.0
GUIDED_SAMPLES = 4
GUIDED_EPS = 1e-4
# How sure the bilateral solver is told to be of every pixel, as in TokenCut.
BILATERAL_CONFIDENCE = 0.999
# The solver takes up to 200 bytes a pixel (measured on noise): of larger frames it sees so many samples.
BILATERAL_PIXELS = 2**20
_STRIP_PIXELS = 2**20


@dataclass(frozen=True, eq=False, repr=False)
class PatchLabels:
    """A label map as the patches have it, before its borders are refined.

    Attributes:
        label_map: [H, W] int32, 0 is background.
        confidence: [H, W] float32 in [0, 1], the head's value of the label at each pixel.
        two_columns: whether the assignment had two columns: background and foreground.
        patch_side: side of what a row of the assignment stands for, a patch or a cell of one, in pixels of
            the frame.
    """

    label_map: LabelMap
    confidence: Confidence
    two_columns: bool
    patch_side: float

    @property
    def soft(self) -> Confidence:
        """[H, W] float32 in [0, 1], how much each pixel is foreground; only where there are two columns."""
        soft: Confidence = np.subtract(self.label_map == 0, self.confidence, dtype=np.float32)
        return np.abs(soft, out=soft)


Refined = tuple[LabelMap, Confidence]
Refiner = Callable[[PatchLabels, Frame], Refined]


def keep_borders(unrefined: PatchLabels, frame: Frame) -> Refined:
    """The label map as it is: borders stay where the upsampled assignment has them."""
    return unrefined.label_map, unrefined.confidence


def guided(unrefined: PatchLabels, frame: Frame) -> Refined:
    """Borders after the guided filter (He, Sun, Tang 2013) with the frame's colours as its guide."""
    radius = max(1, round(GUIDED_RADIUS * unrefined.patch_side))
    subsample = max(1, radius // GUIDED_SAMPLES)
    two_columns = unrefined.two_columns
    refined = kernels.guided_refine(
        frame.image,
        unrefined.soft if two_columns else unrefined.label_map,
        radius,
        GUIDED_EPS,
        subsample=subsample,
    )
    return _cut(refined) if two_columns else _moved(unrefined, refined)


def bilateral(unrefined: PatchLabels, frame: Frame) -> Refined:
    """Borders after the fast bilateral solver (1511.03296), with the settings of TokenCut (2202.11539)."""
    samples = _samples(unrefined.label_map.shape)
    label_map, image = unrefined.label_map[samples], frame.image[samples]
    small = replace(frame, image=image, visible=None)
    if unrefined.two_columns:
        soft = _solved(label_map > 0, small)
        return _cut(soft) if soft.shape == unrefined.label_map.shape else _enlarged(soft, unrefined)
    present = np.unique(label_map)
    best, labels = _solved(label_map == present[0], small), np.zeros(label_map.shape, np.int32)
    for i in range(1, len(present)):
        solved = _solved(label_map == present[i], small)
        np.copyto(labels, i, where=solved > best)
        np.maximum(best, solved, out=best)
    if labels.shape != unrefined.label_map.shape:
        one_hot = np.eye(len(present), dtype=np.float32)[labels.ravel()]
        labels = kernels.upsample_argmax(one_hot, label_map.shape, unrefined.label_map.shape)
    return _moved(unrefined, kernels.relabel(labels, present.astype(np.int32)))


def _samples(size_hw: tuple[int, ...]) -> Any:
    """Index of the rows and columns that the bilateral solver sees: all of them in most frames."""
    height, width = size_hw
    share = math.sqrt(BILATERAL_PIXELS / (height * width))
    if share >= 1:
        return np.s_[:, :]
    rows, columns = (
        ((np.arange(count) + 0.5) * (side / count)).astype(np.intp)
        for side in size_hw
        for count in [max(1, int(side * share))]
    )
    return np.ix_(rows, columns)


def _enlarged(soft: Confidence, unrefined: PatchLabels) -> Refined:
    """Label map and confidence of two columns, from how much each sample is foreground, [h, w] float32."""
    columns = np.stack([1 - soft, soft], axis=-1).reshape(-1, 2)
    labels, confidence = kernels.upsample_argmax(
        columns, soft.shape, unrefined.label_map.shape, confidence=True
    )
    return labels, np.minimum(confidence, 1, out=confidence)


def _solved(mask: npt.NDArray[np.bool_], frame: Frame) -> Confidence:
    """[H, W] float32, about 0 to 1: a mask [H, W] bool after the bilateral solver."""
    sure = np.full(mask.shape, BILATERAL_CONFIDENCE, np.float32)
    return kernels.bilateral_solver(frame.image, mask.astype(np.float32), sure, color=frame.color, out=sure)


# Each turns an unrefined label map and the frame into a label map [H, W] int32 and its confidence, float32.
REFINERS: Mapping[str, Refiner] = {
    "none": keep_borders,
    "guided": guided,
    "bilateral": bilateral,
}


def refine(name: str, unrefined: PatchLabels, frame: Frame, min_area: int) -> Refined:
    """The label map [H, W] int32 after a refiner, and its confidence [H, W] float32.

    Args:
        name: a key of `REFINERS`.
        unrefined: its `label_map` may be changed: components that are too small become background first.
        min_area: pixels of the smallest component that is kept.
    No refiner may move a region away: one that is left with less than half of its pixels keeps its own mask,
    and so does the background; a label that is more than half new pixels gives them back. Where that does
    not mend it, nothing is refined.
    """
    if name == "none":
        return keep_borders(unrefined, frame)
    before = _Unrefined.of(unrefined.label_map, min_area)
    labels, confidence = REFINERS[name](unrefined, frame)
    for _ in range(2):  # what is taken back may leave specks of others
        kernels.connected_components(labels, min_area=min_area, labels_out=labels)
        lost, swollen = before.over_half_changed(labels)
        if not (lost.any() or swollen.any()):
            return labels, confidence
        for at in changed(unrefined.label_map, labels):
            back = at[lost[np.take(before.ids, at)] | swollen[np.take(labels, at)]]
            np.put(labels, back, np.take(unrefined.label_map, back))
            np.put(confidence, back, np.take(unrefined.confidence, back))
    return keep_borders(unrefined, frame)


@dataclass(frozen=True, eq=False)
class _Unrefined:
    """A label map before it is refined, and how large what is in it is.

    Attributes:
        label_map: [H, W] int32, 0 is background.
        ids: [H, W] int32, i + 1 where component i is, 0 elsewhere.
        areas: [m + 1] int64, pixels of the background and of each component.
        labels: [m + 1] int32, their labels; 0 of the background.
    """

    label_map: LabelMap
    ids: LabelMap
    areas: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]

    @classmethod
    def of(cls, label_map: LabelMap, min_area: int) -> _Unrefined:
        """Components of fewer than `min_area` pixels become background first, in place."""
        ids, count = kernels.connected_components(label_map, min_area=min_area, labels_out=label_map)
        stats = kernels.region_stats(ids, count, label_map=label_map)
        assert stats.label is not None
        areas = np.append(ids.size - stats.area.sum(), stats.area)
        return cls(label_map, ids, areas, np.append(np.int32(0), stats.label))

    def over_half_changed(self, after: LabelMap) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """[m + 1] bool: whether a component, or the background, has lost over half of its pixels.

        And [k] bool: whether over half of the pixels of a label of `after` are new; False for the background,
        since what that won a component has lost.
        """
        k = int(max(self.labels.max(), after.max(initial=0))) + 1
        lost, won = np.zeros_like(self.areas), np.zeros(k, np.int64)
        for at in changed(self.label_map, after):
            lost += np.bincount(np.take(self.ids, at), minlength=len(lost))
            won += np.bincount(np.take(after, at), minlength=k)
        kept_of_labels = np.bincount(self.labels, self.areas - lost, minlength=k)
        swollen = won > kept_of_labels
        swollen[0] = False
        return 2 * lost > self.areas, swollen


def changed(before: LabelMap, after: LabelMap) -> Iterator[npt.NDArray[np.intp]]:
    """Where two label maps [H, W] differ, as flat indices; in strips, since they are larger than a map."""
    height, width = after.shape
    rows = max(1, _STRIP_PIXELS // width)
    for begin in range(0, height, rows):
        strip = np.s_[begin : begin + rows]
        yield np.flatnonzero(before[strip] != after[strip]) + begin * width


def _cut(soft: Confidence) -> Refined:
    """Label map and confidence of two columns, from how much each pixel is foreground, [H, W] float32.

    The confidence is written over `soft`.
    """
    labels = (soft > 0.5).astype(np.int32)
    soft -= 0.5
    np.abs(soft, out=soft)
    soft += 0.5
    return labels, np.minimum(soft, 1, out=soft)


def _moved(unrefined: PatchLabels, labels: LabelMap) -> Refined:
    """Label map and confidence of several columns: a pixel's new label has at most what its old one left."""
    confidence = unrefined.confidence.copy()
    np.subtract(1, confidence, out=confidence, where=labels != unrefined.label_map)
    return labels, confidence
