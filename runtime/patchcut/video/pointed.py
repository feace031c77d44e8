"""Objects that somebody pointed at, followed from frame to frame."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.checks import check_whole
from patchcut.errors import EngineError, OptionError, SourceError
from patchcut.settings import Settings
from patchcut.sources import Source
from patchcut.stages import Canvas
from patchcut.video.memory import FrameMemory
from patchcut.video.prompts import Float32, Prompt, centered, on_simplex, point_at, visible_patches
from patchcut.video.steady_labels import Int32, SteadyLabels

_logger = logging.getLogger("patchcut")

# Carried values are raised to this power, so that what is half of an object does not spread. On blackswan and
# breakdance of DAVIS at 448 pixels the mean J is 0.645 without, 0.695 with 1.2 and 0.687 with 1.5.
SHARPNESS = 1.2
# An object whose patches resemble its prototype less than this share of what they did at first is lost; it
# is found where they do so more than this, and clearly more than the background and other objects. On DAVIS
# no frame of an object that can be seen is below 0.88.
LOST_BELOW, FOUND_ABOVE, FOUND_CLEARLY = 0.5, 0.85, 0.2
# What is found again has at least this share of the patches that the object had when it was last seen.
FOUND_SIZE = 0.25
# A piece of an object is its own where it comes this near, in patches, to where the object was: others that
# look like it appear elsewhere.
REACH = 2
# Nothing is carried further than this from those pieces; J of breakdance is 0.50 with 3 and 0.45 with 1.
SPREAD = 3
# How much of a prototype is that of the newest frame.
RENEWAL = 0.05
MAX_AT = 2**31 - 1


@dataclass
class _Object:
    """What is known of one object.

    Attributes:
        number: its id.
        prompt: what pointed at it.
        prototype: [d] float32, mean of its centred features; None where it was never seen.
        likeness: mean cosine of its patches to the prototype when it was pointed at.
        where: [n] bool, its patches when it was last seen.
        lost: whether it is not seen.
    """

    number: int
    prompt: Prompt
    prototype: Float32 | None = None
    likeness: float = 0.0
    where: npt.NDArray[np.bool_] | None = None
    lost: bool = True

    @property
    def name(self) -> str:
        return self.prompt.name or f"object {self.number}"


class PointedObjects:
    """Objects of one video by the prompts that point at them; made of patches' features, frame by frame.

    The frame of the newest prompt is kept in a `FrameMemory`, with the last ones. What that carries to a
    frame is where objects are there. An object of which nothing is left, or that does not look like itself
    any more, is lost: nothing of it is shown, and where patches look like its prototype again it is found.
    `add` and `remove` may be called from any thread, and hold from the next frame on.

    Attributes:
        frame_hw: size of the last frame that was segmented; None before the first.
    Examples:
        >>> objects = patchcut.video.PointedObjects()
        >>> objects.add(patchcut.video.Prompt(box=(100, 0, 400, 512)))
        1
        >>> assignment = objects(features["key"][0], canvas)
        >>> assignment.shape, objects.ids, objects.lost
        ((256, 2), (1,), ())
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[int, _Object]] = []
        self._removed: set[int] = set()
        self._last_id = 0
        self._objects: list[_Object] = []
        self._memory: FrameMemory | None = None
        self._background: Float32 | None = None  # [d], mean of the background's centred features
        self._steady_labels = SteadyLabels()
        self._unit: Float32 | None = None  # [n, d], features of the last frame, of norm 1
        self._cosines: Float32 | None = None  # [n], of those with the frame's before
        self._last_index = -1
        self._part: str | None = None
        self.frame_hw: tuple[int, int] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Those of the objects in the order of their columns, the first of which is column 1."""
        return tuple(one.number for one in self._objects)

    @property
    def lost(self) -> tuple[int, ...]:
        """Ids of the objects that the last frame does not show."""
        return tuple(one.number for one in self._objects if one.lost)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns, background first."""
        return ("background", *(one.name for one in self._objects))

    def add(self, prompt: Prompt, at: int = 0) -> int:
        """The id of a new object; ids are never used again.

        Args:
            prompt: points at it, on the first frame from here on whose index is at least `at`.
            at: from 0.
        Raises:
            OptionError: "[at] must be a whole number from 0 to 2147483647, got -1".
        Examples:
            >>> objects = patchcut.video.PointedObjects()
            >>> [objects.add(patchcut.video.Prompt(point=(9, 9))) for _ in range(2)]
            [1, 2]
        """
        check_whole("at", at, 0, MAX_AT)
        with self._lock:
            self._last_id += 1
            self._pending.append((int(at), _Object(self._last_id, prompt)))
            return self._last_id

    def remove(self, number: int) -> None:
        """Forgets an object.

        Raises:
            OptionError: "[remove] there is no object 3; there are 1, 2".
        Examples:
            >>> objects = patchcut.video.PointedObjects()
            >>> objects.remove(objects.add(patchcut.video.Prompt(point=(9, 9))))
        """
        with self._lock:
            waiting = [one.number for _, one in self._pending]
            there = sorted({*self.ids, *waiting} - self._removed)
            if number not in there:
                listed = ", ".join(map(str, there)) or "none"
                raise OptionError("remove", f"there is no object {number!r}", f"there are {listed}")
            self._removed.add(int(number))

    def begin(self, part: Source) -> None:
        """Says what video comes now.

        Raises:
            SourceError: "[b.mp4] is another video than a.mp4, in which objects were pointed at; ...".
        Examples:
            >>> patchcut.video.PointedObjects().begin(patchcut.open_source([frame]))
        """
        if self._part is not None:
            what = f"comes after {self._part}, in which objects were pointed at"
            raise SourceError(part.name, what, "track each video by itself")
        self._part = part.name

    def end(self) -> None:
        """Says that no frame comes any more.

        Raises:
            OptionError: "[at] must be a frame of the video, got 100, its last is 49".
        Examples:
            >>> patchcut.video.PointedObjects().end()
        """
        with self._lock:
            late = [at for at, one in self._pending if at > 0 and one.number not in self._removed]
        if late and self._last_index >= 0:
            what = f"must be a frame of the video, got {min(late)}, the last that came is {self._last_index}"
            raise OptionError("at", what, "point at objects on an earlier frame")

    def wants(self, index: int) -> bool:
        """Whether it needs the features of a frame: not before an object was pointed at.

        Examples:
            >>> patchcut.video.PointedObjects().wants(0)
            False
        """
        self._last_index = index
        with self._lock:
            return bool(self._objects) or any(at <= index for at, _ in self._pending)

    def __call__(self, features: Float32, canvas: Canvas, index: int = 0) -> Float32:
        """The assignment [n, 1 + m] float32 of a frame, rows on the simplex, of m objects.

        Args:
            features: [n, d] float32, of the frame; they are copied where they are kept.
            canvas: where the frame lies.
            index: of the frame.
        Raises:
            OptionError: a prompt does not lie on the frame.
            EngineError: the features are not finite.
        """
        if not np.isfinite(features).all():
            remedy = "the backbone overflows in this precision: try another one"
            raise EngineError("track", "the features are not finite", remedy)
        if self._memory is None:
            self._memory = FrameMemory(canvas.grid_hw)
        self.frame_hw = canvas.frame_hw
        self._compare(features)
        new = self._take_changes(index)
        rows = centered(features, visible_patches(canvas))
        values = self._carried(features, rows, canvas)
        if new:
            values = self._point(new, values, features, rows, canvas)
        elif not all(one.lost for one in self._objects):
            self._memory.add(features, values)
        self._renew(rows, values)
        return values

    def keep_labels(
        self, label_map: Int32, confidence: Float32, assignment: Float32, canvas: Canvas
    ) -> npt.NDArray[np.intp]:
        """Gives pixels of the same frame the label that they had, where that is as good: `SteadyLabels`.

        Args:
            label_map, confidence, assignment, canvas: as `SteadyLabels` takes them; two are changed in place.
        Returns:
            These pixels, as flat indices.
        Examples:
            >>> objects, label_map = patchcut.video.PointedObjects(), np.zeros((512, 512), np.int32)
            >>> sure = np.ones((512, 512), np.float32)
            >>> objects.keep_labels(label_map, sure, objects.empty(canvas), canvas).tolist()
            []
        """
        return self._steady_labels(label_map, confidence, assignment, canvas, self._cosines)

    def empty(self, canvas: Canvas) -> Float32:
        """[n, 1] float32, the assignment of a frame before any object was pointed at.

        Examples:
            >>> patchcut.video.PointedObjects().empty(canvas).shape
            (256, 1)
        """
        return np.ones((canvas.grid_hw[0] * canvas.grid_hw[1], 1), np.float32)

    def _compare(self, features: Float32) -> None:
        """Compares the features [n, d] with those of the frame before."""
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        unit: Float32 = features / np.maximum(norms, np.finfo(np.float32).tiny)
        before, self._unit, self._cosines = self._unit, unit, None
        if before is not None and before.shape == unit.shape:
            self._cosines = np.einsum("nd,nd->n", unit, before)

    def _take_changes(self, index: int) -> list[_Object]:
        """The objects that are pointed at on this frame, after those that were removed are forgotten."""
        with self._lock:
            removed, self._removed = self._removed, set()
            pending = [(at, one) for at, one in self._pending if one.number not in removed]
            new = [one for at, one in pending if at <= index]
            self._pending = [(at, one) for at, one in pending if at > index]
            gone = [1 + i for i, one in enumerate(self._objects) if one.number in removed]
            if new or gone:
                self._steady_labels.clear()
            self._objects = [one for one in self._objects if one.number not in removed]
            if gone and self._memory is not None:
                self._memory.arrange([i for i in range(self._memory.columns) if i not in gone])
            return new

    def _carried(self, features: Float32, rows: Float32, canvas: Canvas) -> Float32:
        """[n, 1 + m] float32: where the objects are, those that are lost and found marked so."""
        count = 1 + len(self._objects)
        assert self._memory is not None
        carried = self._memory.carry(features) if self._objects else None
        values = np.zeros((len(features), count), np.float32)
        if carried is not None:
            values[:, : carried.shape[1]] = carried
        visible = visible_patches(canvas)[:, None]
        values = on_simplex(values * visible)
        values **= SHARPNESS
        values /= values.sum(axis=1, keepdims=True)
        won = values.argmax(axis=1)
        for i, one in enumerate(self._objects, 1):
            if not one.lost:
                own = _continued(won == i, one.where, canvas)
                one.lost = not self._is_itself(one, rows[own])
                values[~_grown(own, SPREAD, canvas), i] = 0
            if one.lost:
                values[:, i] = 0
        values = on_simplex(values)
        for i, one in enumerate(self._objects, 1):
            if one.lost and (found := self._found(one, rows, values, canvas)) is not None:
                values[found] = 0
                values[found, i] = 1
                one.lost = False
        return values

    def _is_itself(self, one: _Object, rows: Float32) -> bool:
        """Whether the rows [p, d] of the patches that an object has look like it."""
        if not len(rows) or one.prototype is None:
            return False
        return float((rows @ one.prototype).mean()) >= LOST_BELOW * one.likeness

    def _found(
        self, one: _Object, rows: Float32, values: Float32, canvas: Canvas
    ) -> npt.NDArray[np.bool_] | None:
        """[n] bool, the patches of an object that was lost; None where it still is."""
        if one.prototype is None:
            return None
        cosines = rows @ one.prototype
        alike = (cosines > FOUND_ABOVE * one.likeness) & (values[:, 0] > 0.5)
        for other in [*(it.prototype for it in self._objects if it is not one), self._background]:
            if other is not None:
                alike &= cosines > rows @ other + FOUND_CLEARLY
        ids, count = kernels.connected_components(alike.reshape(canvas.grid_hw).astype(np.int32))
        if not count:
            return None
        sizes = np.bincount(ids.ravel(), minlength=count + 1)[1:]
        largest = int(sizes.argmax())
        assert one.where is not None
        if sizes[largest] < max(1.0, FOUND_SIZE * one.where.sum()):
            return None
        found: npt.NDArray[np.bool_] = ids.ravel() == largest + 1
        return found

    def _point(
        self, new: list[_Object], values: Float32, features: Float32, rows: Float32, canvas: Canvas
    ) -> Float32:
        """[n, 1 + m] float32 with the objects that are pointed at now; the memory begins with this frame.

        Frames before show them, too, and do not know it.
        """
        for one in new:
            one.prompt.check_frame(canvas.frame_hw)
        taken = values[:, 1:].max(axis=1, initial=0) > 0.5
        pointed = point_at([one.prompt for one in new], features, canvas, taken=taken)
        left = values[:, 1:] * (1 - pointed[:, 1:].sum(axis=1, keepdims=True))
        values = on_simplex(np.concatenate([values[:, :1], left, pointed[:, 1:]], axis=1))
        first = 1 + len(self._objects)
        self._objects += new
        won = values.argmax(axis=1)
        for i, one in enumerate(new, first):
            mine = won == i
            if not mine.any():
                _logger.warning(
                    "[%s] nothing of it is found in its %s; draw it closer, or point at it otherwise",
                    one.name,
                    one.prompt.kind,
                )
                continue
            one.prototype = _mean_direction(rows[mine])
            one.likeness = float((rows[mine] @ one.prototype).mean())
            one.lost = False
        assert self._memory is not None
        self._memory.clear()
        self._memory.add(features, values, keep=True)
        return values

    def _renew(self, rows: Float32, values: Float32) -> None:
        """Brings the prototypes of what is seen nearer to this frame."""
        won = values.argmax(axis=1)
        for i, one in enumerate(self._objects, 1):
            mine = won == i
            if one.lost or one.prototype is None or not mine.any():
                continue
            one.where = mine
            mixed = (1 - RENEWAL) * one.prototype + RENEWAL * _mean_direction(rows[mine])
            one.prototype = _mean_direction(mixed[None])
        if (won == 0).any():
            self._background = _mean_direction(rows[won == 0])


def _continued(
    patches: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_] | None, canvas: Canvas
) -> npt.NDArray[np.bool_]:
    """[n] bool, the pieces of an object that go on from where it was; the largest where none does."""
    ids, count = kernels.connected_components(patches.reshape(canvas.grid_hw).astype(np.int32))
    if count <= 1 or where is None:
        return patches
    ids = ids.ravel()
    near = np.bincount(ids[_grown(where, REACH, canvas)], minlength=count + 1) > 0
    near[0] = False
    if not near.any():
        near[1 + np.bincount(ids)[1:].argmax()] = True
    return near[ids]


def _grown(patches: npt.NDArray[np.bool_], reach: int, canvas: Canvas) -> npt.NDArray[np.bool_]:
    """[n] bool, the patches and those at most `reach` rows and columns away."""
    grown: npt.NDArray[np.bool_] = patches.reshape(canvas.grid_hw)
    for axis in (0, 1):
        edges = [(0, 0), (0, 0)]
        edges[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(grown, edges), 2 * reach + 1, axis)
        grown = np.asarray(windows.any(axis=-1))
    return grown.ravel()


def _mean_direction(rows: Float32) -> Float32:
    """[d] float32, the mean of rows [p, d] at length 1."""
    mean = rows.mean(axis=0)
    direction: Float32 = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return direction


def pointed_objects(settings: Settings, prompts: Sequence[Prompt], at: int = 0) -> PointedObjects:
    """The objects that prompts point at, with the ids 1, 2, ...

    Args:
        settings: of the segmenter that is to follow them.
        prompts: of a frame.
        at: its index.
    Raises:
        OptionError: there are none, or the settings' mode is not "foreground".
    Examples:
        >>> patchcut.video.pointed_objects(seg.settings, [patchcut.video.Prompt(point=(9, 9))]).ids
        ()
    """
    if settings.mode != "foreground":
        what = f'must be "foreground" where objects are pointed at, got "{settings.mode}"'
        raise OptionError("mode", what, "leave it out")
    if not prompts:
        what = "needs at least one point, box or mask"
        raise OptionError("track", what, "point at what is to be followed")
    objects = PointedObjects()
    for prompt in prompts:
        objects.add(prompt, at)
    return objects
