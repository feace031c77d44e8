"""What the cases measure on: the photo, its sizes, the features of the backbone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import patchcut
from patchcut.bundle import open_bundle
from patchcut.engines import EngineOptions, open_engine
from patchcut.sources.photos import read_photo

PHOTO = Path(patchcut.__file__).parent / "samples" / "rocket.jpg"
VGA_HW = (480, 640)
FULL_HD_HW = (1080, 1920)


def frame(size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 BGR, the sample photo at `size_hw`."""
    height, width = size_hw
    return np.asarray(cv2.resize(read_photo(PHOTO), (width, height)), np.uint8)


def features(bundle: Path, size: int, threads: int) -> npt.NDArray[np.float32]:
    """[n, d] float32, the bundle's features of the sample photo at 640x480; its own memory."""
    from patchcut_export.training.feature_cache import features_of

    with open_bundle(bundle) as opened:
        engine = open_engine(opened, EngineOptions("cpu", size=size, threads=threads))
        return np.array(features_of(frame(VGA_HW), "bgr", opened.spec.backbone, engine))
