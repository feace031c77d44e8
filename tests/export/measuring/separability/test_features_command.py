"""`patchcut export features` on photos with planted objects, and all that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.stages import Extractor
from patchcut_export.measuring.separability import measure
from patchcut_export.measuring.separability.report import MEASURES
from PIL import Image
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]
MEANING = {"nmi", "region_nmi"}
WITH_MASKS = {one.field for one in MEASURES} - MEANING


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patch embeddings: `key`, `token` and `cls`."""
    files = toy.members(tokens=True)
    path = tmp_path_factory.mktemp("toy") / "toy.patchcut"
    return toy.write(path, files, toy.manifest(files, tokens=True))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """images/ with a bright disc on noise, masks/ in which it is white, classes/ with one of two classes."""
    for name in ("images", "masks", "classes"):
        (tmp_path / name).mkdir()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 60, (112, 140, 3), np.uint8)
        mask = np.zeros((112, 140), np.uint8)
        cv2.circle(mask, (50 + 5 * seed, 56), 36, 255, -1)
        colour = np.array([[250, 40, 40], [40, 40, 250]][seed % 2])
        image[mask > 0] = np.clip(colour + rng.integers(-30, 6, (int((mask > 0).sum()), 3)), 0, 255)
        assert cv2.imwrite(str(tmp_path / f"images/{seed}.png"), image)
        assert cv2.imwrite(str(tmp_path / f"masks/{seed}.png"), mask)
        classes = Image.fromarray((mask // 255) * (3 + seed % 2), "P")
        classes.putpalette([0, 0, 0, 255, 255, 255] * 128)
        classes.save(tmp_path / f"classes/{seed}.png")
    return tmp_path


@pytest.fixture
def features(
    run_cli: Patchcut, bundle: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """features(...): the report of the command, with --json, on the six images with anything added."""

    def run(*options: object) -> Any:
        places = ["--images", data / "images", "--backbone", bundle, "--work", data / "work", "--json"]
        capfd.readouterr()
        assert run_cli("export", "features", *places, "--size", 112, *options) == 0
        return json.loads(capfd.readouterr().out)

    return run


def test_planted_objects_come_apart(features: Callable[..., Any], data: Path) -> None:
    report = features("--masks", data / "masks", "-k", 4)
    assert (report["images"], report["masks"], report["classes"], report["k"]) == (6, True, False, 4)
    assert report["data"].endswith("/images")
    assert [row["set"] for row in report["rows"]] == ["key", "token"], "cls has no patches"
    assert [row["dim"] for row in report["rows"]] == [toy.DIM, 2 * toy.DIM]
    assert set(report["measures"]) == WITH_MASKS
    for row in report["rows"]:
        assert row["clusters_auc"] > 0.9 and row["probe_auc"] > 0.9
        assert 0.5 < row["best_cluster_auc"] <= row["clusters_auc"]
        assert row["silhouette"] > 0.2 and row["variance_ratio"] > 0.5
        assert row["nmi"] is None and row["region_nmi"] is None
        assert (row["bundle"], row["size"]) == ("toy", 112)


def test_masks_of_something_else_are_as_chance_has_it(features: Callable[..., Any], data: Path) -> None:
    for path in (data / "masks").iterdir():
        mask = np.random.default_rng(int(path.stem)).integers(0, 2, (8, 8), np.uint8) * 255
        assert cv2.imwrite(str(path), cv2.resize(mask, (140, 112), interpolation=cv2.INTER_NEAREST))
    for row in features("--masks", data / "masks", "-k", 2)["rows"]:
        assert 0.5 <= row["clusters_auc"] < 0.62
        assert 0.38 < row["probe_auc"] < 0.62


def test_classes_are_told_by_the_clusters_of_what_is_foreground(
    features: Callable[..., Any], data: Path
) -> None:
    report = features("--masks", data / "classes", "--sets", "key")
    assert report["classes"]
    assert set(report["measures"]) == WITH_MASKS | MEANING
    (row,) = report["rows"]
    assert row["nmi"] > 0.8 and row["region_nmi"] == 1, "the two classes have colours of their own"
    as_white = features("--masks", data / "masks", "--sets", "key")
    for name in WITH_MASKS:
        assert row[name] == as_white["rows"][0][name], "foreground is the same"
    for path in (data / "classes").iterdir():
        with Image.open(path) as picture:
            values, palette = np.asarray(picture), picture.getpalette()
        mixed = Image.fromarray(np.where(values > 0, 3 + np.arange(140) // 14 % 2, 0).astype(np.uint8), "P")
        mixed.putpalette(palette)
        mixed.save(path)
    mixed_row = features("--masks", data / "classes", "--sets", "key")["rows"][0]
    assert mixed_row["nmi"] < 0.2 and mixed_row["region_nmi"] < 0.2


def test_without_masks_there_are_clusters(features: Callable[..., Any], data: Path) -> None:
    (data / "images" / "more").mkdir()
    (data / "images/0.png").rename(data / "images/more/0.png")
    report = features("-k", 3)
    assert report["images"] == 6
    assert set(report["measures"]) == {"silhouette", "variance_ratio"}
    assert all(row["clusters_auc"] is None and row["silhouette"] > 0.2 for row in report["rows"])


def test_the_same_seed_gives_the_same_numbers_and_nothing_is_run_again(
    features: Callable[..., Any], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--masks", data / "masks", "--seed", 3]
    first = features(*options)

    def never(self: Extractor, frames: object) -> None:
        raise AssertionError("the features are there")

    monkeypatch.setattr(Extractor, "__call__", never)
    assert features(*options) == first
    monkeypatch.setattr(measure, "_BATCH", 1)
    assert features(*options) == first, "numbers do not depend on how many images are in memory"
    monkeypatch.setattr(measure, "_CLUSTERED", 60)
    monkeypatch.setattr(measure, "_COMPARED", 50)
    fewer = features(*options)
    assert fewer["rows"] != first["rows"]
    assert all(row["probe_auc"] > 0.8 for row in fewer["rows"]), "a sample is enough"


def test_other_sets_and_other_images_have_caches_of_their_own(
    features: Callable[..., Any], data: Path
) -> None:
    both = features("--masks", data / "masks")
    alone = features("--masks", data / "masks", "--sets", "token")
    assert alone["rows"] == both["rows"][1:]
    (data / "masks/5.png").unlink()
    assert features("--masks", data / "masks")["images"] == 5
    assert features()["images"] == 6


def test_several_bundles_are_side_by_side(
    features: Callable[..., Any], bundle: Path, data: Path, tmp_path: Path
) -> None:
    plain = toy.members()
    other = toy.write(tmp_path / "other.patchcut", plain, {**toy.manifest(plain), "name": "other"})
    report = features("--backbone", f"{bundle},{other}", "--masks", data / "masks")
    assert [(row["bundle"], row["set"]) for row in report["rows"]] == [
        ("toy", "key"),
        ("toy", "token"),
        ("other", "key"),
    ]
    assert report["rows"][2] == {**report["rows"][0], "bundle": "other"}
    tokens = features("--backbone", f"{bundle},{other}", "--sets", "token")
    assert [(row["bundle"], row["set"]) for row in tokens["rows"]] == [("toy", "token")]
    assert "toy: key" not in (data / "work/features.svg").read_text(), "one bundle is not named in each row"


def test_people_get_a_table_a_file_and_two_pictures(
    run_cli: Patchcut, bundle: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = ["--images", data / "images", "--masks", data / "classes", "--backbone", bundle]
    out = data / "out"
    command = ["export", "features", *places, "--work", data / "work", "--out", out, "--size", 112, "-k", 4]
    assert run_cli(*command) == 0
    shown = capfd.readouterr()
    for said in (
        "key",
        "token",
        "clusters",
        "probe",
        "classes",
        "b/w",
        "6 images of",
        "wrote features.json",
    ):
        assert said in shown.out
    table = shown.out.partition("6 images of")[0]
    assert max(map(len, table.splitlines())) <= 80
    report = json.loads((out / "features.json").read_text())
    assert f"{report['rows'][0]['clusters_auc']:.3f}" in shown.out
    assert sorted(path.name for path in out.iterdir()) == ["features.json", "features.png", "features.svg"]
    svg = ElementTree.parse(out / "features.svg").getroot()
    words = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"key", "token", f"{report['rows'][1]['nmi']:.3f}"} <= set(words)
    picture = cv2.imread(str(out / "features.png"))
    assert picture.shape[:2] == (2 * int(svg.get("height")), 2 * int(svg.get("width")))
    assert (picture == (178, 114, 0)).all(2).sum() > 1000, "the best bars are there"


def test_unreadable_images_are_left_out(features: Callable[..., Any], data: Path) -> None:
    (data / "images/broken.png").write_bytes(b"no picture")
    assert features()["images"] == 6


def bad_sets(data: Path) -> list[object]:
    return ["--sets", "key,nose"]


def one_image(data: Path) -> list[object]:
    for path in (data / "images").glob("[1-5].png"):
        path.unlink()
    return []


def no_images(data: Path) -> list[object]:
    for path in (data / "images").iterdir():
        path.unlink()
    return []


def foreign_masks(data: Path) -> list[object]:
    for path in list((data / "masks").iterdir()):
        path.rename(path.with_name(f"mask-{path.name}"))
    return ["--masks", data / "masks"]


REFUSED: dict[str, tuple[Callable[[Path], list[object]] | list[object], str]] = {
    "no images": (no_images, "holds no photos"),
    "one image": (one_image, "has 1 image that can be used, at least 2 are needed; name a larger folder"),
    "no folder": (["--images", "nowhere"], "nowhere"),
    "masks of other images": (foreign_masks, "has no image for 6 of 6 images: mask-0, mask-1, mask-2 and 3"),
    "no folder of masks": (["--masks", "nowhere"], "nowhere is not a folder"),
    "classes without masks": (["--classes"], "[classes] must come with --masks"),
    "a set that there is not": (bad_sets, "has no set 'nose'"),
    "a set of the image": (["--sets", "cls"], "has one row an image; choose among key, token"),
    "an empty name": (["--sets", "key,,token"], "[sets] must be a list with commas"),
    "one cluster": (["-k", 1], "[k] must be a whole number from 2 to 256, got 1"),
    "more clusters than can be": (["-k", 257], "[k] must be a whole number from 2 to 256, got 257"),
    "no bundle": (["--backbone", "nowhere.patchcut"], "nowhere.patchcut"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_compared_is_one_line(
    run_cli: Patchcut,
    bundle: Path,
    data: Path,
    capfd: pytest.CaptureFixture[str],
    options: Callable[[Path], list[object]] | list[object],
    said: str,
) -> None:
    more = options(data) if callable(options) else options
    places = ["--images", data / "images", "--backbone", bundle, "--work", data / "work"]
    assert run_cli("export", "features", *places, "--size", 112, *more) in (1, 2)
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("features of toy (")]
    assert len(lines) == 1 and said in lines[0]


def test_more_clusters_than_patches_is_one_line(
    run_cli: Patchcut, bundle: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "images").glob("[2-5].png"):
        path.unlink()
    places = ["--images", data / "images", "--backbone", bundle, "--work", data / "work"]
    assert run_cli("export", "features", *places, "--size", 112, "-k", 129) == 2
    assert "[k] must be at most the 128 patches there are, got 129" in capfd.readouterr().err


def test_a_bundle_without_features_of_patches_is_one_line(
    run_cli: Patchcut, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = toy.members(tokens=True)
    spec = toy.manifest(files, tokens=True)
    spec["backbones"]["toy"]["features"] = {"cls": spec["backbones"]["toy"]["features"]["cls"]}
    spec["heads"] = []
    del spec["files"]["head.safetensors"], files["head.safetensors"]
    only = toy.write(data / "only.patchcut", files, spec)
    assert run_cli("export", "features", "--images", data / "images", "--backbone", only) == 1
    assert "has no features of patches, only cls; export its backbone with key" in capfd.readouterr().err


def test_features_that_are_not_finite_are_one_line(
    features: Callable[..., Any],
    run_cli: Patchcut,
    bundle: Path,
    data: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    features("--sets", "key")
    (cache,) = (path for path in (data / "work").iterdir() if path.is_dir())
    table = np.load(cache / "features.npy", mmap_mode="r+")
    table[2, 5, 1] = np.inf
    table.flush()
    places = ["--images", data / "images", "--backbone", bundle, "--work", data / "work"]
    assert run_cli("export", "features", *places, "--size", 112, "--sets", "key") == 1
    assert "key holds numbers that are not finite; export the backbone" in capfd.readouterr().err
