"""The metrics against oracles, and `patchcut export eval` as its users run it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import EMBEDDED, open_bundle
from patchcut_export.datasets import Example, open_dataset
from patchcut_export.evaluation import Score, box_ious, evaluate, mask_iou, score, summarize

Patchcut = Callable[..., int]

COORDINATE = st.integers(0, 12)
BOXES = st.lists(
    st.tuples(COORDINATE, COORDINATE, st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=4
).map(lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32))
MASKS = hnp.arrays(bool, (5, 7))


def raster(box: np.ndarray) -> np.ndarray:
    canvas = np.zeros((24, 24), bool)
    x1, y1, x2, y2 = box.astype(int)
    canvas[y1:y2, x1:x2] = True
    return canvas


@given(a=BOXES, b=BOXES)
def test_box_ious_are_those_of_their_pixels(a: np.ndarray, b: np.ndarray) -> None:
    ious = box_ious(a, b)
    expected = [[mask_iou(raster(x), raster(y)) for y in b] for x in a]
    np.testing.assert_allclose(ious, expected, atol=1e-6)
    np.testing.assert_allclose(box_ious(b, a), ious.T)
    np.testing.assert_allclose(np.diag(box_ious(a, a)), 1)


def test_no_boxes_have_no_ious() -> None:
    assert box_ious(np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)).shape == (0, 3)


@given(a=MASKS, b=MASKS)
def test_mask_iou_is_that_of_sets(a: np.ndarray, b: np.ndarray) -> None:
    first, second = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    union = first | second
    assert mask_iou(a, b) == (len(first & second) / len(union) if union else 1)
    assert mask_iou(a, b) == mask_iou(b, a)
    assert mask_iou(a, a) == 1
    if a.any():
        assert mask_iou(a, np.zeros_like(a)) == 0


def test_means_are_over_what_is_known() -> None:
    scores = [Score("a", iou=0.5, accuracy=0.75), Score("b", iou=1.0, accuracy=0.25)]
    assert summarize(scores).metrics == {"mean foreground IoU": 0.75, "pixel accuracy": 0.5}
    hits = summarize([Score(str(i), hit=i < 3) for i in range(4)])
    assert (hits.images, hits.metrics) == (4, {"CorLoc": 0.75})


@pytest.fixture
def masks_root(tmp_path: Path, paint: Callable[[int], Any]) -> Path:
    root = tmp_path / "painted"
    for seed in range(8):
        for folder, picture in zip(("images", "masks"), paint(seed), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{seed}.png"), picture)
    return root


@pytest.fixture
def bundle(headed_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(headed_bundle, tmp_path / "tiny.patchcut"))


def boxes_for(root: Path, bundle: Path, kinds: list[str]) -> None:
    """boxes.json in which images are hits, near misses, or have a hit among other boxes."""
    segmenter = patchcut.load(bundle)
    entries = {}
    for name, kind in zip(sorted(path.name for path in (root / "images").iterdir()), kinds, strict=False):
        x1, y1, x2, y2 = map(float, segmenter(cv2.imread(str(root / "images" / name))).boxes[0])
        box = [x1 + 1, y1 + 1, x2, y2]
        far = [x1 + 1 + 0.6 * (x2 - x1), y1 + 1, x2 + 0.6 * (x2 - x1), y2]
        boxes = {"hit": [box], "miss": [far], "both": [far, box]}[kind]
        entries[name] = {"file": f"images/{name}", "objects": [{"bbox": b} for b in boxes]}
    (root / "boxes.json").write_text(json.dumps(entries))


def test_corloc_counts_images_whose_best_box_hits(masks_root: Path, bundle: Path) -> None:
    kinds = ["hit", "miss", "both", "hit", "miss"]
    boxes_for(masks_root, bundle, kinds)
    scores = list(
        evaluate(patchcut.load(bundle), open_dataset("boxes", masks_root), lambda done, total: None)
    )
    assert [found.hit for found in scores] == [kind != "miss" for kind in kinds]
    assert summarize(scores).metrics == {"CorLoc": 0.6}


def test_only_the_best_box_counts() -> None:
    near, far = [0, 0, 10, 10], [50, 50, 60, 60]
    example = Example("x", Path("x.png"), boxes_xyxy=np.array([near], np.float32))
    for boxes, hit in (([near, far], True), ([far, near], False), ([], False)):
        result: Any = SimpleNamespace(boxes=np.array(boxes, np.float32).reshape(-1, 4))
        assert score(result, example).hit is hit
    half: Any = SimpleNamespace(boxes=np.array([[0, 0, 10, 5]], np.float32))
    assert score(half, example).hit is True, "an IoU of 0.5 is a hit"


def test_masks_are_measured(
    run_cli: Patchcut, masks_root: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, grid = tmp_path / "scores.jsonl", tmp_path / "grid.png"
    options = ["--root", masks_root, "--bundle", bundle, "--out", out, "--grid", grid, "--json"]
    before = bundle.read_bytes()
    assert run_cli("export", "eval", "masks", *options) == 0
    report = json.loads(capfd.readouterr().out)
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in scores] == [str(i) for i in range(8)]
    segmenter = patchcut.load(bundle)
    for row in scores:
        frame, mask = (cv2.imread(str(masks_root / d / f"{row['name']}.png")) for d in ("images", "masks"))
        found, truth = segmenter(frame).foreground, mask[..., 0] > 127
        assert row["iou"] == pytest.approx((found & truth).sum() / (found | truth).sum())
        assert row["accuracy"] == pytest.approx((found == truth).mean())
        assert row["hit"] is None
    assert report["images"] == 8
    assert report["metrics"]["mean foreground IoU"] == pytest.approx(np.mean([row["iou"] for row in scores]))
    assert report["dataset"] == "painted"
    picture = cv2.imread(str(grid))
    assert picture.shape == (2 * 224, 6 * 224, 3)
    assert (picture[224:, 2 * 224 :] == 255).all(), "only eight tiles are drawn"
    assert np.ptp(picture[:224]) > 100
    assert bundle.read_bytes() == before


def test_record_replaces_rows_of_the_same_kind(
    run_cli: Patchcut, masks_root: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    boxes_for(masks_root, bundle, ["hit", "miss"])

    def measure(layout: str, *options: object) -> None:
        fixed = ("--root", masks_root, "--bundle", bundle, "--record")
        assert run_cli("export", "eval", layout, *fixed, *options) == 0

    def rows() -> dict[tuple[str, int, str], tuple[float, int]]:
        with open_bundle(bundle) as opened:
            opened.verify()
            report = opened.spec.report
        found = {(row.metric, row.size, row.precision): (row.value, row.images) for row in report}
        assert len(found) == len(report)
        return found

    measure("masks")
    assert {("mean foreground IoU", 96, "int8"), ("pixel accuracy", 96, "int8")} == set(rows())
    measure("masks", "--size", 64, "--precision", "fp32")
    measure("boxes")
    before = rows()
    assert len(before) == 5
    assert before["CorLoc", 96, "int8"] == (0.5, 2)
    for folder in ("images", "masks"):
        (masks_root / folder / "7.png").unlink()
    measure("masks")
    after = rows()
    assert after.keys() == before.keys()
    assert after["mean foreground IoU", 96, "int8"][1] == 7
    assert after["mean foreground IoU", 64, "fp32"] == before["mean foreground IoU", 64, "fp32"]
    assert "mean foreground IoU" in capfd.readouterr().out


def test_recording_must_name_the_bundle_it_changes(
    run_cli: Patchcut, masks_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = EMBEDDED.stat()
    assert run_cli("export", "eval", "masks", "--root", masks_root, "--record") == 2
    assert "[record] must say which bundle it changes, got none; add --bundle FILE" in capfd.readouterr().err
    assert EMBEDDED.stat() == before


def bad_size(root: Path) -> None:
    assert cv2.imwrite(str(root / "masks" / "3.png"), np.zeros((9, 9), np.uint8))


def bad_image(root: Path) -> None:
    (root / "images" / "3.png").write_bytes(b"no picture")


def no_mask(root: Path) -> None:
    (root / "masks" / "3.png").unlink()


@pytest.mark.parametrize(
    ("arguments", "spoil", "status", "expected"),
    [
        (["voc"], None, 1, "no layout 'voc'"),
        (["boxes"], None, 1, "boxes.json"),
        (["masks"], no_mask, 1, "no mask for 3"),
        (["masks"], bad_size, 1, "3.png is 9x9, its image 96x72"),
        (["masks"], bad_image, 1, "3.png"),
        (["masks", "--size", 65], None, 2, "[size]"),
        (["masks", "--precision", "int4"], None, 2, "[precision]"),
        (["masks", "--threads", 0], None, 2, "[threads]"),
        (["masks", "--refine", "magic"], None, 2, "[refine]"),
        (["masks", "--grid", "grid.txt"], None, 1, "name a .jpg or .png file"),
        (["masks", "--grid", "no/grid.png"], None, 1, "no is not a folder; make it first"),
        (["masks", "--out", "painted"], None, 1, "painted is a folder; name a file"),
    ],
)
def test_a_mistake_is_one_line(
    run_cli: Patchcut,
    masks_root: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[object],
    spoil: Callable[[Path], None] | None,
    status: int,
    expected: str,
) -> None:
    monkeypatch.chdir(masks_root.parent)
    if spoil:
        spoil(masks_root)
    before = bundle.read_bytes()
    assert (
        run_cli("export", "eval", *arguments, "--root", masks_root, "--bundle", bundle, "--record") == status
    )
    said, errors = capfd.readouterr()
    lines = [line for line in errors.splitlines() if not line.startswith("painted (")]  # the progress
    assert said == ""
    assert len(lines) == 1
    assert lines[0].startswith("patchcut: [")
    assert expected in lines[0]
    assert bundle.read_bytes() == before


def test_a_bundle_without_a_head_cannot_be_measured(
    run_cli: Patchcut, masks_root: Path, backbone_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("export", "eval", "masks", "--root", masks_root, "--bundle", backbone_bundle) == 1
    assert "holds a backbone and no head" in capfd.readouterr().err
