"""Accuracy and steadiness on videos: J and F of DAVIS, and how much changes from frame to frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt
from patchcut import Result
from patchcut.features import to_host
from patchcut.stages import Canvas, Extractor

from patchcut_export.errors import DatasetError
from patchcut_export.measuring.datasets import Example
from patchcut_export.measuring.datasets.sizes import picture_size
from patchcut_export.measuring.metrics import Contour, best_matching, contour_f, mask_iou, recall_and_decay
from patchcut_export.measuring.protocols import read_frames
from patchcut_export.measuring.truth import Truth, read_truth

Mask = npt.NDArray[np.bool_]

# Regions that are matched with objects, the best: as many as the unsupervised challenge of DAVIS allows.
MOST_REGIONS = 20
# Features of a patch are unchanged where their cosine is at least this. On videos of DAVIS at 224, JPEG at
# quality 30 leaves 99.9 % of the patches above; from one frame to the next it is 81 %.
UNCHANGED_COSINE = 0.95
# What each number is, for the protocol.
VIDEO_METRICS = {
    "region J": "mean over all objects of the mean IoU over frames (DAVIS)",
    "region J recall": "mean over all objects of the share of frames with J > 0.5 (DAVIS)",
    "region J decay": "J of the first quarter of frames less that of the last, mean over all objects (DAVIS)",
    "contour F": "mean over all objects of the F-measure of contours, within 0.8% of the diagonal (DAVIS)",
    "contour F recall": "mean over all objects of the share of frames with F > 0.5 (DAVIS)",
    "contour F decay": "the same as region J decay of the F-measure of contours (DAVIS)",
    "J&F": "mean of region J and contour F (DAVIS)",
    "nothing found": "share of frames that show an object and have no region, mean over the videos",
    "pixels that change": "share of pixels that are foreground on one of two neighbouring frames "
    "only; of heads whose columns are names, of those that have another label",
    "unsteadiness": "the same of pixels in patches whose features did not change, "
    f"cosine at least {UNCHANGED_COSINE:g}",
    "id switches": "how often the region that shows most of an object has another track id than the last "
    "time, mean over all objects; where results have ids",
}
# The only object of a video whose truth tells foreground from background and no more.
_FOREGROUND = 1


@dataclass(frozen=True)
class Overlap:
    """J and F of an object on one frame, both in [0, 1]."""

    j: float
    f: float


@dataclass(frozen=True)
class Change:
    """How much of a frame's foreground is otherwise than on the frame before.

    Attributes:
        pixels: share of the frame that is foreground on one of both, and not on the other.
        unchanged: share of the frame in patches whose features did not change.
        unsteady: share of those pixels that is foreground on one of both only; None where there are none.
    A patch did not change where the cosine of its features on both frames is at least 0.95: those of the set
    that the head reads first, at the same place of the grid. A pixel goes with the patch in which it lies.
    """

    pixels: float
    unchanged: float
    unsteady: float | None


@dataclass(frozen=True)
class FrameOfVideo:
    """What a frame adds to the numbers of its video.

    Attributes:
        counts: whether `objects` and `nothing` are measured here.
        objects: of each object of the video.
        nothing: whether no region was found although the truth shows an object; None where it shows none.
        change: since the frame before; None of the first.
        track_ids: of each object that a region shows, that of the region that shows most of it; None where
            results have no ids.
    """

    counts: bool
    objects: Mapping[int, Overlap]
    nothing: bool | None
    change: Change | None = None
    track_ids: Mapping[int, int] | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def find_objects(frames: Sequence[Example]) -> tuple[int, ...]:
    """The objects of a video: the numbers in its first mask, or 1 where masks tell foreground only.

    Raises:
        DatasetError: there are none.
    """
    first = frames[0].mask
    assert first is not None
    if frames[0].mask_kind == "objects":
        truth = _truth(frames[0])
        assert truth.objects is not None
        if not truth.foreground.any():
            what = f"{first} shows no object, and the first mask says which objects a video has"
            raise DatasetError(
                what, "mend it, choose other --sequences, or measure masks of 0 and 255 as davis16"
            )
        return tuple(np.unique(truth.objects[truth.foreground]).tolist())
    if not any(_truth(frame).foreground.any() for frame in frames):
        what = f"no mask in {first.parent} shows an object"
        raise DatasetError(what, "mend them or choose other --sequences")
    return (_FOREGROUND,)


def _truth(frame: Example) -> Truth:
    assert frame.mask is not None
    return read_truth(frame, picture_size(frame.mask, upright=False))


def overlaps(
    result: Result, truth: Truth, objects: Sequence[int], *, followed: bool = False
) -> dict[int, Overlap]:
    """J and F of each object of a video on one frame.

    Where masks tell foreground only, what is found is the union of all regions of the foreground. Else the
    regions, at most the 20 best, are matched with the objects of this frame so that the mean of J and F is
    largest; an object that is matched with none has 0. With an object that the frame does not show no region
    is matched, and it has 1. Where the objects were pointed at, column i of the result is object i of them,
    and nothing is matched.

    Args:
        objects: as `find_objects` gives them.
        followed: whether they were pointed at, in this order.
    Pixels that are not known are left out of J, and are background for F.
    """
    known = np.ones(truth.foreground.shape, bool) if truth.known is None else truth.known
    if truth.objects is None:
        pairs = _compare([result.foreground & known], [truth.foreground])
        return {_FOREGROUND: pairs[0][0]}
    if followed:
        own = [(result.label_map == i) & known for i in range(1, len(objects) + 1)]
        each = zip(objects, own, strict=True)
        return {number: _compare([mask], [truth.objects == number])[0][0] for number, mask in each}
    shown = [number for number in objects if (truth.objects == number).any()]
    regions = [result.region_ids == i + 1 for i in _foreground_regions(result)[:MOST_REGIONS]]
    pairs = _compare([region & known for region in regions], [truth.objects == n for n in shown])
    means = np.array([[(pair.j + pair.f) / 2 for pair in row] for row in pairs]).reshape(-1, len(shown))
    matched = {shown[column]: pairs[row][column] for row, column in best_matching(means)}
    missed = {number: Overlap(0.0, 0.0) if number in shown else Overlap(1.0, 1.0) for number in objects}
    return missed | matched


def object_track_ids(result: Result, truth: Truth, objects: Sequence[int]) -> dict[int, int] | None:
    """The track id of the region that shows most of each object; of those that one shows at all.

    Args:
        objects: as `find_objects` gives them.
    Returns:
        None where the result has no track ids.
    """
    if result.track_ids is None:
        return None
    shown = {}
    for number in objects:
        mask = truth.foreground if truth.objects is None else truth.objects == number
        pixels = np.bincount(result.region_ids[mask], minlength=len(result.track_ids) + 1)[1:]
        if pixels.any():
            shown[number] = int(result.track_ids[pixels.argmax()])
    return shown


def _foreground_regions(result: Result) -> list[int]:
    """The regions that are not background, best first."""
    return [i for i, label in enumerate(result.region_labels) if label not in result.background_columns]


def _compare(found: Sequence[Mask], truths: Sequence[Mask]) -> list[list[Overlap]]:
    """J and F of each mask with each true one."""
    true_contours = [Contour.of(truth) for truth in truths]
    rows = []
    for mask in found:
        contour = Contour.of(mask)
        pairs = zip(truths, true_contours, strict=True)
        rows.append([Overlap(mask_iou(mask, truth), contour_f(contour, true)) for truth, true in pairs])
    return rows


def unchanged_patches(extractor: Extractor, frames: Sequence[Example]) -> list[Mask]:
    """[h, w] bool of the patch grid for each frame after the first: where its features did not change.

    Raises:
        SourceError: a frame cannot be read.
        EngineError: the backbone failed.
    """
    tiny = np.finfo(np.float32).tiny
    before, unchanged = None, []
    for frame in read_frames(frames):
        features = to_host(extractor([frame]).default)[0]
        now = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), tiny)
        if before is not None:
            cosines = np.einsum("nd,nd->n", now, before).reshape(extractor.graph.grid_hw)
            unchanged.append(cosines >= UNCHANGED_COSINE)
        before = now
    return unchanged


def compare_frames(
    now: Mask | npt.NDArray[np.int32],
    before: Mask | npt.NDArray[np.int32],
    unchanged: Mask,
    canvas: Canvas,
) -> Change:
    """What changed from one frame to the next.

    Args:
        now, before: [H, W] of both: bool, the foreground, or int32, the label maps of a head whose columns
            are names.
        unchanged: [h, w] bool, patches whose features did not change.
        canvas: where the frame lies.
    """
    changed = now != before
    on_canvas = cv2.resize(unchanged.view(np.uint8), canvas.size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    pixels = canvas.on_frame(np.asarray(on_canvas, np.uint8)).view(bool)
    unsteady = float(changed[pixels].mean()) if pixels.any() else None
    return Change(float(changed.mean()), float(pixels.mean()), unsteady)


def summarize_videos(
    videos: Mapping[str, Sequence[FrameOfVideo]],
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The numbers of all videos together, and of each.

    J and F of all are means over all objects of all videos, as DAVIS 2017 has them; where each video has one,
    they are means over the videos, as DAVIS 2016 has them. The others are means over the videos.
    """
    objects = {name: _object_metrics(frames) for name, frames in videos.items()}
    others = {name: _frame_metrics(frames) for name, frames in videos.items()}
    numbers = {name: _means(objects[name]) | others[name] for name in videos}
    switches = [count for frames in videos.values() for count in _id_switches(frames)]
    for name, frames in videos.items():
        if own := _id_switches(frames):
            numbers[name]["id switches"] = float(np.mean(own))
    every_object = [metrics for of_video in objects.values() for metrics in of_video]
    of_all = _means(every_object) | _means(list(others.values()))
    return of_all | ({"id switches": float(np.mean(switches))} if switches else {}), numbers


def _id_switches(frames: Sequence[FrameOfVideo]) -> list[int]:
    """How often each object of a video changes its track id; empty where frames have none."""
    rows = [frame.track_ids for frame in frames if frame.track_ids is not None]
    if not rows:
        return []
    ids = [[row[number] for row in rows if number in row] for number in frames[0].objects]
    return [sum(now != before for now, before in zip(of[1:], of[:-1], strict=True)) for of in ids]


def _object_metrics(frames: Sequence[FrameOfVideo]) -> list[dict[str, float]]:
    """The numbers of each object of a video over the frames that count."""
    metrics = []
    for number in frames[0].objects:
        found = [frame.objects[number] for frame in _counted(frames)]
        j, f = np.array([one.j for one in found]), np.array([one.f for one in found])
        (j_recall, j_decay), (f_recall, f_decay) = recall_and_decay(j), recall_and_decay(f)
        metrics.append(
            {
                "region J": float(j.mean()),
                "region J recall": j_recall,
                "region J decay": j_decay,
                "contour F": float(f.mean()),
                "contour F recall": f_recall,
                "contour F decay": f_decay,
                "J&F": float(j.mean() + f.mean()) / 2,
            }
        )
    return metrics


def _frame_metrics(frames: Sequence[FrameOfVideo]) -> dict[str, float]:
    """The numbers of a video that are of no one object."""
    nothing = [frame.nothing for frame in _counted(frames) if frame.nothing is not None]
    changes = [frame.change for frame in frames if frame.change is not None]
    steady = [(change.unsteady, change.unchanged) for change in changes if change.unsteady is not None]
    metrics = {}
    if nothing:
        metrics["nothing found"] = float(np.mean(nothing))
    if changes:
        metrics["pixels that change"] = float(np.mean([change.pixels for change in changes]))
    if steady:
        shares, weights = np.array(steady).T
        metrics["unsteadiness"] = float(np.average(shares, weights=weights))
    return metrics


def _counted(frames: Sequence[FrameOfVideo]) -> Sequence[FrameOfVideo]:
    """The frames that count; all where a video is so short that none does."""
    return [frame for frame in frames if frame.counts] or frames


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
