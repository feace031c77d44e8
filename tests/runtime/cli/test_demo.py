from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from patchcut import Settings
from patchcut.cli.demo import SAMPLES, demo

NAMES = ["astronaut", "chelsea", "coffee", "rocket"]


def test_demo_may_be_run_twice(toy_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert demo(tmp_path / "out", Settings(bundle=toy_bundle)) == 0
    said = capfd.readouterr().out
    for name in NAMES:
        assert f"{name}.jpg" in said
        overlay = cv2.imread(str(tmp_path / f"out/overlay/{name}.jpg"))
        assert overlay.shape == cv2.imread(str(SAMPLES / f"{name}.jpg")).shape
    assert f"written: overlay, masks in {tmp_path / 'out'}" in said
    assert list((tmp_path / "out/masks").rglob("01.png"))
    overview = cv2.imread(str(tmp_path / "out/overview.jpg"))
    photos = [cv2.imread(str(SAMPLES / f"{name}.jpg")) for name in NAMES]
    assert overview.shape[:2] == (640, sum(round(320 * p.shape[1] / p.shape[0]) for p in photos))


def test_every_sample_is_small_and_says_where_it_is_from() -> None:
    photos = sorted(SAMPLES.glob("*.jpg"))
    assert [photo.stem for photo in photos] == NAMES
    sources = (SAMPLES / "SOURCES.md").read_text()
    for photo in photos:
        assert f"`{photo.name}`" in sources
        assert max(cv2.imread(str(photo)).shape) <= 640
        assert photo.stat().st_size < 100_000
