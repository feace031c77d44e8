"""Pictures without an object, from which heads learn to answer "nothing"."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Soft = npt.NDArray[np.float32]

# Patches less than this are surely background.
_BACKGROUND = 0.25
# A crop must have this share of the image's sides, or there is nothing to see in it.
_MIN_SIDE = 0.3
_BLANK_SIZE = 224


def background_crop(image: Image, foreground: Soft) -> Image | None:
    """The largest rectangle of `image` [H, W, 3] without foreground, or None where it would be small.

    Args:
        foreground: [h, w] float32 in [0, 1], on the patch grid.
    """
    rows, columns = foreground.shape
    x0, y0, x1, y1 = largest_rectangle(foreground < _BACKGROUND)
    if x1 - x0 < _MIN_SIDE * columns or y1 - y0 < _MIN_SIDE * rows:
        return None
    height, width = image.shape[:2]
    top, bottom = (round(y * height / rows) for y in (y0, y1))
    left, right = (round(x * width / columns) for x in (x0, x1))
    crop = image[top:bottom, left:right]
    return crop if crop.size else None


def largest_rectangle(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The largest rectangle (x0, y0, x1, y1), half-open, in which all of `mask` [h, w] is True.

    Row by row, the largest rectangle under the histogram of True runs that end there; the first of equals.
    """
    best, area = (0, 0, 0, 0), 0
    runs = np.zeros(mask.shape[1] + 1, np.int64)  # the last stays 0 and closes what is open
    for y, row in enumerate(mask):
        runs[:-1] = np.where(row, runs[:-1] + 1, 0)
        open_: list[tuple[int, int]] = []  # (left, height), heights rising
        for x, run in enumerate(runs.tolist()):
            left = x
            while open_ and open_[-1][1] >= run:
                left, height = open_.pop()
                if height * (x - left) > area:
                    best, area = (left, y - height + 1, x, y + 1), height * (x - left)
            open_.append((left, run))
    return best


def blank_images(count: int, seed: int) -> Iterator[Image]:
    """`count` images [224, 224, 3] uint8 that show nothing: flat, noisy, graded and cloudy in turn."""
    random = np.random.default_rng(seed)
    for i in range(count):
        yield blank_image(i, random)


def blank_image(kind: int, random: np.random.Generator) -> Image:
    """One of `blank_images`; four kinds follow each other."""
    painters = (_flat, _noisy, _graded, _cloudy)
    return np.clip(painters[kind % len(painters)](random), 0, 255).astype(np.uint8)


def _flat(random: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.zeros((_BLANK_SIZE, _BLANK_SIZE, 3)) + random.integers(0, 256, 3)


def _noisy(random: np.random.Generator) -> npt.NDArray[np.float64]:
    return _flat(random) + random.normal(0, random.uniform(2, 40), (_BLANK_SIZE, _BLANK_SIZE, 3))


def _graded(random: np.random.Generator) -> npt.NDArray[np.float64]:
    ramp = np.linspace(0, 1, _BLANK_SIZE)[:, None, None]
    ramp = ramp if random.random() < 0.5 else ramp.swapaxes(0, 1)
    return _flat(random) * (1 - ramp) + random.integers(0, 256, 3) * ramp


def _cloudy(random: np.random.Generator) -> npt.NDArray[np.float64]:
    side = int(random.integers(3, 60))
    cloud = random.normal(0, 60, (side, side, 3))
    return _flat(random) + cv2.resize(cloud, (_BLANK_SIZE, _BLANK_SIZE), interpolation=cv2.INTER_CUBIC)
