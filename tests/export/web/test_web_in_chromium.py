"""The page with the model inside it, in a real Chromium: its labels are Python's."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

import patchcut
from patchcut import Result
from patchcut.cli.demo import SAMPLES
from tests.browser import drop, overlays, ready, visiting, wait_for_overlay
from tests.runtime import toy_bundle as toy
from tests.runtime import toy_decoder

Exported = Callable[..., str]
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
LEAST_ALIKE = 0.995
BLOCKED = "Service Worker registration blocked"  # as a private window may do: the model runs on one thread
# The label of each pixel, one byte each, as base64: what the page's own engine finds in a picture.
_LABELS = """async (data) => {
  const load = (name) => import(new URL(`page/${name}`, document.baseURI).href);
  const [engine, picture] = await Promise.all([load("engine.js"), load("picture.js")]);
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const image = await picture.openPicture(new Blob([bytes]), "photo", 2 ** 24);
  const found = await engine.segment(image, { minScore: 0, unsure: false });
  const numbers = [0, ...found.regions.map((region) => found.labels.indexOf(region.label))];
  const labels = Uint8Array.from(found.ids, (id) => numbers[id]);
  let text = "";
  for (let i = 0; i < labels.length; i += 8192) text += String.fromCharCode(...labels.subarray(i, i + 8192));
  return { labels: btoa(text), width: found.width, height: found.height, regions: found.regions };
}"""


def labels_in(page: Any, data: bytes) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """[H, W] labels, and the regions, of a picture file."""
    found = page.evaluate(_LABELS, base64.b64encode(data).decode())
    labels = np.frombuffer(base64.b64decode(found["labels"]), np.uint8)
    return labels.reshape(found["height"], found["width"]), found["regions"]


def check(page: Any, segmenter: Callable[[np.ndarray], Result], data: bytes) -> Result:
    """The browser's labels, boxes and scores beside Python's."""
    result = segmenter(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)))
    labels, regions = labels_in(page, data)
    assert (labels == result.label_map).mean() >= LEAST_ALIKE
    assert len(regions) == len(result)
    for region, box, score, label in zip(
        regions, result.boxes, result.scores, result.label_names, strict=True
    ):
        assert region["label"] == label
        assert region["score"] == pytest.approx(float(score), abs=0.02)
        assert np.abs(np.subtract(region["box"], box)).max() <= 8
    return result


def test_labels_of_the_embedded_bundle_are_pythons(browser: Any, exported: Exported) -> None:
    segmenter = patchcut.load("default", precision="fp32", device="cpu", engine="onnxruntime")
    with visiting(browser, exported("default")) as page:
        ready(page)
        assert page.evaluate("crossOriginIsolated"), "the page gave itself the headers for that"
        threads = min(4, page.evaluate("navigator.hardwareConcurrency"))
        assert page.inner_text("#model").startswith(f"default, WebAssembly, {threads} thread")
        found = [check(page, segmenter, (SAMPLES / f"{name}.jpg").read_bytes()) for name in PHOTOS[:2]]
    assert all(0.1 < result.foreground.mean() < 0.9 for result in found), "labels that tell something"


def test_labels_of_a_small_bundle_are_pythons(browser: Any, exported: Exported, tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    calibration = {"weights": [0.5, 0.3, -0.4, 1.0], "bias": 1.0, "nothing_below": 0.05, "fitted_on": "none"}
    spec["heads"][0]["calibration"] = calibration
    path = toy.write(tmp_path / "toy.patchcut", files, spec)
    segmenter = patchcut.load(path, precision="fp32", size=168)
    with visiting(browser, exported(path, size=168)) as page:
        ready(page)
        photos = [(SAMPLES / f"{name}.jpg").read_bytes() for name in PHOTOS]
        for height, width in ((40, 300), (300, 41), (168, 168)):
            image = cv2.imread(str(SAMPLES / "coffee.jpg"))[:height, :width]
            photos.append(cv2.imencode(".png", image)[1].tobytes())
        found = [check_labels(page, segmenter, photo) for photo in photos]
    assert sum(len(result) for result in found) > 3, "labels that tell something"


def check_labels(page: Any, segmenter: Callable[[np.ndarray], Result], data: bytes) -> Result:
    result = segmenter(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)))
    labels, _ = labels_in(page, data)
    assert (labels == result.label_map).mean() >= LEAST_ALIKE
    return result


@pytest.mark.parametrize(("cells", "labels"), [(2, 3), (7, 2)])
def test_labels_of_a_decoder_are_pythons(
    browser: Any, exported: Exported, tmp_path: Path, cells: int, labels: int
) -> None:
    path = toy_decoder.write(tmp_path / "x.patchcut", cells, labels)
    segmenter = patchcut.load(path, precision="fp32")
    with visiting(browser, exported(path)) as page:
        ready(page)
        for name in PHOTOS[:2]:
            check_labels(page, segmenter, (SAMPLES / f"{name}.jpg").read_bytes())


def test_a_photo_is_dropped_and_its_score_limited(browser: Any, exported: Exported, tmp_path: Path) -> None:
    path = toy.write(tmp_path / "toy.patchcut")
    with visiting(browser, exported(path), allowed=(BLOCKED,), service_workers="block") as page:
        ready(page)
        assert page.inner_text("#model") == "toy, WebAssembly, 1 thread"
        for hidden in ("#tools", "label[for=head]", "label[for=mode]", "label[for=refine]", "#concepts"):
            assert page.is_hidden(hidden), "what the model has no choice of is not shown"
        drop(page, (SAMPLES / "astronaut.jpg").read_bytes(), "astronaut.jpg", "image/jpeg")
        wait_for_overlay(page, 0)
        several = page.locator("#objects li").count()
        assert several > 2
        page.focus("#min_score")
        for _ in range(45):
            page.keyboard.press("ArrowRight")
        wait_for_overlay(page, 1)
        page.wait_for_timeout(300)
        assert page.locator("#objects li").count() < several
        with page.expect_download() as got:
            page.get_by_role("button", name="Cut-out").click()
        cut = cv2.imread(got.value.path(), cv2.IMREAD_UNCHANGED)
        assert cut.shape == (512, 512, 4) and 0 < (cut[..., 3] == 255).mean() < 1
        page.get_by_role("button", name="Camera").click()
        wait_for_overlay(page, overlays(page) + 2)


def test_a_model_that_is_not_there_is_said(browser: Any, exported: Exported, tmp_path: Path) -> None:
    path = toy.write(tmp_path / "toy.patchcut")
    address = exported(path)
    with visiting(browser, address, allowed=(BLOCKED, "404", "Failed"), service_workers="block") as page:
        page.route("**/model.onnx", lambda route: route.fulfill(status=404, body=""))
        page.reload()
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#model") == "not connected"
