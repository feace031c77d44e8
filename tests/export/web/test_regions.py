"""The JavaScript around the model beside patchcut's own stages, in Node: pixels in, regions out."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut import Frame
from patchcut.bundle import CalibrationSpec
from patchcut.stages import Canvas, Masks, Rules
from patchcut_kernels import reference

_PROGRAM = """
import { readFileSync } from "node:fs";
import { resize } from "./resize.mjs";
import { regionsOf } from "./regions.mjs";
const asked = JSON.parse(readFileSync(0, "utf8"));
const answer = asked.map(({ pixels, assignment, frame, about, limit }) => pixels
  ? Array.from(resize(Uint8ClampedArray.from(pixels), frame, about.size_hw, about.fit, about.mean))
  : (({ ids, regions }) => ({ ids: Array.from(ids), regions }))(regionsOf(assignment, frame, about, limit)));
process.stdout.write(JSON.stringify(answer));
"""
CALIBRATION = CalibrationSpec(weights=(1.5, 0.4, -0.5, 2.0), bias=1.0, nothing_below=0.3)
# Height, width of the frame, side of the image, how it fits, what of the image the grid covers.
GEOMETRIES = [
    ((40, 60), (32, 32), "stretch", None),
    ((61, 37), (32, 32), "letterbox", None),
    ((30, 90), (32, 48), "letterbox", None),
    ((33, 20), (32, 32), "stretch", [[1.5, 27.0], [2.5, 24.0]]),
    ((64, 50), (32, 32), "letterbox", [[1.5, 27.0], [1.5, 27.0]]),
    ((1, 7), (32, 32), "stretch", None),
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """node(questions): the answers of the modules, all in one process."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs the program node")
    folder = tmp_path_factory.mktemp("node")
    for name in ("resize", "regions"):
        text = (resources.files("patchcut_export.web") / f"page/{name}.js").read_text("utf-8")
        (folder / f"{name}.mjs").write_text(text.replace('.js"', '.mjs"'))
    (folder / "answer.mjs").write_text(_PROGRAM)

    def ask(questions: list[dict[str, Any]]) -> list[Any]:
        done = subprocess.run(
            [program, str(folder / "answer.mjs")],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    return ask


def about_of(size_hw: tuple[int, int], fit: str, covered: Any, k: int, calibrated: bool) -> dict[str, Any]:
    return {
        "size_hw": list(size_hw),
        "grid_hw": [5, 6],
        "fit": fit,
        "mean": [0.5, 0.4, 0.3],
        "covered": covered,
        "labels": ["background", *(f"label {i}" for i in range(1, k))],
        "role": "objects",
        "min_area_patches": 0.4,
        "calibration": CALIBRATION.model_dump() if calibrated else None,
    }


def canvas_of(frame_hw: tuple[int, int], size_hw: tuple[int, int], fit: str, covered: Any) -> Canvas:
    class Backbone:
        def __init__(self) -> None:
            self.fit = fit

        def covered(self, size: tuple[int, int]) -> Any:
            return covered

    class Graph:
        grid_hw = (5, 6)

        def __init__(self) -> None:
            self.size_hw = size_hw

    backbone: Any = Backbone()
    graph: Any = Graph()
    return Canvas.of(frame_hw, backbone, graph)


def random_assignment(rng: np.random.Generator, k: int) -> np.ndarray:
    logits = rng.standard_normal((30, k)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.asarray(shares, np.float32)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("calibrated", [False, True])
def test_regions_are_those_of_the_stages(node: Any, k: int, calibrated: bool) -> None:
    rng = np.random.default_rng(k)
    questions, wanted = [], []
    for geometry in GEOMETRIES:
        frame_hw, size_hw, fit, covered = geometry
        for limit in (0.0, 0.35):
            assignment = random_assignment(rng, k)
            about = about_of(size_hw, fit, covered, k, calibrated)
            rules = Rules(nothing_below=limit, calibration=CALIBRATION if calibrated else None)
            frame = Frame(np.zeros((*frame_hw, 3), np.uint8))
            wanted.append(Masks(0.4, rules)(frame, assignment, canvas_of(*geometry)))
            questions.append(
                {"assignment": assignment.ravel().tolist(), "frame": frame_hw, "about": about, "limit": limit}
            )
    assert sum(len(one.scores) for one in wanted) > 20, "there are regions to be compared"
    for question, want, got in zip(questions, wanted, node(questions), strict=True):
        ids = np.reshape(got["ids"], want.region_ids.shape)
        assert (ids == want.region_ids).mean() > 0.995, question
        assert len(got["regions"]) == len(want.scores)
        for i, region in enumerate(got["regions"]):
            assert region["score"] == pytest.approx(float(want.scores[i]), abs=2e-3)
            assert region["label"] == question["about"]["labels"][want.region_labels[i]]
            assert np.abs(np.subtract(region["box"], want.boxes[i])).max() <= 1


def test_pixels_are_resized_as_preprocess_does(node: Any) -> None:
    rng = np.random.default_rng(0)
    questions, wanted = [], []
    for frame_hw, size_hw, fit, _ in GEOMETRIES:
        frame = rng.integers(0, 256, (*frame_hw, 3), np.uint8)
        rgba = np.concatenate([frame, np.full((*frame_hw, 1), 255, np.uint8)], axis=2)
        about = about_of(size_hw, fit, None, 2, False)
        questions.append({"pixels": rgba.ravel().tolist(), "frame": frame_hw, "about": about})
        image = reference.preprocess(frame, size_hw, about["mean"], (1, 1, 1), color="rgb", fit=fit)
        wanted.append(255 * (image.transpose(1, 2, 0) + about["mean"]))
    for want, got in zip(wanted, node(questions), strict=True):
        assert np.abs(np.reshape(got, want.shape) - want).max() < 0.51, "but for rounding to bytes"


def test_a_module_of_the_page_writes_cocos_run_lengths(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="the other reader and writer is pycocotools")
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs the program node")
    text = (resources.files("patchcut_server") / "page/rle.js").read_text("utf-8")
    (tmp_path / "rle.mjs").write_text(text)
    (tmp_path / "answer.mjs").write_text(
        """
import { readFileSync } from "node:fs";
import { decodeRle, encodeRle } from "./rle.mjs";
const answer = JSON.parse(readFileSync(0, "utf8")).map((mask) => {
  const [height, width] = mask.size, ids = new Uint16Array(height * width);
  decodeRle(mask, ids, 3);
  return { ids: Array.from(ids), again: encodeRle(ids, width, height, 3) };
});
process.stdout.write(JSON.stringify(answer));
"""
    )
    rng = np.random.default_rng(1)
    masks = [rng.random((h, w)) < share for h, w, share in ((7, 5, 0.5), (1, 9, 0.3), (120, 90, 0.01))]
    masks += [np.zeros((4, 6), bool), np.ones((300, 200), bool), np.arange(60).reshape(6, 10) > 30]
    rles = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    asked = [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]
    done = subprocess.run(
        [program, str(tmp_path / "answer.mjs")],
        input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    for mask, rle, got in zip(masks, asked, json.loads(done.stdout), strict=True):
        np.testing.assert_array_equal(np.reshape(got["ids"], mask.shape) == 3, mask)
        assert got["again"] == rle
