"""Photos and videos made for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from patchcut.sources import Source, open_source
from patchcut.sources.photos import is_safe_for_jpeg2000
from PIL import Image


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """[H, W, 3] uint8: smooth blobs, so that every codec keeps them and no two seeds look alike."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return cv2.resize(grid, (width, height))


def needs_codec(format: str) -> None:
    """Skips a test whose format this OpenCV or this Pillow does not write."""
    Image.init()
    if format == "JPEG2000" and not is_safe_for_jpeg2000(cv2):
        pytest.skip("JPEG 2000 is refused with this OpenCV")
    if format == "JPEG2000":
        return
    if format not in Image.SAVE or not cv2.haveImageWriter(f"x.{format.lower()}"):
        pytest.skip(f"this OpenCV or this Pillow has no {format}")


def encoded(suffix: str, image: np.ndarray | None = None, *params: int) -> bytes:
    ok, data = cv2.imencode(suffix, picture() if image is None else image, params)
    assert ok
    return data.tobytes()


def write_video(path: Path, frames: int = 30, codec: str = "MJPG", fps: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (80, 60))
    assert writer.isOpened()
    for seed in range(frames):
        writer.write(picture(seed=seed))
    writer.release()
    return path


def names(source: Source) -> list[str]:
    return [frame.name for frame in source]


def check_that_a_cut_video_gives_what_it_has(folder: Path) -> None:
    path = write_video(folder / "x.avi", frames=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    count = len(list(source))
    assert 20 < count < 40
    assert f"decoded {count} of 60 frames" in source.problems[0]
