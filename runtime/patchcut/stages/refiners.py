"""Refiners: each moves a label map's borders onto the frame's edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
        patch_side: side of a patch in pixels of the frame.
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
    before = unrefined.label_map
    ids, count = kernels.connected_components(before, min_area=min_area, labels_out=before)
    labels, confidence = REFINERS[name](unrefined, frame)
    for _ in range(2):  # what is taken back may leave specks of others
        kernels.connected_components(labels, min_area=min_area, labels_out=labels)
        moved = _moved_away(before, ids, count, labels)
        if moved is None:
            return labels, confidence
        np.copyto(labels, before, where=moved)
        np.copyto(confidence, unrefined.confidence, where=moved)
    return keep_borders(unrefined, frame)


def _moved_away(before: LabelMap, ids: LabelMap, count: int, after: LabelMap) -> npt.NDArray[np.bool_] | None:
    """[H, W] bool: pixels lost by regions that lost over half, or won by labels that are over half new.

    None where there are no such regions and labels.
    """
    same = before == after
    lost = _is_over_half_changed(ids, count, same)
    swollen = _is_over_half_changed(after, int(after.max()), same)
    swollen[0] = False  # what the background won, a region has lost
    if not (lost.any() or swollen.any()):
        return None
    moved: npt.NDArray[np.bool_] = (lost[ids] | swollen[after]) & ~same
    return moved


def _is_over_half_changed(ids: LabelMap, count: int, same: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """[count + 1] bool, whether fewer than half of the pixels of each number 0 to count are the same."""
    areas = kernels.region_stats(ids, count).area
    kept = np.zeros_like(areas)
    rows = max(1, _STRIP_PIXELS // ids.shape[1])
    for begin in range(0, len(ids), rows):  # so that no second map of numbers is made
        strip = np.s_[begin : begin + rows]
        kept += kernels.region_stats(ids[strip] * same[strip], count).area
    kept_of_0 = np.count_nonzero(same) - kept.sum()
    over_half_changed: npt.NDArray[np.bool_] = np.append(
        2 * kept_of_0 < ids.size - areas.sum(), 2 * kept < areas
    )
    return over_half_changed


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
