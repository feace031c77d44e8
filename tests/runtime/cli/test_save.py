"""`patchcut run --save` with every word, on photos and a video at once."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import patchcut
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.runtime.output.made_folders import WORDS
from tests.runtime.output.test_index import check_page, entries


@pytest.fixture
def sources(tmp_path: Path, photo: np.ndarray) -> Path:
    """A folder with a photo, one below it with an odd name, and a video."""
    folder = tmp_path / "sources"
    (folder / "b c").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), photo)
    cv2.imwrite(str(folder / "b c/50%#?.png"), photo[:, ::-1])
    writer = cv2.VideoWriter(str(folder / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (320, 213))
    for shift in range(4):
        writer.write(np.roll(cv2.resize(photo, (320, 213)), 20 * shift, axis=1))
    writer.release()
    return folder


@pytest.mark.parametrize("mode", ["foreground", "parts", "scene"])
def test_every_word(run_cli: Callable[..., int], sources: Path, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out"
    assert run_cli("run", sources, "--mode", mode, "--out", out, "--save", ",".join(WORDS)) == 0
    told = entries(out)
    assert [entry["name"] for entry in told] == ["a.jpg", "b c/50%#?.png", "walk.avi"]
    check_page(out)
    for entry in told[:2]:
        check_photo(out, entry["files"]["json"][0], cv2.imread(str(sources / entry["name"])))
    with contextlib.redirect_stdout(io.StringIO()):
        photos, video = COCO(out / "coco.json"), COCO(out / "coco/walk.json")
    assert [image["file_name"] for image in photos.imgs.values()] == ["a.jpg", "b c/50%#?.png"]
    assert [image["frame_index"] for image in video.imgs.values()] == [0, 1, 2, 3]
    for frame in range(4):
        masks = sorted(out.glob(f"masks/walk/{frame:06d}/*.png"))
        annotations = video.loadAnns(video.getAnnIds(imgIds=[frame + 1]))
        assert len(masks) == len(annotations) > 0
        for path, annotation in zip(masks, annotations, strict=True):
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(mask, 255 * video.annToMask(annotation))


def check_photo(out: Path, json_file: str, photo: np.ndarray) -> None:
    """Checks that all files of a photo say the same."""
    told = json.loads((out / json_file).read_text("utf-8"))
    files, labels = told["files"], told["labels"]
    label_map = patchcut.output.read_label_map(out / files["labels"][0])
    np.testing.assert_array_equal(label_map, np.array(Image.open(out / files["labels"][0])))
    foreground = np.zeros(label_map.shape, bool)
    assert len(told["regions"]) > 0
    for number, region in enumerate(told["regions"], start=1):
        assert region["mask_file"].endswith(f"/{number:02d}.png")
        mask = cv2.imread(str(out / region["mask_file"]), cv2.IMREAD_UNCHANGED) == 255
        assert mask.sum() == region["area"]
        assert np.all(label_map[mask] == labels.index(region["label"]))
        if not region["label"].startswith("background"):
            foreground |= mask
    cutout = cv2.imread(str(out / files["cutout"][0]), cv2.IMREAD_UNCHANGED)
    assert np.all(cutout[foreground, 3] >= 128)
    np.testing.assert_array_equal(cutout[foreground, :3], photo[foreground])
    height, width = cv2.imread(str(out / files["crop"][0])).shape[:2]
    assert 0 < height <= photo.shape[0] and 0 < width <= photo.shape[1]
    assert cv2.imread(str(out / files["overlay"][0])).shape == photo.shape
