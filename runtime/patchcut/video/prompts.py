"""Prompts: a point, a box or a mask on a frame, and how much each patch belongs to what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.checks import check_text, plain, shown
from patchcut.errors import OptionError
from patchcut.stages.canvas import Canvas

Float32 = npt.NDArray[np.float32]

# What is around an object is so many means of features, and the object is one; they are fitted in turn. On
# boxes around the objects of 24 frames of DAVIS and the 13 photos of GrabCut at 448 pixels the mean IoU is
# 0.78; with one mean around it is 0.61, and 0.75 with a ridge regression in the place of means.
BACKGROUNDS, ROUNDS = 4, 5
# Patches of which a box covers less are outside; the margin of cosines at which a patch is sure to 73 %.
OUTSIDE, SOFTNESS = 0.01, 0.1
# What a point begins with: patches that resemble its own more than this share of the way to the nearest.
POINT_COSINE = 0.5
# What a patch has of an object that is sure to be there: that under a point, or the one of a tiny object.
SURE = 0.75
_TINY = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompt:
    """What points at one object: one of the three.

    Attributes:
        point: x, y in pixels of the frame.
        box: x0, y0, x1, y1 in pixels of the frame, half-open; what is beyond the frame is cut off.
        mask: [H, W] bool or uint8 of the frame's size, 0 is background.
        name: what the object is called; "" for its number.
    Examples:
        >>> patchcut.video.Prompt(box=(10, 20, 200, 300), name="cup").kind
        'box'
    """

    point: Sequence[float] | None = None
    box: Sequence[float] | None = None
    mask: npt.NDArray[Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        given = [name for name in ("point", "box", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"must be one point, box or mask for each object, got {' and '.join(given) or 'none'}"
            raise OptionError("prompt", what, "give one of them, and another object its own")
        if self.name != "":
            check_text("name", self.name)
        if self.point is not None:
            object.__setattr__(self, "point", _numbers("point", self.point, ("x", "y")))
        if self.box is not None:
            object.__setattr__(self, "box", _numbers("box", self.box, ("x0", "y0", "x1", "y1")))
            x0, y0, x1, y1 = self.box
            if x1 <= x0 or y1 <= y0:
                what = f"must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {_said(self.box)}"
                raise OptionError("box", what, "give its upper left corner first, and then the lower right")
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask))

    @property
    def kind(self) -> str:
        """ "point", "box" or "mask"."""
        return next(name for name in ("point", "box", "mask") if getattr(self, name) is not None)

    @property
    def words(self) -> str:
        """All that it says, in a line; of a mask the hash of its pixels."""
        if self.mask is not None:
            pixels = hashlib.sha256((self.mask != 0).tobytes()).hexdigest()
            said = f"{'x'.join(map(str, self.mask.shape[::-1]))} {pixels}"
        else:
            said = _said(self.point or self.box or ())
        return f"{self.kind} {said} {self.name}".rstrip()

    def check_frame(self, frame_hw: tuple[int, int]) -> None:
        """Checks that it lies on a frame.

        Raises:
            OptionError: "[point] must lie on the frame, 640x480, got 700,20; ...".
        Examples:
            >>> patchcut.video.Prompt(point=(5, 5)).check_frame((480, 640)) is None
            True
        """
        height, width = frame_hw
        size = f"{width}x{height}"
        if self.point is not None:
            x, y = self.point
            if not (0 <= x < width and 0 <= y < height):
                what = f"must lie on the frame, {size}, got {_said(self.point)}"
                raise OptionError("point", what, "give x from the left and y from the top, in pixels")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
                what = f"must lie on the frame, {size}, got {_said(self.box)}"
                raise OptionError("box", what, "give pixels of the frame: x0, y0, x1, y1")
        if self.mask is not None and self.mask.shape != frame_hw:
            came = "x".join(map(str, self.mask.shape[::-1]))
            raise OptionError(
                "mask", f"must have the frame's size, {size}, got {came}", "draw it on the frame"
            )

    def covered(self, canvas: Canvas) -> Float32:
        """[n] float32 in [0, 1], the share of each patch that it covers; of a point the patch under it is 1.

        Examples:
            >>> canvas = patchcut.stages.Canvas((4, 8), (0, 0), (4, 8), (1, 2))
            >>> patchcut.video.Prompt(box=(0, 0, 6, 4)).covered(canvas).tolist()
            [1.0, 0.5]
        """
        rows, columns = (_shares(canvas, axis) for axis in (0, 1))
        if self.mask is not None:
            shares = rows @ (self.mask != 0).astype(np.float32) @ columns.T
        elif self.box is not None:
            x0, y0, x1, y1 = self.box
            shares = np.outer(
                rows @ _span(y0, y1, canvas.frame_hw[0]), columns @ _span(x0, x1, canvas.frame_hw[1])
            )
        else:
            assert self.point is not None
            x, y = self.point
            row, column = rows[:, int(y)].argmax(), columns[:, int(x)].argmax()
            shares = np.zeros(canvas.grid_hw)
            shares[row, column] = 1
        covered: Float32 = np.clip(shares, 0, 1).astype(np.float32).ravel()
        return covered


def prompts_of(
    points: Sequence[Any], boxes: Sequence[Any], masks: Sequence[Any], names: Sequence[str] = ()
) -> tuple[Prompt, ...]:
    """A prompt for each point, then for each box, then for each mask.

    Args:
        names: of the objects in that order; where there are fewer, the others have none.
    Raises:
        OptionError: one is none, or there are more names than objects.
    Examples:
        >>> [one.kind for one in patchcut.video.prompts_of([(5, 5)], [(0, 0, 9, 9)], [])]
        ['point', 'box']
    """
    groups = {"point": points, "box": boxes, "mask": masks}
    for kind, group in groups.items():
        several = f"{kind}es" if kind == "box" else f"{kind}s"
        if isinstance(group, str) or not hasattr(group, "__len__"):
            raise OptionError(several, f"must be a list, got {shown(group)}", f"write {several}=[...]")
        if kind == "mask" and isinstance(group, np.ndarray) and group.ndim == 2:
            raise OptionError(several, "must be a list of masks, got one", "write masks=[mask]")
    given = [(kind, one) for kind, group in groups.items() for one in group]
    if isinstance(names, str) or len(names) > len(given):
        what = f"must be a list of one name an object at most, got {shown(names)} for {len(given)}"
        raise OptionError("names", what, "leave some out")
    called = chain(names, [""] * (len(given) - len(names)))
    return tuple(Prompt(name=name, **{kind: one}) for name, (kind, one) in zip(called, given, strict=True))


def visible_patches(canvas: Canvas) -> npt.NDArray[np.bool_]:
    """[n] bool, the patches that show some of the frame; False where it was letterboxed.

    Examples:
        >>> patchcut.video.prompts.visible_patches(canvas).all().item()
        True
    """
    rows, columns = (_shares(canvas, axis).any(axis=1) for axis in (0, 1))
    visible: npt.NDArray[np.bool_] = np.outer(rows, columns).ravel()
    return visible


def centered(features: Float32, visible: npt.NDArray[np.bool_]) -> Float32:
    """[n, d] float32: unit rows less the mean of those that are visible, as unit rows again.

    What all patches of a frame have in common says nothing of an object. A row of the mean's direction is 0.

    Args:
        features: [n, d] float32.
        visible: [n] bool.
    Examples:
        >>> rows = np.float32([[3, 4], [3, -4]])
        >>> patchcut.video.prompts.centered(rows, np.ones(2, bool)).tolist()
        [[0.0, 1.0], [0.0, -1.0]]
    """
    unit = _unit(features)
    return _unit(unit - unit[visible].mean(axis=0)) if visible.any() else unit


def point_at(
    prompts: Sequence[Prompt],
    features: Float32,
    canvas: Canvas,
    *,
    taken: npt.NDArray[np.bool_] | None = None,
) -> Float32:
    """[n, 1 + p] float32, rows on the simplex: background, and how much each patch is of each object.

    Each prompt leaves the others' patches to them.

    Args:
        prompts: p, at least one; those that lie on the frame.
        features: [n, d] float32, of the frame.
        canvas: where the frame lies.
        taken: [n] bool, patches of other objects, which points and boxes leave alone.
    A mask gives the share of each patch that it covers. In a box, and around a point, means of features of
    the object and of what is around it are fitted in turn with their patches, as GrabCut (Rother,
    Kolmogorov, Blake 2004) fits its models of colours; a point begins with patches like its own. What is
    smaller than a patch has its patch.
    Examples:
        >>> box = patchcut.video.Prompt(box=(100, 0, 400, 512))
        >>> values = patchcut.video.prompts.point_at([box], features["key"][0], canvas)
        >>> values.shape, bool(values[:, 1].max() > 0.5)
        ((256, 2), True)
    """
    visible = visible_patches(canvas)
    rows = centered(features, visible)
    covers = np.stack([_whole(prompt.covered(canvas)) for prompt in prompts], axis=1)
    sure = covers * [prompt.kind != "box" for prompt in prompts]
    columns = []
    for i, prompt in enumerate(prompts):
        others = np.delete(sure, i, axis=1).max(axis=1, initial=0) > 0.5
        if taken is not None:
            others |= taken
        columns.append(_patches_of(prompt, covers[:, i], rows, ~others, visible, canvas))
    values = np.stack([np.zeros(len(rows), np.float32), *columns], axis=1)
    return on_simplex(values)


def on_simplex(values: Float32) -> Float32:
    """[n, 1 + p] float32, rows on the simplex: objects share what they have, the rest is background.

    Args:
        values: [n, 1 + p] float32 in [0, 1]; column 0 is not read.
    Examples:
        >>> patchcut.video.prompts.on_simplex(np.float32([[9, 0.25, 0], [9, 1, 1]])).tolist()
        [[0.75, 0.25, 0.0], [0.0, 0.5, 0.5]]
    """
    objects = values[:, 1:]
    objects = objects / np.maximum(objects.sum(axis=1, keepdims=True), 1)
    background = np.maximum(1 - objects.sum(axis=1, keepdims=True), 0)
    return np.concatenate([background, objects], axis=1).astype(np.float32)


def _whole(covered: Float32) -> Float32:
    """Shares [n] of patches, of which the largest is sure where the object is smaller than a patch."""
    largest = float(covered.max(initial=0))
    return covered if largest > 0.5 or largest <= 0 else covered * np.float32(SURE / largest)


def _patches_of(
    prompt: Prompt,
    covered: Float32,
    rows: Float32,
    free: npt.NDArray[np.bool_],
    visible: npt.NDArray[np.bool_],
    canvas: Canvas,
) -> Float32:
    """[n] float32 in [0, 1], how much each patch is of one prompt's object; 0 where it is not free."""
    if prompt.kind == "mask":
        return covered
    if prompt.kind == "box":
        return _in_box(rows, covered * free, visible)
    seed = int(covered.argmax())
    alike = _connected((rows @ rows[seed] > POINT_COSINE) & free & visible, seed, canvas)
    values = _fitted(rows, alike, visible & ~alike, (free & visible).astype(np.float32), visible)
    values[seed] = max(values[seed], SURE)
    values *= _connected(values > 0.5, seed, canvas)
    return values


def _in_box(rows: Float32, covered: Float32, visible: npt.NDArray[np.bool_]) -> Float32:
    """How much each patch is of the object in a box, which covers the patches so much.

    The object begins with the half of them that is least like what is outside. Where nothing is outside, it
    is all of them.
    """
    inside, outside = covered > 0.5, (covered < OUTSIDE) & visible
    if not outside.any() or not inside.any():
        return covered
    likeness = (rows @ _directions(rows[outside]).T).max(axis=1)
    inside &= likeness <= np.median(likeness[inside])
    return _fitted(rows, inside, outside, covered, visible)


def _connected(mask: npt.NDArray[np.bool_], seed: int, canvas: Canvas) -> npt.NDArray[np.bool_]:
    """[n] bool, the component of a mask [n] bool that a patch belongs to, and the patch itself."""
    grid = mask.reshape(canvas.grid_hw).astype(np.int32)
    grid.ravel()[seed] = 1
    ids, _ = kernels.connected_components(grid)
    connected: npt.NDArray[np.bool_] = ids.ravel() == ids.ravel()[seed]
    return connected


def _fitted(
    rows: Float32,
    inside: npt.NDArray[np.bool_],
    outside: npt.NDArray[np.bool_],
    limit: Float32,
    visible: npt.NDArray[np.bool_],
) -> Float32:
    """[n] float32 in [0, 1]: how much each patch is of an object, and not of what is around it.

    The object is one mean direction and its surroundings are several; patches go to the nearest, and means
    to their patches, in turn.

    Args:
        rows: [n, d] float32, centred.
        inside, outside: [n] bool, what the object and its surroundings begin with.
        limit: [n] float32 in [0, 1], the most that each patch can be of the object.
        visible: [n] bool; other patches are neither.
    """
    margin = np.zeros(len(rows), np.float32)
    for _ in range(ROUNDS):
        around = _directions(rows[outside])
        mean = rows[inside].mean(axis=0)
        margin = rows @ (mean / max(float(np.linalg.norm(mean)), _TINY)) - (rows @ around.T).max(axis=1)
        found = (margin > 0) & (limit > 0.5)
        if not found.any() or (found == inside).all():
            break
        inside, outside = found, ~found & visible
    values: Float32 = limit / (1 + np.exp(-margin / SOFTNESS))
    return values.astype(np.float32)


def _directions(rows: Float32) -> Float32:
    """[k, d] float32, the directions of the clusters of rows [p, d]."""
    if not len(rows):
        return np.zeros((1, rows.shape[1]), np.float32)
    centroids = kernels.kmeans(rows, min(BACKGROUNDS, len(rows)), metric="cosine").centroids
    return np.asarray(centroids, np.float32)


def _shares(canvas: Canvas, axis: int) -> Float32:
    """[cells, pixels] float32: the share that each pixel of the frame has of each row or column of the grid.

    A row sums to 1, or to 0 where nothing of the frame lies. What of the frame is beyond the canvas belongs
    to the outermost cell.
    """
    cells, pixels = canvas.grid_hw[axis], canvas.frame_hw[axis]
    edges = np.arange(cells + 1) * (canvas.size_hw[axis] / cells) - canvas.corner_yx[axis]
    edges[0], edges[-1] = min(edges[0], 0), max(edges[-1], pixels)
    begins = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], begins + 1) - np.maximum(edges[:-1, None], begins)
    overlap = np.maximum(overlap, 0)
    shares: Float32 = (overlap / np.maximum(overlap.sum(axis=1, keepdims=True), _TINY)).astype(np.float32)
    return shares


def _span(begin: float, end: float, pixels: int) -> Float32:
    """[pixels] float32, how much of each pixel lies in [begin, end)."""
    at = np.arange(pixels)
    span: Float32 = np.clip(np.minimum(end, at + 1) - np.maximum(begin, at), 0, 1).astype(np.float32)
    return span


def _unit(rows: Float32) -> Float32:
    unit: Float32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY).astype(np.float32)
    return unit


def _numbers(option: str, values: Any, names: tuple[str, ...]) -> tuple[float, ...]:
    """The numbers of a point or box as Python's own.

    Raises:
        OptionError: "[box] must be x0, y0, x1, y1, got (1, 2)".
    """
    wanted = ", ".join(names)
    try:
        numbers = [plain(value) for value in values]
        good = len(numbers) == len(names) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and isfinite(one) for one in numbers
        )
    except (TypeError, OverflowError):
        good = False
    if not good:
        remedy = f"{'es' if option == 'box' else 's'}=[({wanted})] is a list of one"
        raise OptionError(option, f"must be {wanted} in pixels, got {shown(values)}", option + remedy)
    return tuple(float(one) for one in numbers)  # type: ignore[arg-type]


def _said(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _mask(mask: Any) -> npt.NDArray[Any]:
    """A mask as a copy that nobody else writes.

    Raises:
        OptionError: it is no [H, W] bool or uint8, or shows nothing.
    """
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        came = (
            f"[{', '.join(map(str, mask.shape))}] {mask.dtype}"
            if isinstance(mask, np.ndarray)
            else shown(mask)
        )
        raise OptionError(
            "mask", f"must be [H, W] bool or uint8, got {came}", "0 is background, all else the object"
        )
    if not mask.any():
        raise OptionError("mask", "is empty: it shows no object", "draw the object in it")
    own: npt.NDArray[Any] = mask.copy()
    return own
