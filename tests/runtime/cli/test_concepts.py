"""Concepts on the command line: some of them, what a bundle has, and names in what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import patchcut
import pytest

from tests.runtime.concepts import semantic_toy as toy
from tests.runtime.concepts.semantic_toy import BOX, scene

Patchcut = Callable[..., int]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows mugs and bowls."""
    path = toy.bundle(tmp_path_factory.mktemp("bundle") / "mine.patchcut")
    seg = patchcut.load(path, head="concepts")
    for name in ("mug", "bowl"):
        seg.concepts.add(name, [scene(name, seed=i) for i in range(2)], boxes=[BOX, BOX])
    seg.concepts.save(path)
    return path


@pytest.fixture
def photo_of_both(tmp_path: Path) -> Path:
    path = tmp_path / "both.png"
    assert cv2.imwrite(str(path), scene("bowl", "mug", seed=7))
    return path


def test_names_are_in_all_that_is_written(
    run_cli: Patchcut, mine: Path, photo_of_both: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [
        "--bundle",
        mine,
        "--head",
        "concepts",
        "-o",
        out,
        "--save",
        "coco,json,jsonl,npz,overlay,labels",
    ]
    assert run_cli("run", photo_of_both, *words) == 0
    told = json.loads((out / "json/both.json").read_text())
    assert told["labels"] == ["background", "mug", "bowl"]
    assert {"mug", "bowl"} <= {region["label"] for region in told["regions"]}
    line = json.loads((out / "results.jsonl").read_text())
    assert [region["label"] for region in line["regions"]] == [one["label"] for one in told["regions"]]
    coco = json.loads((out / "coco.json").read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert set(names.values()) == {"mug", "bowl"}
    assert [names[one["category_id"]] for one in coco["annotations"]] == [
        one["label"] for one in told["regions"]
    ]


def test_some_of_them(run_cli: Patchcut, mine: Path, photo_of_both: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--bundle", mine, "--concepts", "bowl", "-o", out, "--save", "json"]
    assert run_cli("run", photo_of_both, *words) == 0
    told = json.loads((out / "json/both.json").read_text())
    assert told["labels"] == ["background", "bowl"] and {one["label"] for one in told["regions"]} == {"bowl"}


def test_a_name_that_is_not_there_is_one_line(
    run_cli: Patchcut, mine: Path, photo_of_both: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("run", photo_of_both, "--bundle", mine, "--concepts", "bowl,cup") == 2
    (said,) = capfd.readouterr().err.strip().splitlines()
    assert said == 'patchcut: [concepts] the bundle has no "cup", it has mug, bowl'


def test_a_bundle_without_concepts_says_how_to_make_some(
    run_cli: Patchcut, tmp_path: Path, photo_of_both: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = toy.bundle(tmp_path / "toy.patchcut")
    assert run_cli("run", photo_of_both, "--bundle", path, "--head", "concepts", "-o", tmp_path / "out") == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "holds no concepts; make some with" in said


def test_info_shows_them(run_cli: Patchcut, mine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("info", mine) == 0
    assert "concepts    mug, bowl" in capfd.readouterr().out
    assert run_cli("info", mine, "-v") == 0
    said = capfd.readouterr().out
    assert "concept     mug: shown on 2 images" in said and "looks at" in said
    assert run_cli("info", mine, "--json") == 0
    heads = {head["name"]: head for head in json.loads(capfd.readouterr().out)["heads"]}
    assert heads["concepts"]["labels"] == ["background", "mug", "bowl"]
    assert heads["gnn"]["concepts"] is None
