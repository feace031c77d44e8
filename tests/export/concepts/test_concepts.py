"""`patchcut export concept` and `concepts` on painted photos, with the toy backbone."""

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
from patchcut_export.concepts.archives import Archive, Space
from patchcut_export.concepts.reading import Archives
from patchcut_export.concepts.recipe import ConceptsPlan, check_common, learn_concepts
from patchcut_export.errors import ExportError
from safetensors.numpy import save_file
from tests.runtime.concepts import semantic_toy as toy


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    """Four photos each of a mug, a bowl and a leaf."""
    folders = {}
    for n, name in enumerate(toy.COLORS):
        folders[name] = tmp_path / "archives" / name
        folders[name].mkdir(parents=True)
        for i in range(4):
            assert cv2.imwrite(str(folders[name] / f"{i}.png"), toy.scene(name, seed=10 * n + i))
    return folders


@pytest.fixture
def make(run_cli: Callable[..., int], tmp_path: Path) -> Callable[..., Path | int]:
    """Runs the command with archives; gives the bundle, or the exit status where there is none."""

    def run(folders: dict[str, Path], *options: object) -> Path | int:
        backbone = tmp_path / "toy.patchcut"
        if not backbone.exists():
            toy.bundle(backbone)
        given = [word for name, folder in folders.items() for word in ("--archive", f"{name}={folder}")]
        out = tmp_path / "made.patchcut"
        status = run_cli(
            *("export", "concept", *given, "--bundle", out, "--backbone", backbone),
            *("--work", tmp_path / "work", "--threads", 1, *options),
        )
        return out if status == 0 else status

    return run


def prototypes(path: Path | int) -> Any:
    assert isinstance(path, Path)
    with open_bundle(path) as bundle:
        spec = bundle.spec.head("names")
        assert spec is not None
        return read_prototypes(bundle, spec)


def test_things_in_folders_are_named_on_other_photos(
    make: Callable[..., Path], archives: dict[str, Path], tmp_path: Path, capfd: Any
) -> None:
    path = make({name: archives[name] for name in ("mug", "bowl")}, "--negatives", archives["leaf"])
    assert "own photographs keep theirs" in capfd.readouterr().err
    seg = patchcut.load(path, head="concepts")
    assert seg.concepts.names == ("mug", "bowl")
    for name in ("mug", "bowl"):
        assert seg(toy.scene(name, seed=99)).label_names == (name,)
    for name in ("mug", "bowl"):
        assert cv2.imread(str(tmp_path / "work" / "concepts" / f"{name}.png")) is not None
    with open_bundle(path) as bundle:
        spec = bundle.spec.head("names")
    assert spec is not None and spec.concepts is not None and "2206.07045" in spec.method
    assert spec.concepts.origins["mug"] == "co-segmented from 4 photographs of a folder"
    presence = prototypes(path).presence
    assert presence.shape == (3,) and presence[0] == -1 and (presence[1:] > 0).all()


def test_the_same_folders_are_the_same_concepts(make: Callable[..., Path], archives: dict[str, Path]) -> None:
    first, again = prototypes(make(archives)), prototypes(make(archives))
    for name, tensor in first.tensors().items():
        np.testing.assert_array_equal(tensor, again.tensors()[name])
    one = prototypes(make(archives, "--prototypes", 2))
    assert len(one.vectors) > len(first.vectors) and set(one.owners) == {1, 2, 3}


def test_photos_are_crossed_out_by_their_names(
    make: Callable[..., Path], archives: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = archives["mug"] / "stray.png"
    assert cv2.imwrite(str(stray), toy.scene("leaf", seed=5))
    with_it = prototypes(make(archives))
    from patchcut.stages import Extractor
    from patchcut_export.concepts import late_extractor

    def look(*_: object) -> None:
        raise AssertionError("photographs are looked at again")

    monkeypatch.setattr(Extractor, "__call__", look)
    monkeypatch.setattr(late_extractor, "open_engine", look)
    without = prototypes(make(archives, "--without", "stray.png"))
    assert not np.allclose(with_it.vectors[0], without.vectors[0])


def test_the_published_recipe_is_the_mean_of_the_seeds(
    make: Callable[..., Path], archives: dict[str, Path]
) -> None:
    made = prototypes(make(archives, "--recipe", "published"))
    assert made.vectors.shape[0] == 3 and not made.mean.any()
    assert made.thresholds is None and made.presence is None
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--archive", "mug"), "[archive] must be NAME=DIR"),
        (("--archive", "a/b=photos"), "[name] must be a name and no path"),
        (("--archive", "=photos"), "[name]"),
        (("--archive", "mug=elsewhere"), '[archive] gives "mug" twice'),
        (("cup",), '[archive] has no folder for "cup"'),
        (("mug", "mug"), '[name] must differ from concept to concept, got "mug" twice'),
        (("--features", "cls"), "[features] must be of patches"),
        (("--recipe", "magic"), "[recipe] must be one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    make: Callable[..., Any], archives: dict[str, Path], tmp_path: Path, capfd: Any, options: Any, said: str
) -> None:
    assert make({"mug": archives["mug"]}, *options) != 0
    told = capfd.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "made.patchcut").exists()


def test_folders_that_are_no_archive_are_refused(
    make: Callable[..., Any], archives: dict[str, Path], tmp_path: Path, capfd: Any
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    assert cv2.imwrite(str(alone / "0.png"), toy.scene("mug"))
    (alone / "1.png").write_bytes(b"no picture")
    assert make({"mug": alone}) != 0
    told = capfd.readouterr().err
    assert "skipped" in told and 'the folder of "mug"' in told and "1 images that can be used" in told
    assert make({"mug": tmp_path / "nowhere"}) != 0
    assert not (tmp_path / "made.patchcut").exists()


def test_a_bundle_of_folders_says_how_its_features_are_compared(
    make: Callable[..., Path], archives: dict[str, Path], tmp_path: Path
) -> None:
    path = make({name: archives[name] for name in ("mug", "bowl")})
    fold = prototypes(path).fold
    assert fold is not None and fold.shape == (16, 16)
    seg = patchcut.load(path, head="concepts")
    seg.concepts.add("leaf", [toy.scene("leaf", seed=i) for i in (70, 71, 72)])
    seg.concepts.save(tmp_path / "saved.patchcut")
    made = prototypes(tmp_path / "saved.patchcut")
    np.testing.assert_array_equal(made.fold, fold)
    offline = made.thresholds[1:3]
    assert offline.min() <= made.thresholds[3] <= offline.max()


@pytest.mark.parametrize("alone", [True, False])
def test_a_folder_with_nothing_in_common_is_refused(alone: bool) -> None:
    things = [of_one_thing(seed) for seed in (1, 2)][: 1 if alone else 2]
    samples = [of_anything(9)]
    plan = ConceptsPlan()
    check_common(things, learn_concepts(Archives(things, samples=samples), plan), plan)
    mixed = [of_anything(0), *things[1:]]
    with pytest.raises(ExportError, match=r'photographs of "anything".* have nothing in common'):
        check_common(mixed, learn_concepts(Archives(mixed, samples=samples), plan), plan)


def of_anything(seed: int, thing: Any = None) -> Archive:
    """Sixteen images of 8 x 8 patches: in the middle a thing, on each another one if none is told."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((16, 64, 24))
    sides = np.zeros((16, 8, 8), np.float32)
    sides[:, 2:6, 2:6] = 1
    things = rng.standard_normal((16, 1, 24)) if thing is None else thing
    rows += 3 * things * sides.reshape(16, 64, 1)
    names = tuple(f"{i}.jpg" for i in range(16))
    rows16, sides = rows.astype(np.float16), sides.reshape(16, 64)
    return Archive("anything" if thing is None else "thing", Path("folder"), names, rows16, sides, (8, 8))


def of_one_thing(seed: int) -> Archive:
    return of_anything(seed, np.random.default_rng(100 + seed).standard_normal(24))


def save_vectors(path: Path, **metadata: str) -> Path:
    rows = np.eye(2, 16, dtype=np.float32)
    save_file({"mug": rows[0], "bowl": rows}, str(path), metadata=metadata)
    return path


def test_vectors_of_another_model_become_concepts(run_cli: Callable[..., int], tmp_path: Path) -> None:
    backbone, out = toy.bundle(tmp_path / "toy.patchcut"), tmp_path / "made.patchcut"
    with open_bundle(backbone) as bundle:
        sha256 = bundle.spec.backbone.source_sha256
    file = save_vectors(tmp_path / "v.safetensors", backbone_sha256=sha256, features="semantic")
    words = ("export", "concepts", "--vectors", file, "--backbone", backbone, "--bundle", out)
    assert run_cli(*words) == 0
    made = prototypes(out)
    assert sorted(made.owners.tolist()) in ([1, 1, 2], [1, 2, 2]) and len(made.thresholds) == 3
    assert set(patchcut.load(out, head="concepts").concepts.names) == {"mug", "bowl"}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "is of the backbone that it does not name"),
        ({"backbone_sha256": "1" * 64, "features": "semantic"}, "its metadata must say backbone_sha256="),
        ({"backbone_sha256": "", "features": "nothing"}, "[features] must be of patches"),
        ({"backbone_sha256": ""}, "does not say of which features it is"),
    ],
)
def test_vectors_of_other_features_are_refused(
    run_cli: Callable[..., int], tmp_path: Path, capfd: Any, metadata: dict[str, str], said: str
) -> None:
    backbone, out = toy.bundle(tmp_path / "toy.patchcut"), tmp_path / "made.patchcut"
    with open_bundle(backbone) as bundle:
        sha256 = bundle.spec.backbone.source_sha256
    if metadata.get("backbone_sha256") == "":
        metadata = {**metadata, "backbone_sha256": sha256}
    file = save_vectors(tmp_path / "v.safetensors", **metadata)
    assert run_cli("export", "concepts", "--vectors", file, "--backbone", backbone, "--bundle", out) != 0
    assert said in capfd.readouterr().err and not out.exists()


def test_vectors_of_another_length_are_refused(
    run_cli: Callable[..., int], tmp_path: Path, capfd: Any
) -> None:
    backbone, out = toy.bundle(tmp_path / "toy.patchcut"), tmp_path / "made.patchcut"
    with open_bundle(backbone) as bundle:
        metadata = {"backbone_sha256": bundle.spec.backbone.source_sha256, "features": "semantic"}
    file = tmp_path / "v.safetensors"
    save_file({"mug": np.ones(3, np.float32)}, str(file), metadata=metadata)
    words = ("export", "concepts", "--vectors", file, "--backbone", backbone, "--bundle", out)
    assert run_cli(*words) != 0 and '"mug" is [3]' in capfd.readouterr().err
    file.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00" + json.dumps([]).encode())
    assert run_cli(*words) != 0 and "is damaged" in capfd.readouterr().err


def test_folding_ranks_as_whitening_does() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    whitening = (root @ root.T).astype(np.float32)
    space = Space(np.zeros(6, np.float32), np.zeros((1, 6, 6)), whitening)
    means, rows = (rng.standard_normal((n, 6)).astype(np.float32) for n in (1, 50))
    plain, folded = (rows @ whitening) @ (means @ whitening).T, rows @ space.folded(means).T
    np.testing.assert_allclose(plain / plain.std(), folded / folded.std(), rtol=1e-3, atol=1e-4)
