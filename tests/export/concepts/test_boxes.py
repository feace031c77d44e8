"""Concepts from boxes: `patchcut export concept --boxes`, on painted photos with the toy backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import open_bundle
from patchcut.heads.prototypes import read_prototypes
from patchcut.stages import Canvas
from patchcut_export.concepts import boxes
from patchcut_export.concepts.archives import Archive
from patchcut_export.concepts.boxes import inside_box, read_boxes
from tests.runtime.concepts import semantic_toy as toy

THINGS = ("mug", "bowl")
X0, Y0, X1, Y1 = toy.BOX


def coco(given: dict[str, list[float]], file_name: str = "{}.png") -> dict[str, Any]:
    """COCO's content: on each of four photographs of two squares one box of each name."""
    names = list(given)
    images = [
        {"id": i, "file_name": file_name.format(i), "height": toy.SIDE, "width": 2 * toy.SIDE}
        for i in range(4)
    ]
    annotations = [
        {"id": 10 * i + c, "image_id": i, "category_id": c, "bbox": given[name]}
        for i in range(4)
        for c, name in enumerate(names)
    ]
    categories = [{"id": c, "name": name} for c, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs, each of a mug and a bowl beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        assert cv2.imwrite(str(folder / f"{i}.png"), toy.scene(*THINGS, seed=i))
    return folder


@pytest.fixture
def make(run_cli: Callable[..., int], photos: Path, tmp_path: Path) -> Callable[..., Path | None]:
    """Makes both concepts of the same photographs, with the content of a file of boxes."""

    def run(content: object) -> Path | None:
        backbone, file, out = (tmp_path / name for name in ("toy.patchcut", "b.json", "made.patchcut"))
        toy.bundle(backbone)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        archives = [word for name in THINGS for word in ("--archive", f"{name}={photos}")]
        where = ("--bundle", out, "--backbone", backbone, "--work", tmp_path / "work", "--threads", 1)
        status = run_cli("export", "concept", *archives, "--boxes", file, *where)
        assert (status == 0) == out.exists()
        return out if status == 0 else None

    return run


LEFT = [X0, Y0, X1 - X0, Y1 - Y0]
RIGHT = [toy.SIDE + X0, Y0, X1 - X0, Y1 - Y0]


def in_the_middles(path: Path) -> tuple[str, ...]:
    """What a mug and a bowl beside it are called."""
    result = patchcut.load(path, head="concepts")(toy.scene(*THINGS, seed=99))
    y, x = toy.SIDE // 2, toy.SIDE // 2
    return tuple(result.labels[result.label_map[y, one]] for one in (x, toy.SIDE + x))


def test_boxes_tell_two_things_of_the_same_photographs_apart(
    make: Callable[..., Path | None], capfd: Any
) -> None:
    path = make(coco({"mug": LEFT, "bowl": RIGHT}))
    assert path is not None and "mug: 4 of 4 photographs have a box" in capfd.readouterr().err
    assert in_the_middles(path) == ("mug", "bowl")
    exchanged = make(coco({"bowl": LEFT, "mug": RIGHT}))
    assert exchanged is not None and in_the_middles(exchanged) == ("bowl", "mug")


def test_what_is_no_foreground_makes_names_of_patches(
    make: Callable[..., Path | None], capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "_SEEN", 1.0)  # as if no box held what the head for objects sees
    path = make(coco({"mug": LEFT, "bowl": RIGHT}))
    assert path is not None
    assert "does not see mug, bowl: every patch has a name" in capfd.readouterr().err
    with open_bundle(path) as bundle:
        spec = bundle.spec.head("names")
        assert spec is not None and spec.concepts is not None and spec.concepts.foreground is None
        assert spec.features == ("semantic",)
        made = read_prototypes(bundle, spec)
    assert made.thresholds is None and made.presence is None
    result = patchcut.load(path, head="concepts")(toy.scene("mug", seed=99))
    assert set(np.unique(result.label_map)) == {1, 2}
    middle = toy.SIDE // 2
    assert result.labels[result.label_map[middle, middle]] == "mug"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "is no COCO JSON of boxes"),
        ({"images": []}, "is no COCO JSON of boxes"),
        (coco({"cup": LEFT}), "has no box on the photographs of"),
        (coco({"mug": LEFT}, "other{}.png"), "it has boxes of mug"),
        (coco({"mug": [0, 0, 0, 4]}), "the box of mug on 0.png is empty or outside of it"),
        (coco({"mug": [500, 0, 9, 9]}), "is empty or outside of it"),
        (coco({"mug": [1, 2, 3]}), "is no COCO JSON of boxes"),
    ],
)
def test_boxes_that_say_nothing_are_refused_in_one_line(
    make: Callable[..., Path | None], capfd: Any, content: object, said: str
) -> None:
    assert make(content) is None
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "[boxes]" in last and said in last


def test_boxes_take_the_place_of_the_foreground() -> None:
    """Of photographs that have one; what holds no piece of it the head for objects does not see."""
    sides = np.zeros((3, 4, 4), np.float32)
    sides[:, 1:3, 1:3] = 0.8
    rows = np.zeros((3, 16, 2), np.float16)
    archive = Archive("mug", Path(), ("0.png", "sub/1.png", "2.png"), rows, sides.reshape(3, 16), (4, 4))
    sizes = dict.fromkeys(["0.png", "1.png"], (40, 40))

    def told(*given: tuple[int, int, int, int]) -> Archive:
        named = {"mug": {name: list(given) for name in sizes}}
        return boxes.Boxes(Path("b.json"), sizes, named).told(
            archive, lambda size_hw: Canvas(size_hw, (0, 0), size_hw, (4, 4))
        )

    seen = told((10, 10, 30, 30))
    assert seen.boxed == 2 and not seen.unseen
    expected = (sides[0] > 0).astype(np.float32).ravel()
    np.testing.assert_array_equal(seen.sides[:2], [expected, expected])
    np.testing.assert_array_equal(seen.sides[2], archive.sides[2])
    several = told((0, 0, 10, 10), (30, 30, 40, 40))
    assert several.unseen and np.flatnonzero(several.sides[0]).tolist() == [0, 15]
    other = boxes.Boxes(Path("b.json"), sizes, {"cup": {"0.png": [(0, 0, 9, 9)]}})
    assert other.told(archive, lambda _: pytest.fail("no box is of it")) is archive


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(patchcut.PatchcutError, match="cannot be read"):
        read_boxes(tmp_path / "nowhere.json")


def test_a_box_has_the_patches_that_lie_in_it_by_half() -> None:
    canvas = Canvas((40, 40), (0, 0), (40, 40), (4, 4))
    inside = inside_box((4, 10, 27, 30), canvas).reshape(4, 4)
    assert inside.tolist() == [[0] * 4, [1, 1, 1, 0], [1, 1, 1, 0], [0] * 4]
    small = inside_box((11, 11, 13, 13), canvas)
    assert np.flatnonzero(small).tolist() == [5]
