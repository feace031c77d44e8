from __future__ import annotations

from pathlib import Path

import numpy as np
from patchcut.frames import Frame
from patchcut.sources import open_source
from PIL import Image

from tests.runtime.sources.files import picture


def test_an_iterable_of_paths_is_photos(folder: Path) -> None:
    source = open_source(path for path in (folder / "img2.JPG", str(folder / "cut.jpg"), picture()))
    frames = list(source)
    assert [(frame.name, frame.index) for frame in frames] == [(f"{folder}/img2.JPG", 0), ("", 2)]
    assert frames[0].image.shape == (60, 80, 3)
    assert source.problems == [
        f"[{folder}/cut.jpg] is cut short: its end is missing; copy or download it again"
    ]


def test_arrays_and_pil_images() -> None:
    items = [picture(), np.zeros((4, 4, 2), np.uint8), None, Image.fromarray(picture())]
    source = open_source(iter(items), color="rgb")
    frames = list(source)
    assert (source.kind, source.total) == ("frames", None)
    assert [(frame.index, frame.color) for frame in frames] == [(0, "rgb"), (3, "rgb")]
    assert frames[0].image is items[0]
    assert source.problems[0].startswith("[frame 1] must be [H, W, 3] uint8, got [4, 4, 2] uint8; pass")
    assert source.problems[1].startswith("[frame 2] got None")


def test_one_frame_is_not_taken_for_its_rows() -> None:
    assert len(list(open_source(picture()))) == 1
    assert len(list(open_source(Image.fromarray(picture())))) == 1
    assert len(list(open_source(np.stack([picture(), picture()])))) == 2
    frame = Frame(picture(), name="mine", index=7)
    assert list(open_source(frame)) == [frame]
    assert list(open_source([])) == []
