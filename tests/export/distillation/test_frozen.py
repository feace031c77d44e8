"""Students that keep their teacher's backbone, and learn a decoder for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")

from patchcut import Frame
from patchcut.bundle import open_bundle
from patchcut.errors import OptionError
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.vit import build_extractor
from patchcut_export.distillation.frozen import FrozenStudent, frozen_student
from patchcut_export.distillation.student import MASK, StudentSpec
from safetensors.torch import save_file
from tests.export.conftest import TINY, add_head
from torch.nn import functional

SETS = {"key": FeatureSpec((Component("key", 1),)), "cls": FeatureSpec((Component("cls", 2),))}


def image(size: int) -> torch.Tensor:
    smooth = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(smooth, size=(size, size), mode="bicubic")


def test_its_features_are_those_of_the_backbone_at_every_size(random_state: Callable[..., Any]) -> None:
    student = FrozenStudent(TINY, 96, SETS, random_state())
    for one in (student, student.at_size(64)):
        plain = build_extractor(ViTSpec(TINY, SETS), random_state(), one.image_size)
        with torch.no_grad():
            *sets, mask = one(image(one.image_size))
            for ours, theirs in zip(sets, plain(image(one.image_size)), strict=True):
                assert torch.equal(ours, theirs)
        assert mask.shape == (2, (4 * one.grid_hw[0]) ** 2, 2)
    assert list(student.spec.features) == ["key", "cls", MASK]


def test_only_its_decoder_learns(random_state: Callable[..., Any]) -> None:
    student = FrozenStudent(TINY, 96, SETS, random_state())
    _, logits, _ = student.learned(image(96))
    logits.sum().backward()
    learns = {name.split(".")[0] for name, one in student.named_parameters() if one.grad is not None}
    assert learns == {"decoder"}


@dataclass(frozen=True)
class Made:
    """A teacher, the file of its backbone's weights, and photographs."""

    teacher: Path
    weights: Path
    images: Path

    def arguments(self, folder: Path, *more: object) -> list[str]:
        given = ("--teacher", self.teacher, "--images", self.images, "--start", self.weights, "--freeze")
        where = ("--work", folder / "work", "--bundle", folder / "finer.patchcut", "--student", TINY)
        short = ("--epochs", 2, "--batch", 2, "--size", "96,64", "--threads", 1, "--calibrate", 0)
        return ["export", "distill", *map(str, (*given, *where, *short, *more))]


@pytest.fixture(scope="module")
def made(
    build: Callable[..., Path], random_state: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Made:
    root = tmp_path_factory.mktemp("frozen")
    weights = root / "backbone.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in random_state().items()}, weights)
    digest = sha256(weights.read_bytes()).hexdigest()
    plain = build(root / "plain.patchcut", sha256=digest, precision="fp32")
    teacher = add_head(plain, root / "teacher.patchcut", ("background", "foreground"))
    (root / "photos").mkdir()
    for seed in range(6):
        random = np.random.default_rng(seed)
        photo = random.integers(0, 70, (72, 96, 3), np.uint8)
        cv2.ellipse(photo, (40 + seed, 36), (20, 14), 0, 0, 360, (200, 220, 180), -1)
        assert cv2.imwrite(str(root / "photos" / f"{seed}.png"), photo)
    return Made(teacher, weights, root / "photos")


def test_the_bundle_keeps_features_and_heads_and_has_a_decoder(
    made: Made, run_cli: Callable[..., int], tmp_path: Path
) -> None:
    assert run_cli(*made.arguments(tmp_path, "--precision", "fp32")) == 0
    path = tmp_path / "finer.patchcut"
    with open_bundle(made.teacher) as teacher, open_bundle(path) as bundle:
        bundle.verify()
        theirs, ours = teacher.spec, bundle.spec
        assert [head.name for head in ours.heads] == ["decoder", *(head.name for head in theirs.heads)]
        assert ours.backbone.source_sha256 == theirs.backbone.source_sha256
        assert {**ours.backbone.features, MASK: None} == {**theirs.backbone.features, MASK: None}
    frame = cv2.imread(str(made.images / "0.png"))
    for size in (96, 64):
        old, new = (patchcut.load(one, size=size, head="gnn") for one in (made.teacher, path))
        features = [np.array(seg.extractor([Frame(frame)]).default) for seg in (old, new)]
        np.testing.assert_allclose(*features, atol=1e-5)
        np.testing.assert_allclose(old(frame).assignment, new(frame).assignment, atol=1e-5)
    fine = patchcut.load(path)(frame)
    assert fine.assignment_hw == (24, 24) and fine.grid_hw == (6, 6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--student", "test_vit:layers=0,1"), "the frozen backbone is test_vit, got test_vit:layers=0,1"),
        (("--start", "WRONG"), "was trained on other features: source_sha256"),
    ],
)
def test_what_is_not_the_teachers_is_one_line(
    made: Made,
    run_cli: Callable[..., int],
    random_state: Callable[..., Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    expected: str,
) -> None:
    other = tmp_path / "other.safetensors"
    save_file({name: 2 * tensor for name, tensor in random_state().items()}, other)
    words = [str(other) if word == "WRONG" else word for word in options]
    assert run_cli(*made.arguments(tmp_path, *words)) in (1, 2)
    assert expected in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "work").exists() and not (tmp_path / "finer.patchcut").exists()


def test_weights_must_be_named(made: Made) -> None:
    with open_bundle(made.teacher) as teacher:
        backbone = teacher.spec.backbone
    with pytest.raises(OptionError, match=r"\[start\] must name the weights"):
        frozen_student(StudentSpec(TINY), 96, backbone, None)
    with pytest.raises(OptionError, match=r"\[student\] the frozen backbone is test_vit, got vit_other"):
        frozen_student(replace(StudentSpec(TINY), model="vit_other"), 96, backbone, {})
