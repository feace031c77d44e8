"""Tracks: which region of a frame is which object of the frames before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# A region continues a track that it overlaps by this much where it was carried to; or by the second where it
# was last going, if it looks the same; or wherever it is, if it looks very much so and the track is lost.
_CARRIED_IOU, _BOX_IOU = 0.1, 0.3
_LIKE, _VERY_LIKE = 0.3, 0.6
_BOX_WEIGHT, _LIKENESS_WEIGHT = 0.5, 0.5
# Frames. A track that was seen so often is an object, and is looked for so long when it is out of sight.
CONFIRMED, PATIENCE, _PATIENCE_UNCONFIRMED = 5, 90, 2
# Two tracks that have been one region for so long, and look the same, were pieces of one object.
_ONE_AFTER, _ALIKE = 25, 0.8
MAX_TRACKS = 64
_PROTOTYPE_INERTIA, _SPEED_INERTIA = 0.9, 0.7


@dataclass(eq=False)
class Track:
    """One object through time.

    Attributes:
        id: from 1, never given again.
        prototype: [d] float32, the mean of its patches' features, less the frame's; slowly renewed.
        box: [4] float64, xyxy as shares of the frame's width and height, when it was last seen.
        speed: [2] float64, how far the box's middle goes in a frame.
        column: of the values that are carried from frame to frame.
        seen: on how many frames it has been.
        missed: frames since it was last seen.
        merged: by the id of another track, for how many frames in a row both have been in one region.
    """

    id: int
    prototype: Float32
    box: npt.NDArray[np.float64]
    column: int
    speed: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    seen: int = 1
    missed: int = 0
    merged: dict[int, int] = field(default_factory=dict)

    @property
    def is_confirmed(self) -> bool:
        """Whether it has been seen often enough to be an object."""
        return self.seen >= CONFIRMED

    @property
    def is_over(self) -> bool:
        """Whether it is not looked for any more."""
        return self.missed > (PATIENCE if self.is_confirmed else _PATIENCE_UNCONFIRMED)

    def expected_box(self) -> npt.NDArray[np.float64]:
        """[4] float64, where it would be on this frame if it went on as it did."""
        moved = self.box + np.tile(self.speed * (self.missed + 1), 2)
        return np.asarray(moved, np.float64)


@dataclass(frozen=True, eq=False)
class Seen:
    """The m regions of a frame as a tracker sees them.

    Attributes:
        cover: [m, n] float32 in [0, 1], how much of each patch a region covers.
        prototypes: [m, d] float32, the mean of its patches' features, less the frame's.
        boxes: [m, 4] float64, xyxy as shares of the frame's width and height.
    """

    cover: Float32
    prototypes: Float32
    boxes: npt.NDArray[np.float64]

    @classmethod
    def of(cls, cover: Float32, features: Float32, boxes: npt.NDArray[np.float64]) -> Seen:
        """The same from features [n, d] float32, rows of norm 1 or 0."""
        weights = cover / np.maximum(cover.sum(axis=1, keepdims=True), 1e-6)
        return cls(cover, product(weights, features) - features.mean(axis=0), boxes)

    def __len__(self) -> int:
        return len(self.cover)

    def take(self, regions: npt.NDArray[np.intp]) -> Seen:
        """Some of the regions."""
        return Seen(self.cover[regions], self.prototypes[regions], self.boxes[regions])


class Tracker:
    """Gives each region the id of its track.

    A region continues the track that it overlaps most, looks most like and lies nearest to where that was
    going; pairs that fit best come first. A region that continues none begins one. A track is out of sight
    where none continues it, and over when that lasts: 90 frames, 2 where it was seen on fewer than 5.
    Examples:
        >>> tracker = patchcut.video.Tracker()
        >>> seen = patchcut.video.Seen.of(np.float32([[1, 0]]), np.eye(2, dtype=np.float32), np.eye(1, 4))
        >>> tracker.match(seen, np.zeros((2, 0), np.float32)).tolist()
        [-1]
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._next_id = 1

    def clear(self) -> None:
        """Ends all tracks; ids go on.

        Examples:
            >>> patchcut.video.Tracker().clear()
        """
        self.tracks.clear()

    def match(self, seen: Seen, carried: Float32) -> Int32:
        """[m] int32: of each region the place in `tracks` of the track that it continues, or -1.

        Args:
            carried: [n, c] float32 in [0, 1], column `track.column` is where the track was carried to.
        """
        matched = np.full(len(seen), -1, np.int32)
        if not len(seen) or not self.tracks:
            return matched
        scores = self._scores(seen, carried)
        for pair in np.argsort(-scores, axis=None, kind="stable"):
            track, region = divmod(int(pair), len(seen))
            if scores[track, region] <= 0:
                break
            if matched[region] < 0 and track not in matched:
                matched[region] = track
        return matched

    def is_in_sight(self, matched: Int32) -> npt.NDArray[np.bool_]:
        """[m] bool: whether each region continues a track that was seen just before; `matched` as there."""
        in_sight = [track.missed <= _PATIENCE_UNCONFIRMED for track in self.tracks]
        return np.array([*in_sight, False])[matched]

    def update(self, seen: Seen, matched: Int32) -> Int32:
        """[m] int32: the id of each region, after tracks have taken what continues them and new ones began.

        Args:
            matched: as `match` gives it, of the regions that are left.
        """
        ids = np.zeros(len(seen), np.int32)
        continued = set()
        for region, place in enumerate(matched.tolist()):
            if place >= 0:
                track = self.tracks[place]
                continued.add(track.id)
                _see(track, seen.prototypes[region], seen.boxes[region])
                ids[region] = track.id
        for track in self.tracks:
            if track.id not in continued:
                track.missed += 1
        self.tracks = [track for track in self.tracks if not track.is_over]
        for region in np.flatnonzero(ids == 0).tolist():
            ids[region] = self._begin(seen.prototypes[region], seen.boxes[region])
        while len(self.tracks) > MAX_TRACKS:
            self.tracks.remove(max(self.tracks, key=lambda track: (track.missed, -track.seen)))
        return ids

    def inside(self, cover: Float32, carried: Float32) -> list[list[Track]]:
        """Of each region the objects of the frame before that lie in it, where it is more than one.

        Args:
            cover: [m, n] float32.
            carried: [n, c] float32, as in `match`.
        Tracks that have long been one region, and look the same, become one here.
        """
        objects = [track for track in self.tracks if track.is_confirmed and track.missed == 0]
        mass = np.array([carried[:, track.column].sum() for track in objects])
        held = np.array([cover @ carried[:, track.column] for track in objects]).reshape(
            len(objects), len(cover)
        )
        shared: list[list[Track]] = []
        for region in range(len(cover)):
            fits = [i for i in range(len(objects)) if held[i, region] > 0.5 * mass[i] > 0]
            shared.append([objects[i] for i in fits] if len(fits) > 1 else [])
        self._count_merged(shared, objects)
        return [self._without_pieces(those) for those in shared]

    def _count_merged(self, shared: list[list[Track]], objects: list[Track]) -> None:
        together = {
            (one.id, other.id) for those in shared for one in those for other in those if one is not other
        }
        for track in self.tracks:
            with_ids = [other for own, other in together if own == track.id]
            track.merged = {other: track.merged.get(other, 0) + 1 for other in with_ids}

    def _without_pieces(self, those: list[Track]) -> list[Track]:
        """The objects of a region; a track that turned out to be a piece of an older one ends."""
        left: list[Track] = []
        for track in sorted(those, key=lambda track: track.id):
            older = [one for one in left if track.merged.get(one.id, 0) > _ONE_AFTER]
            if any(_cosine(track.prototype, one.prototype) > _ALIKE for one in older):
                self.tracks.remove(track)
            else:
                left.append(track)
        return left if len(left) > 1 else []

    def _scores(self, seen: Seen, carried: Float32) -> npt.NDArray[np.float64]:
        """[tracks, m] float64: how well a region continues a track; 0 where it does not."""
        columns = carried[:, [track.column for track in self.tracks]].T
        common = np.minimum(columns[:, None], seen.cover[None]).sum(axis=2)
        either = np.maximum(columns[:, None], seen.cover[None]).sum(axis=2)
        carried_iou = common / np.maximum(either, 1e-6)
        expected = np.stack([track.expected_box() for track in self.tracks])
        box_iou = _box_iou(expected, seen.boxes)
        alike = cosines(np.stack([track.prototype for track in self.tracks]), seen.prototypes)
        lost = np.array([track.missed > 0 and track.is_confirmed for track in self.tracks])[:, None]
        fits = (carried_iou > _CARRIED_IOU) | ((box_iou > _BOX_IOU) & (alike > _LIKE))
        fits |= lost & (alike > _VERY_LIKE)
        scores = carried_iou + _BOX_WEIGHT * box_iou + _LIKENESS_WEIGHT * np.maximum(alike, 0)
        return np.where(fits, scores, 0.0)

    def _begin(self, prototype: Float32, box: npt.NDArray[np.float64]) -> int:
        track = Track(self._next_id, prototype.copy(), box.copy(), column=-1)
        self._next_id += 1
        self.tracks.append(track)
        return track.id


def _see(track: Track, prototype: Float32, box: npt.NDArray[np.float64]) -> None:
    """A track is seen again."""
    if track.merged:  # where it ends is not sure then
        track.box = (track.expected_box() + box) / 2
    else:
        middle, was = ((one[:2] + one[2:]) / 2 for one in (box, track.box))
        speed = (middle - was) / (track.missed + 1)
        track.speed = _SPEED_INERTIA * track.speed + (1 - _SPEED_INERTIA) * speed
        track.prototype = (
            _PROTOTYPE_INERTIA * track.prototype + (1 - _PROTOTYPE_INERTIA) * prototype
        ).astype(np.float32)
        track.box = box.copy()
    track.missed = 0
    track.seen += 1


def _box_iou(boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[a, b] float64: the IoU of boxes [a, 4] with others [b, 4], xyxy."""
    begin = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(end - begin, 0), axis=2)
    areas, other_areas = (np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (boxes, others))
    iou = common / np.maximum(areas[:, None] + other_areas[None] - common, 1e-12)
    return np.asarray(iou, np.float64)


def product(rows: Float32, columns: Float32) -> Float32:
    """[a, b] float32: rows [a, n] times columns [n, b], on this thread alone.

    BLAS wakes a thread for each core that then looks for work for some 20 ms, in the way of a backbone.
    """
    return np.asarray(np.einsum("an,nb->ab", rows, columns), np.float32)


def cosines(rows: Float32, others: Float32) -> npt.NDArray[np.float64]:
    """[a, b] float64: the cosine of rows [a, d] with others [b, d]; 0 with a row of zeros."""
    units = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in (rows, others)]
    return np.asarray(product(units[0], units[1].T), np.float64)


def _cosine(one: Float32, other: Float32) -> float:
    return float(cosines(one[None], other[None])[0, 0])
