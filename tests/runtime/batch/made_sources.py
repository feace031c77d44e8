"""Photos and videos to make batches of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

HEIGHT, WIDTH = 64, 96
Names = list[tuple[str, int]]


def picture(number: int) -> np.ndarray:
    """[64, 96, 3] uint8: a disc and the number."""
    image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    cv2.circle(image, (10 + 3 * number % 80, 32), 14, (255, 40 * number % 255, 60), -1)
    cv2.putText(image, str(number), (5, 20), 0, 0.5, (255, 255, 255), 1)
    return image


def write_photos(folder: Path, count: int, *, first: int = 0) -> list[str]:
    """Photos 0000.png, 0001.png, ...; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.png" for number in range(first, first + count)]
    for number, name in enumerate(names, first):
        assert cv2.imwrite(str(folder / name), picture(number))
    return names


def write_video(
    path: Path, frames: int, *, codec: str = "libx264", gop: int = 8, options: dict[str, str] | None = None
) -> Path:
    """A video of 25 frames a second with a key frame every `gop` frames."""
    av = pytest.importorskip("av", reason="needs patchcut[video]")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        try:
            stream = container.add_stream(codec, rate=25, options=options or {})
        except av.error.FFmpegError:
            pytest.skip(f"this FFmpeg has no {codec}")
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "bgr24")))
        container.mux(stream.encode())
    return path
