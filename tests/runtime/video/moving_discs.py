"""Made clips: discs of three colours on a soft ground, of which two cross and one goes behind a bar."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIZE_HW, RADIUS = (360, 480), 48
_HUES = (0, 55, 110)


@dataclass(frozen=True)
class Shown:
    """A frame [H, W, 3] uint8 BGR, and which disc each pixel [H, W] shows, from 1."""

    image: np.ndarray
    discs: np.ndarray


def moving_discs(frames: int = 90) -> list[Shown]:
    """Discs 1 and 2 cross, one before the other; disc 3 is behind a bar for 15 frames; all leave."""
    rng = np.random.default_rng(0)
    height, width = SIZE_HW
    ground, textures = _ground(rng), [_texture(rng, hue) for hue in _HUES]
    y, x = np.mgrid[:height, :width]
    bar = (x > 0.45 * width) & (x < 0.45 * width + 190) & (y > 200)
    shown = []
    for i in range(frames):
        way = -60 + (width + 120) * i / (frames - 1)
        image, discs = ground.copy(), np.zeros(SIZE_HW, np.int32)
        for disc, (cx, cy) in enumerate([(way, 100), (width - way, 130), (way, 270)], start=1):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < RADIUS**2
            rows, columns = np.nonzero(inside)
            image[inside] = textures[disc - 1][rows - cy + RADIUS, columns - round(cx) + RADIUS]
            discs[inside] = disc
        image[bar], discs[bar] = ground[bar], 0
        shown.append(Shown(image, discs))
    return shown


def _ground(rng: np.random.Generator) -> np.ndarray:
    patches = rng.integers(90, 140, (12, 16, 3), np.uint8)
    return cv2.GaussianBlur(cv2.resize(patches, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC), (0, 0), 5)


def _texture(rng: np.random.Generator, hue: int) -> np.ndarray:
    side = 2 * RADIUS + 2
    grain = cv2.resize(rng.integers(0, 255, (12, 12), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    light = cv2.normalize(grain, None, 110, 255, cv2.NORM_MINMAX).astype(np.uint8)
    hsv = np.dstack([np.full_like(light, hue), np.full_like(light, 230), light])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
