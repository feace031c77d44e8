"""Frames to images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import patchcut_kernels as pk

from bench import subjects
from bench.cases import Target
from bench.cases.kernels.duel import Array, Duel, Side, difference

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _preprocess(frame_hw: tuple[int, int], size: int) -> Duel:
    frame = subjects.frame(frame_hw)
    out = np.empty((3, size, size), np.float32)
    params = cv2.dnn.Image2BlobParams()
    params.scalefactor = (*(1 / (255 * np.array(_STD))), 0)
    params.mean = (*(255 * np.array(_MEAN)), 0)
    params.swapRB = True
    params.size = (size, size)

    def area() -> Array:
        resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.dnn.blobFromImageWithParams(resized, params), np.float32)

    def bilinear() -> Array:
        return np.asarray(cv2.dnn.blobFromImageWithParams(frame, params), np.float32)

    def ours() -> Array:
        return pk.preprocess(frame, size, _MEAN, _STD, out=out)

    return Duel(
        Side("patchcut", ours, "antialiased resize, RGB, normalise, planes"),
        (
            Side("cv2.resize, cv2.dnn blob", area, "INTER_AREA resize, RGB, normalise, planes"),
            Side("cv2.dnn blob alone", bilinear, "the same with its own resize, which does not antialias"),
        ),
        {"frame": frame.shape, "image": out.shape},
        {"max_abs_difference": difference(ours(), area()[0])},
    )


DUELS: dict[str, Callable[[], Duel]] = {
    "preprocess 640x480 to 224": lambda: _preprocess(subjects.VGA_HW, 224),
    "preprocess 1920x1080 to 448": lambda: _preprocess(subjects.FULL_HD_HW, 448),
}
TARGETS: tuple[Target, ...] = ()
