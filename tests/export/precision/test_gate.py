"""What the gate measures: of masks and boxes, of photos; and what keeps what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut.bundle import AgreementRow, BundleSpec, open_bundle
from patchcut_export.errors import ExportError

pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[export]")

from patchcut_export.bundles.rewriting import rewrite_bundle, with_agreement, with_head, with_report
from patchcut_export.measuring.datasets import DatasetError
from patchcut_export.precision import gate
from patchcut_export.precision.pictures import random_pictures, read_photos
from tests.runtime import toy_bundle as toy

Paint = Callable[[int], tuple[np.ndarray, np.ndarray]]
NEAR: dict[str, Any] = {
    "precision": "int8",
    "size": 112,
    "features": "key",
    "engine": "onnxruntime 1",
    "images": 4,
    "data": "photos",
    "cosine_mean": 0.9995,
    "cosine_worst": 0.99,
    "affinity_correlation": 0.999,
    "accepted": True,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Path:
    """A folder with images/, masks/ and, of the same, boxes.json elsewhere."""
    for name in ("images", "masks"):
        (tmp_path / "truth" / name).mkdir(parents=True)
    for seed in range(3):
        image, mask = paint(seed)
        cv2.imwrite(str(tmp_path / f"truth/images/{seed}.png"), image)
        cv2.imwrite(str(tmp_path / f"truth/masks/{seed}.png"), mask)
    return tmp_path / "truth"


def test_masks_tell_what_a_precision_costs(bundle: Path, photos: Path) -> None:
    rows = gate.measure(bundle, bundle, random_pictures(), gate.open_truth(photos))
    found = {(row.precision, row.size): row.iou for row in rows}
    assert {precision for precision, _ in found} == {"int8", "fp32"}
    assert all(found[key] == 0 for key in found if key[0] == "fp32"), "itself"
    assert all(value is not None and -0.05 <= value <= 0.05 for value in found.values())
    assert all(row.corloc is None for row in rows)


def test_boxes_tell_it_too(bundle: Path, photos: Path, paint: Paint) -> None:
    boxes = {}
    for seed in range(3):
        x, y, width, height = cv2.boundingRect(paint(seed)[1])
        box = {"bbox": [x, y, x + width, y + height], "difficult": False}
        boxes[str(seed)] = {"file": f"images/{seed}.png", "objects": [box]}
    (photos / "boxes.json").write_text(json.dumps(boxes))
    rows = gate.measure(bundle, bundle, random_pictures(), gate.open_truth(photos))
    assert all(row.corloc is not None and row.iou is None for row in rows)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"iou": -0.011}, "an IoU against fp32 of -0.0110, at least -0.01 needed"),
        ({"corloc": -0.02}, "a CorLoc against fp32 of -0.0200, at least -0.01 needed"),
        ({"label_agreement": 0.96}, "a label agreement of 0.9600, at least 0.97 needed"),
        ({"affinity_correlation": 0.5}, "an affinity correlation of 0.5000, at least 0.98 needed"),
        ({"cosine_worst": 0.7}, "a worst cosine of 0.7000, at least 0.8 needed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_measure_can_refuse(lost: dict[str, float], said: str) -> None:
    assert gate._shortfalls(AgreementRow.model_validate(NEAR), photos=True) == ""
    row = AgreementRow.model_validate({**NEAR, **lost})
    assert gate._shortfalls(row, photos=True) == said
    refused = gate.refused([row.model_copy(update={"accepted": False})], ["int8"])
    assert said in str(refused) and "[gate] int8 at 112 is too far from fp32: key" in str(refused)
    assert gate.refused([row.model_copy(update={"accepted": False})], ["fp32"]) is None


def test_a_folder_without_masks_or_boxes_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="masks"):
        gate.open_truth(tmp_path)


def test_a_calibration_folder_without_photos_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(ExportError, match=r"\[calibrate\] .*empty is not a folder; name a folder of photos"):
        read_photos(empty)
    empty.mkdir()
    with pytest.raises(Exception, match=r"empty\b.*;") as raised:
        read_photos(empty)
    assert "\n" not in str(raised.value)
    (empty / "notes.txt").write_text("no picture")
    with pytest.raises(Exception, match=r"empty\b.*;") as raised:
        read_photos(empty)
    assert "\n" not in str(raised.value)


def recalibrated(spec: BundleSpec) -> BundleSpec:
    head = spec.head("objects")
    assert head is not None
    return with_head(spec, head.model_copy(update={"labels": head.labels}))


@pytest.mark.parametrize(
    "rewrite", [recalibrated, lambda spec: with_report(spec, ())], ids=["head", "report"]
)
def test_what_was_refused_stays_so(bundle: Path, rewrite: Callable[[BundleSpec], BundleSpec]) -> None:
    refused = AgreementRow.model_validate({**NEAR, "accepted": False})
    for change in (lambda spec: with_agreement(spec, (refused,)), rewrite):
        with open_bundle(bundle) as opened:
            rewrite_bundle(opened, bundle, change(opened.spec))
    with open_bundle(bundle) as opened:
        opened.verify()
        assert opened.spec.backbone.agreement == (refused,)
