from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Frame, Result, Segmenter
from patchcut.output.folder import OutputFolder
from patchcut.output.index import thumbnail_of
from patchcut.settings import Mode

from tests.runtime.output.made_folders import WORDS
from tests.runtime.output.test_folder import Video, files, frame, result
from tests.runtime.results import boxes_result

ODD_NAMES = [
    "a#b?c%20.jpg",
    "\"quo<te>&'.jpg",
    "sub dir/ü 日本.jpg",
    "javascript:alert(1).jpg",
    "<script>alert(1)</script>.jpg",
    "new\nline\x1b[31m.jpg",
    "caf%E9.jpg",
    "...jpg",
]


class Page(HTMLParser):
    """What a page links to, shows, and says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def entries(folder: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["results"]
    return told


def check_page(folder: Path) -> Page:
    """Checks that every link of the page is relative and leads to a file or folder of the run."""
    page = Page(folder / "index.html")
    for link in page.links:
        parts = urlsplit(link)
        assert not (parts.scheme or parts.netloc or parts.query or parts.fragment), link
        assert (folder / unquote(parts.path)).exists(), link
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    return page


def test_the_index_tells_what_was_found_and_where(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, WORDS) as folder:
        folder.write(result(frame("a/x.jpg"), regions=2))
        folder.write(result(frame("b.png"), regions=0))
    first, second = entries(tmp_path)
    assert (first["name"], first["size_hw"]) == ("a/x.jpg", [48, 64])
    assert [region["mask_file"] for region in first["regions"]] == ["masks/a/x/01.png", "masks/a/x/02.png"]
    assert (second["name"], second["regions"]) == ("b.png", [])
    each = ["overlay", "masks", "labels", "cutout", "crop", "npz", "json", "rerun"]
    each = [word for word in each if word in WORDS]
    assert list(first["files"]) == each
    for entry in (first, second):
        paths = [entry["thumbnail"], *(path for paths in entry["files"].values() for path in paths)]
        assert all((tmp_path / path).is_file() for path in paths)
    page = check_page(tmp_path)
    assert len(page.links) == 2 * 2 + (len(each) + 1) + (len(each) - 2), (
        "two pictures, each a link, and links to files"
    )
    assert {"patchcut: 2 results", "a/x.jpg", "2 regions, best 0.90", "nothing found"} <= set(page.texts)
    assert set(files(tmp_path)) >= {"index.html", "index.json", "index/a/x.jpg", "index/b.jpg"}


def test_odd_names_stay_text_and_their_links_lead_somewhere(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["overlay", "masks", "index"]) as folder:
        for index, name in enumerate(ODD_NAMES):
            folder.write(result(frame(name, index)))
    page = check_page(tmp_path)
    assert [entry["name"] for entry in entries(tmp_path)] == ODD_NAMES
    assert page.tags.count("img") == page.tags.count("figure") == len(ODD_NAMES)
    assert ODD_NAMES[4] in page.texts and "new\\nline\\x1b[31m.jpg" in page.texts


def test_the_index_alone_has_pictures(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["index"]) as folder:
        folder.write(result(frame("x.jpg")))
    assert files(tmp_path) == ["index.html", "index.json", "index/x.jpg"]
    assert check_page(tmp_path).links == ["index/x.jpg", "index/x.jpg"]


def test_a_video_is_one_entry(tmp_path: Path) -> None:
    frames = [result(frame("cars 1.mp4", index), regions=index % 2) for index in range(6)]
    with OutputFolder(tmp_path, ["overlay", "masks", "coco", "index"]) as folder:
        folder.write(result(frame("photo.jpg")))
        folder.start(Video("cars 1.mp4"))
        for one in frames:
            folder.write(one)
        folder.finish_part(0.6)
    photo, video = entries(tmp_path)
    assert photo["name"] == "photo.jpg"
    assert (video["name"], video["frames"], video["frames_with_regions"]) == ("cars 1.mp4", 6, 3)
    assert video["best_frame"] == 1 and video["best_score"] == pytest.approx(0.9, abs=1e-3)
    assert video["files"]["masks"] == ["masks/cars-1/"] and video["files"]["coco"] == ["coco/cars-1.json"]
    assert Path(video["files"]["overlay"][0]).stem == "cars-1"
    assert "6 frames, something found in 3" in check_page(tmp_path).texts


def test_the_objects_of_a_video_are_counted(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, ["index"]) as folder:
        folder.start(Video("cars.mp4"))
        for index, ids in enumerate(([3, 1], [1], [8, 0], [])):
            one = result(frame("cars.mp4", index), regions=len(ids))
            folder.write(dataclasses.replace(one, track_ids=np.array(ids, np.int32)))
        folder.finish_part(0.6)
    (video,) = entries(tmp_path)
    assert video["tracks"] == 3
    assert "4 frames, something found in 3, 3 tracked" in check_page(tmp_path).texts


def test_ctrl_c_in_a_video_leaves_a_whole_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, ["masks", "index"]) as folder:
        folder.write(result(frame("photo.jpg")))
        folder.start(Video("x.mp4"))
        folder.write(result(frame("x.mp4", 0)))
        raise KeyboardInterrupt
    photo, video = entries(tmp_path)
    assert (photo["name"], video["name"], video["frames"]) == ("photo.jpg", "x.mp4", 1)
    assert video["files"] == {"masks": ["masks/x/"]}
    check_page(tmp_path)


def test_a_resumed_run_lists_all_photos(tmp_path: Path, embedded_segmenter: Segmenter) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    sample = Path(patchcut.__file__).parent / "samples/coffee.jpg"
    for names in (["a.jpg"], ["b.jpg"]):
        for name in names:
            (photos / name).write_bytes(sample.read_bytes())
        with (
            patchcut.open_source(photos) as source,
            OutputFolder(tmp_path / "out", ["masks", "index"], resume=True) as folder,
        ):
            for part in source.parts():
                folder.start(part)
                for one in embedded_segmenter.results(part):
                    folder.write(one)
                folder.finish_part()
            assert folder.skipped == len(names) - 1 + names.count("b.jpg")
    assert [entry["name"] for entry in entries(tmp_path / "out")] == ["a.jpg", "b.jpg"]
    check_page(tmp_path / "out")


@pytest.mark.parametrize("mode", ["foreground", "scene"])
@pytest.mark.parametrize("size_hw", [(1, 1), (200, 300), (1000, 1700), (2, 5000), (4000, 3)])
def test_thumbnails_of_any_size(size_hw: tuple[int, int], mode: Mode) -> None:
    height, width = size_hw
    boxes = [(0, 0, (width + 1) // 2, height), (width - 1, height - 1, width, height)][: 1 + (width > 2)]
    one = boxes_result(boxes, size_hw, mode=mode, frame=np.full((height, width, 3), 100, np.uint8))
    small = thumbnail_of(one)
    assert small is not None and small.shape[2] == 3
    assert max(small.shape) == min(320, max(size_hw)) or max(size_hw) < 3
    assert np.any(small != 100)


def test_thumbnails_are_bgr_whatever_the_frame_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    bgr = result(Frame(image, "bgr", "x"), regions=1)
    rgb = result(Frame(np.ascontiguousarray(image[..., ::-1]), "rgb", "x"), regions=1)
    np.testing.assert_array_equal(thumbnail_of(bgr), thumbnail_of(rgb))  # type: ignore[arg-type]


def test_a_result_without_its_frame_has_no_thumbnail(tmp_path: Path) -> None:
    bare = Result(**{**vars(result(frame("x.jpg"))), "frame": None})
    assert thumbnail_of(bare) is None
    with OutputFolder(tmp_path, ["masks", "index"]) as folder:
        folder.write(bare)
    assert "thumbnail" not in entries(tmp_path)[0]
    assert "img" not in check_page(tmp_path).tags


def test_cutouts_and_crops_are_files_in_the_frames_colours(tmp_path: Path) -> None:
    rgb = Frame(np.ascontiguousarray(frame().image[..., ::-1]), "rgb", "rgb.jpg")
    with OutputFolder(tmp_path, ["cutout", "crop"]) as folder:
        folder.write(result(frame("bgr.jpg")))
        folder.write(result(rgb))
        folder.write(result(frame("nothing.jpg"), regions=0))
    assert files(tmp_path) == [
        "crop/bgr.jpg",
        "crop/rgb.jpg",
        "cutout/bgr.png",
        "cutout/nothing.png",
        "cutout/rgb.png",
    ]
    one = result(frame())
    for name in ("bgr", "rgb"):
        cutout = cv2.imread(str(tmp_path / f"cutout/{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(cutout, one.cutout())
        crop = cv2.imread(str(tmp_path / f"crop/{name}.jpg"))
        assert np.abs(crop.astype(int) - one.crop()).mean() < 8  # what JPEG changes
    assert not cv2.imread(str(tmp_path / "cutout/nothing.png"), cv2.IMREAD_UNCHANGED).any()
