"""Made-up results and sources, for tests of an output folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from patchcut.frames import Frame
from patchcut.output.folder import OutputFolder
from patchcut.output.sinks import SINKS
from patchcut.result import Result
from patchcut.sources import Source, open_source
from patchcut.sources.arrays import FrameSource

# What can be saved here: rerun needs its extra, votes a head that takes some.
WORDS = [word for word in SINKS if word != "votes" and (word != "rerun" or find_spec("rerun") is not None)]


def frame(name: str = "x.jpg", index: int = 0, size_hw: tuple[int, int] = (48, 64)) -> Frame:
    image = np.full((*size_hw, 3), 90, np.uint8)
    image[:, : size_hw[1] // 2] = (200, 60, 20)
    return Frame(image, "bgr", name, index)


def result(of: Frame, regions: int = 2, labels: int = 3) -> Result:
    """Regions are columns of pixels, four wide; region i has label 1 + i % (labels - 1)."""
    height, width = of.image.shape[:2]
    region_ids = np.zeros((height, width), np.int32)
    for i in range(regions):
        region_ids[:, 5 * i + 1 : 5 * i + 5] = i + 1
    region_labels = np.array([1 + i % (labels - 1) for i in range(regions)], np.int32)
    return Result(
        label_map=np.concatenate([[0], region_labels]).astype(np.int32)[region_ids],
        region_ids=region_ids,
        confidence=np.full((height, width), 0.75, np.float32),
        boxes=np.array([[5 * i + 1, 0, 5 * i + 5, height] for i in range(regions)], np.float32).reshape(
            -1, 4
        ),
        scores=np.linspace(0.9, 0.1, regions).astype(np.float32),
        areas=np.full(regions, 4 * height, np.int64),
        region_labels=region_labels,
        labels=tuple(f"label {i}" for i in range(labels)),
        assignment=np.full((4, labels), 1 / labels, np.float32),
        grid_hw=(2, 2),
        timings_ms={"backbone": 1.0},
        frame=of.image,
        color=of.color,
        name=of.name,
        index=of.index,
        time_s=of.time_s,
    )


class Video(FrameSource):
    """A source of no frames that says it is a video."""

    def __init__(self, name: str, fps: float | None = 10.0) -> None:
        super().__init__([], kind="video", name=name)
        self.fps = fps


def started(path: Path, save: Sequence[str], name: str, **options: Any) -> OutputFolder:
    """A folder to which the results of a video of that name go."""
    folder = OutputFolder(path, save, **options)
    folder.start(Video(name))
    return folder


def files(folder: Path) -> list[str]:
    """Every file below `folder`, also hidden ones, but for the record of runs that are over."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not re.search(r"\.patchcut/run-\w+\.jsonl$", name))


def frames_in(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def photos_in(folder: Path, *names: str) -> Source:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), frame().image)
    return open_source(folder)


def run(out: OutputFolder, source: Source, regions: int = 2, stop_after: int = 10**6) -> list[str]:
    """Saves made-up results of a source's frames, as the command line does; the names of what was read."""
    read = []
    with out:
        for part in source.parts():
            if not out.start(part):
                continue
            for one in part:
                read.append(one.name)
                out.write(result(one, regions))
                if len(read) == stop_after:
                    raise KeyboardInterrupt
            out.finish_part(part.end_s)
    return read


def video_file(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(frames):
        writer.write(frame().image)
    writer.release()
