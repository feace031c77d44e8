"""`patchcut export levels` on painted photos, with the toy backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import open_bundle
from patchcut.heads.levels import LevelsHead
from tests.runtime import toy_bundle as toy

RunCli = Callable[..., int]


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    files = toy.members(tokens=True)
    return toy.write(tmp_path / "toy.patchcut", files, toy.manifest(files, tokens=True))


@pytest.fixture
def make(run_cli: RunCli, backbone: Path, photos: Path, tmp_path: Path) -> Callable[..., Path | int]:
    """Runs the command; gives the bundle, or the exit status where there is none."""

    def run(*options: object, images: Path = photos, work: str = "work") -> Path | int:
        out = tmp_path / "levels.patchcut"
        status = run_cli(
            *("export", "levels", "--images", images, "--bundle", out, "--backbone", backbone),
            *("--work", tmp_path / work, "--threads", 1, *options),
        )
        return out if status == 0 else status

    return run


def tensors(path: Path | int, file: str = "levels.safetensors") -> dict[str, np.ndarray]:
    assert isinstance(path, Path)
    with open_bundle(path) as bundle:
        return bundle.read_tensors(file)


def test_blobs_are_found_and_named(
    make: Callable[..., Path], photos: Path, paint: Callable[..., Any], tmp_path: Path, capfd: Any
) -> None:
    path = make("--names", 2, "--labels", "ball,stone")
    told = capfd.readouterr().err
    assert "cluster 0, " in told and "drew " in told and "6 images" in told
    for sheet in ("clusters.jpg", "names.jpg"):
        assert cv2.imread(str(tmp_path / "work" / sheet)) is not None
    seg = patchcut.load(path, head="levels")
    assert seg.head.labels == ("background", "ball", "stone")
    for seed in range(6):
        image, mask = paint(seed)
        result = seg(image)
        true = mask > 0
        assert (result.foreground & true).sum() / (result.foreground | true).sum() > 0.5
    with open_bundle(path) as bundle:
        head = bundle.spec.head("names")
    assert head is not None and "2311.18628" in head.method and "6 images without labels" in head.trained_on


def test_one_seed_is_one_bundle(make: Callable[..., Path]) -> None:
    first = tensors(make(work="one"))
    again = tensors(make(work="other"))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, again[name])


@pytest.mark.parametrize(
    "where", ["recipe._Recipe.dataset_level", "recipe._Recipe.category_level", "naming.Naming.run"]
)
def test_a_run_that_was_stopped_goes_on(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    whole = tensors(make(work="whole"))
    (tmp_path / "levels.patchcut").unlink()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"patchcut_export.levels.{where}", stop)
        assert make() == 130
    assert not (tmp_path / "levels.patchcut").exists()
    for name, tensor in tensors(make()).items():
        np.testing.assert_array_equal(tensor, whole[name])


def test_a_cluster_of_machines_makes_the_same_bundle(ray: Any, make: Callable[..., Path]) -> None:
    alone = tensors(make(work="alone"))
    for name, tensor in tensors(make("--engine", "ray", work="cluster")).items():
        np.testing.assert_allclose(tensor, alone[name], atol=1e-4)


def test_a_cluster_that_is_not_there_is_one_line(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    ray = pytest.importorskip("ray", reason="needs patchcut[scale]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # as another test may have left it
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert make("--engine", "ray") == 1
    told = capfd.readouterr().err
    assert "[engine] no Ray cluster at 127.0.0.1:1" in told and "start one with `ray start --head`" in told
    assert "Traceback" not in told and not (tmp_path / "work").exists()


def test_what_is_foreground_can_be_overruled(make: Callable[..., Path]) -> None:
    decided = tensors(make())["foreground"]
    other = ",".join(str(k) for k in np.flatnonzero(decided < 0.5))
    np.testing.assert_array_equal(tensors(make("--foreground", other))["foreground"], 1 - decided)


def test_single_levels_vote_alone(make: Callable[..., Path], paint: Callable[..., Any]) -> None:
    seg = patchcut.load(make("--levels", "dataset,image"), head="levels")
    assert isinstance(seg.head, LevelsHead) and seg.head.levels == ("dataset", "image")
    votes = seg(paint(0)[0]).votes
    assert votes is not None and len(votes) == 2


@pytest.mark.parametrize("refiner", ["guided", "bilateral"])
def test_regions_may_be_refined_before_they_are_named(make: Callable[..., Path], refiner: str) -> None:
    assert tensors(make("--refine-regions", refiner, "--names", 2))["names"].shape == (2, 8)


@pytest.mark.parametrize("refiner", ["none", "guided"])
def test_kinds_are_called_as_the_examples_that_are_nearest(
    make: Callable[..., Path], photos: Path, tmp_path: Path, refiner: str
) -> None:
    examples = tmp_path / "examples"
    for name in ("ball", "stone"):
        (examples / name).mkdir(parents=True)
    for i, path in enumerate(sorted(photos.rglob("*.png"))[:4]):
        (examples / ("ball", "stone")[i // 2] / path.name).write_bytes(path.read_bytes())
    with open_bundle(make("--names", 2, "--examples", examples, "--refine-regions", refiner)) as bundle:
        head = bundle.spec.head("names")
    assert head is not None
    kinds = {one.split()[0] for one in head.labels[1:]}
    assert head.labels[0] == "background" and kinds & {"ball", "stone"}
    assert refiner == "guided" or kinds <= {"ball", "stone"}


def test_the_dataset_level_alone_is_a_cluster_for_each_patch(
    make: Callable[..., Path], paint: Callable[..., Any]
) -> None:
    path = make("--dataset-only", "-k", 4, "--features", "token")
    seg = patchcut.load(path, head="clusters")
    assert seg.head.labels == ("cluster 1", "cluster 2", "cluster 3", "cluster 4")
    assert len(np.unique(seg(paint(0)[0]).label_map)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-k", 1), "[clusters] must be a whole number from 2"),
        (("-k", 400), "[clusters] must be a whole number from 2 to 256"),
        (("--categories", 7), "[categories] must be at most the 6 images, got 7"),
        (("--names", 200), "[names] must be at most the 6 regions"),
        (("--names", 2, "--labels", "a,b,c"), "[labels] must be 2, as --names says, got 3"),
        (("--labels", "a,a"), "[labels] must differ"),
        (("--foreground", "0,1"), "[foreground] must name some of the clusters 0 to 1, and not all"),
        (("--foreground", "x"), "[foreground] must be whole numbers with commas"),
        (("--features", "key"), "[features] must be a set of patches, one of the class token"),
        (("--features", "key,token,key"), "[features] must be of the class token: cls, got token"),
        (("--levels", "world"), "[levels] must be one of"),
        (("--examples", "nowhere"), "[examples] nowhere has no folder for each name"),
        (("--engine", "spark"), "[engine] must be one of"),
    ],
)
def test_wrong_wishes_are_one_line(
    make: Callable[..., Any], options: tuple[object, ...], message: str, capfd: Any, tmp_path: Path
) -> None:
    assert make(*options) in (1, 2)
    told = capfd.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (tmp_path / "levels.patchcut").exists()


def test_a_backbone_without_a_class_token_is_refused(
    run_cli: RunCli, toy_bundle_of_keys: Path, photos: Path, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "x.patchcut"
    places = ("--images", photos, "--bundle", out, "--backbone", toy_bundle_of_keys, "--work", tmp_path / "w")
    assert run_cli("export", "levels", *places) == 1
    told = capfd.readouterr().err
    assert "has no class token" in told and "--features key,semantic=token@8,cls" in told
    assert not (tmp_path / "w").exists()


@pytest.fixture
def toy_bundle_of_keys(tmp_path: Path) -> Path:
    return toy.write(tmp_path / "keys.patchcut")


def test_folders_without_enough_to_cluster_are_refused(
    make: Callable[..., Any], tmp_path: Path, photos: Path, capfd: Any
) -> None:
    empty, one, alike = (tmp_path / name for name in ("empty", "one", "alike"))
    for folder in (empty, one, alike):
        folder.mkdir()
    picture = next(photos.rglob("*.png")).read_bytes()
    (one / "x.png").write_bytes(picture)
    for i in range(3):
        assert cv2.imwrite(str(alike / f"{i}.png"), np.full((40, 40, 3), 90, np.uint8))
    for folder, message in (
        (empty, "no photos"),
        (one, "has one image that can be read"),
        (alike, "all patches are alike"),
    ):
        assert make(images=folder, work=f"work-{folder.name}") == 1
        assert message in capfd.readouterr().err


def test_another_backbones_work_is_refused(
    make: Callable[..., Any], backbone: Path, tmp_path: Path, capfd: Any
) -> None:
    make()
    assert make("--size", 168) == 1
    assert "or another backbone" in capfd.readouterr().err


def test_a_full_disk_leaves_no_bundle(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("patchcut_export.training.feature_cache._flush", full)
    assert make() == 1
    assert "No space left" in capfd.readouterr().err
    assert not (tmp_path / "levels.patchcut").exists()


def test_other_numbers_go_on_from_the_same_features(make: Callable[..., Path]) -> None:
    for categories, clusters in ((2, 2), (3, 2), (3, 3), (2, 2)):
        made = tensors(make("--categories", categories, "-k", clusters))
        assert made["category"].shape == (categories, clusters, 8)


def test_categories_of_one_image_are_taken(make: Callable[..., Path]) -> None:
    assert tensors(make("--categories", 6))["category"].shape == (6, 2, 8)
