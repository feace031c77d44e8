"""Kinds that are called by concepts: made margins, a bundle and vectors on painted photos, and real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import open_bundle
from patchcut.heads.prototypes import Prototypes
from patchcut_export.levels.concepts import KnownConcepts, called
from safetensors.numpy import save_file
from tests.runtime import toy_bundle
from tests.runtime.concepts import semantic_toy as toy

RunCli = Callable[..., int]
NUMBERED = ("thing 1", "thing 2", "thing 3")


def known(*thresholds: float, background: bool = False) -> KnownConcepts:
    """Concepts along the axes of 4 dimensions; the background's vector is the last axis."""
    count = len(thresholds)
    vectors = np.eye(4, dtype=np.float32)[[*range(count), *([3] if background else [])]]
    owners = np.array([*range(1, count + 1), *([0] if background else [])], np.int32)
    values = np.array([0, *thresholds], np.float32)
    labels = ("background", "mug", "bowl", "leaf")[: count + 1]
    return KnownConcepts(labels, Prototypes(vectors, np.zeros(4, np.float32), owners, values))


def leaning(*cosines: float) -> np.ndarray:
    """[4] float32, unit: so much along the first axes, the rest along the third."""
    row = np.zeros(4, np.float32)
    row[: len(cosines)] = cosines
    row[2] += np.sqrt(1 - np.square(row).sum())
    return row


def test_a_kind_is_called_where_half_of_its_regions_exceed_the_threshold() -> None:
    rows = np.stack([leaning(cosine) for cosine in (0.9, 0.8, 0.1, 0.9, 0.1, 0.2)])
    kinds = np.int32([0, 0, 0, 1, 1, 1])
    assert known(0.5).call(rows, kinds, NUMBERED) == ["mug", "thing 2", "thing 3"]


def test_each_concept_has_its_own_threshold() -> None:
    rows, kinds = np.stack([leaning(0.7, 0.6)]), np.int32([0])
    assert known(0.5, 0.5).call(rows, kinds, NUMBERED[:1]) == ["mug"]
    assert known(0.65, 0.2).call(rows, kinds, NUMBERED[:1]) == ["bowl"]
    assert known(0.75, 0.7).call(rows, kinds, NUMBERED[:1]) == ["thing 1"]


def test_what_is_more_like_context_stays_a_number() -> None:
    rows, kinds = np.float32([[0.6, 0, 0, 0.8]]), np.int32([0])
    assert known(0.5).call(rows, kinds, NUMBERED[:1]) == ["mug"]
    assert known(0.5, background=True).call(rows, kinds, NUMBERED[:1]) == ["thing 1"]


def test_one_concept_names_several_kinds_the_most_alike_first() -> None:
    rows = np.stack([leaning(0.7), leaning(0.9), leaning(0.1)])
    assert known(0.5).call(rows, np.int32([0, 1, 2]), NUMBERED) == ["mug 2", "mug", "thing 3"]


def test_no_two_kinds_have_one_name() -> None:
    assert called(["thing 1", "cat"], {0: "cat"}) == ["cat 2", "cat"]
    assert called(["1", "2", "3"], {0: "cat", 1: "cat 2", 2: "cat"}) == ["cat", "cat 2", "cat 3"]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Five photos of each thing."""
    made = {}
    for n, name in enumerate(toy.COLORS):
        made[name] = tmp_path / "photos" / name
        made[name].mkdir(parents=True)
        for i in range(5):
            assert cv2.imwrite(str(made[name] / f"{i}.png"), toy.scene(name, seed=10 * n + i))
    return made


@pytest.fixture
def make(run_cli: RunCli, folders: dict[str, Path], tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Runs `export levels` on all photos; gives the labels, () where it wrote nothing."""
    backbone, out = toy.bundle(tmp_path / "toy.patchcut"), tmp_path / "levels.patchcut"

    def run(concepts: Path, *options: object) -> tuple[str, ...]:
        words = ("--images", tmp_path / "photos", "--backbone", backbone, "--work", tmp_path / "work")
        asked = ("--concepts", concepts, "--bundle", out, "--threads", 1, "--names", 3, *options)
        if run_cli("export", "levels", *words, *asked) != 0:
            return ()
        with open_bundle(out) as bundle:
            return next(head.labels for head in bundle.spec.heads if head.name == "levels")

    return run


@pytest.fixture
def of_two(tmp_path: Path) -> Path:
    """A bundle with the concepts mug and bowl, shown with boxes; nobody told of the leaf."""
    seg = patchcut.load(toy.bundle(tmp_path / "shown.patchcut"), head="concepts")
    for name in ("mug", "bowl"):
        seg.concepts.add(name, [toy.scene(name, seed=seed) for seed in range(3)], boxes=[toy.BOX] * 3)
    seg.concepts.save(tmp_path / "concepts.patchcut")
    return tmp_path / "concepts.patchcut"


def test_a_bundles_concepts_call_kinds(
    make: Callable[..., tuple[str, ...]], of_two: Path, capfd: Any
) -> None:
    labels = make(of_two)
    assert labels[0] == "background" and {"mug", "bowl"} <= set(labels) and len(labels) == 4
    assert sum(label.startswith("thing") for label in labels) == 1
    assert "2 of 3 kinds are called by concepts" in capfd.readouterr().err


def vectors(path: Path, backbone: Path, features: str = "semantic", **named: np.ndarray) -> Path:
    with open_bundle(backbone) as bundle:
        said = {"backbone_sha256": bundle.spec.backbone.source_sha256, "features": features}
    save_file(named, str(path), metadata=said)
    return path


def test_vectors_call_kinds(make: Callable[..., tuple[str, ...]], of_two: Path, tmp_path: Path) -> None:
    with open_bundle(of_two) as bundle:
        tensors = bundle.read_tensors("concepts.safetensors")
        head = bundle.spec.head("names")
    assert head is not None
    named = {
        name: tensors["prototypes"][tensors["owners"] == column].astype(np.float32)
        for column, name in enumerate(head.labels)
        if column
    }
    file = vectors(tmp_path / "v.safetensors", of_two, **named, mean=tensors["mean"].astype(np.float32))
    assert {"mug", "bowl"} <= set(make(file))


def test_concepts_that_do_not_fit_are_one_line(
    make: Callable[..., tuple[str, ...]], of_two: Path, tmp_path: Path, capfd: Any
) -> None:
    plain, short = toy.bundle(tmp_path / "plain.patchcut"), tmp_path / "short.safetensors"
    of_keys = vectors(tmp_path / "k.safetensors", plain, "key", mug=np.ones(toy_bundle.DIM, np.float32))
    vectors(short, plain, mug=np.ones(3, np.float32))
    for concepts, options, message in (
        (plain, (), "has no head concepts; make them with `patchcut export concept`"),
        (tmp_path / "nowhere.patchcut", (), "nowhere.patchcut"),
        (of_two, ("--features", "semantic,cls,key"), "has concepts of other features than key"),
        (of_keys, (), "has vectors of key, kinds are told apart by semantic"),
        (short, (), '"mug" is [3]'),
        (of_two, ("--labels", "a,b,c"), "[concepts] must be the only names, got --labels too"),
        (of_two, ("--examples", tmp_path), "[concepts] must be the only names, got --examples too"),
        (of_two, ("--dataset-only",), "[concepts] names kinds of regions, of which --dataset-only has none"),
    ):
        assert make(concepts, *options) == ()
        told = capfd.readouterr().err
        assert message in told and "Traceback" not in told
    assert not (tmp_path / "levels.patchcut").exists() and not (tmp_path / "work").exists()


def test_concepts_of_another_backbone_are_refused(of_two: Path) -> None:
    with open_bundle(None) as bundle, pytest.raises(Exception, match="has concepts of the backbone"):
        KnownConcepts.read(of_two, bundle, "semantic")


def test_real_kinds_are_called_by_real_concepts(run_cli: RunCli, shared_data: Path, tmp_path: Path) -> None:
    source, names = shared_data / "concepts", ("car", "pizza", "sunflower")
    if not source.is_dir():
        pytest.skip(f"no concepts in {shared_data}")
    photos = {
        name: sorted(one for one in (source / name).iterdir() if one.suffix == ".jpg") for name in names
    }
    for part, first in (("shown", 0), ("others", 1)):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            for photo in photos[name][first::2][:12]:
                (tmp_path / part / name / photo.name).write_bytes(photo.read_bytes())
    concepts, out = tmp_path / "concepts.patchcut", tmp_path / "levels.patchcut"
    given = [word for name in names[:2] for word in ("--archive", f"{name}={tmp_path / 'shown' / name}")]
    words = ("--bundle", concepts, "--work", tmp_path / "concepts", "--threads", 1)
    assert run_cli("export", "concept", *given, "--negatives", tmp_path / "shown/sunflower", *words) == 0
    words = ("--bundle", out, "--work", tmp_path / "work", "--threads", 1, "--names", 3)
    assert run_cli("export", "levels", "--images", tmp_path / "others", *words, "--concepts", concepts) == 0
    with open_bundle(out) as bundle:
        labels = next(head.labels for head in bundle.spec.heads if head.name == "levels")
    assert {"car", "pizza"} <= set(labels) and sum(label.startswith("thing") for label in labels) == 1
