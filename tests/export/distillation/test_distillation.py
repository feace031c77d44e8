"""How a student learns, is stopped, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError, OutputError
from patchcut_export.distillation import training as module
from patchcut_export.distillation.log import StepLog
from patchcut_export.distillation.student import Student, StudentSpec
from patchcut_export.distillation.targets import TARGET_SIDE, MaskTargets
from patchcut_export.distillation.training import Distillation, DistillHooks, DistillPlan
from patchcut_export.distillation.views import View, Views
from patchcut_export.errors import TrainingError
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.torch_device import CPU
from tests.export.training.runs import Interruption, log_lines

COUNT, SIZE, SIDE = 12, 64, 4
PLAN = DistillPlan(epochs=3, batch=4, learning_rate=3e-4, held_out=0.2)
SPEC = StudentSpec("test_vit", (0, 2))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    """Bright squares on dark ground: the masks are the squares, the features two directions."""
    folder = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    masks = np.zeros((COUNT, TARGET_SIDE, TARGET_SIDE), np.uint8)
    features = np.zeros((COUNT, SIDE * SIDE, 6), np.float16)
    for i in range(COUNT):
        y, x = random.integers(8, 28, 2)
        masks[i, y : y + 28, x : x + 28] = 255
        image = random.integers(0, 60, (TARGET_SIDE, TARGET_SIDE, 3)).astype(np.uint8)
        image[masks[i] > 0] += 150
        assert cv2.imwrite(str(folder / f"{i}.png"), image)
        share = cv2.resize(masks[i].astype(np.float32) / 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        features[i, :, 0], features[i, :, 1] = share.ravel(), 1 - share.ravel()
    names = tuple(f"{i}.png" for i in range(COUNT))
    cached = CachedFeatures(features, names, (SIDE, SIDE), (), names, {"key": features})
    targets = MaskTargets(masks, np.ones(COUNT, np.float32))
    return Views(folder, cached, targets, SIZE, SIDE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def run(views: Views, timm: Any, tmp_path: Path) -> Callable[..., Student]:
    def go(
        folder: str = "run",
        plan: DistillPlan = PLAN,
        hooks: DistillHooks | None = None,
        seen: Views = views,
        **about: str,
    ) -> Student:
        torch.manual_seed(plan.seed)
        student = Student(SPEC, SIZE, {"key": (6, False)})
        hooks = hooks or DistillHooks()
        return Distillation(student, seen, tmp_path / folder, plan, about, hooks, CPU).run()

    return go


def same_bits(a: Student, b: Student) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


def test_a_student_learns_masks_and_features(
    run: Callable[..., Student], views: Views, tmp_path: Path
) -> None:
    student = run(plan=replace(PLAN, epochs=40, learning_rate=1e-3))
    first, *_, last = log_lines(tmp_path / "run")
    assert last["mask"] < 0.5 * first["mask"]
    assert last["features"] < 0.5 * first["features"]
    batch = views.batch(np.arange(COUNT), [View()] * COUNT)
    with torch.no_grad():
        _, mask = student(batch.images)
    found = mask[..., 1].reshape(batch.masks.shape) > 0.5
    wanted = batch.masks > 0.5
    union = (found | wanted).sum((1, 2))
    assert ((found & wanted).sum((1, 2)) / union).mean() > 0.8
    picture = cv2.imread(str(tmp_path / "run" / "curve.png"))
    assert picture.shape[1] == 720
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_a_student_learns_when_there_is_nothing(run: Callable[..., Student], views: Views) -> None:
    empty = views.batch(np.arange(COUNT), [View(nothing=number) for number in range(COUNT)])
    found = {}
    for share in (0.0, 0.5):
        student = run(f"{share}", replace(PLAN, epochs=40, batch=2, learning_rate=1e-3, nothing=share))
        with torch.no_grad():
            found[share] = float(student(empty.images)[1][..., 1].mean())
    assert found[0.5] < 0.7 * found[0.0]


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
def test_an_interrupted_run_ends_with_the_same_bits(
    run: Callable[..., Student], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    monkeypatch.setattr(module, "_SAVE_EVERY", 2)
    monkeypatch.setattr(module, "_LOG_EVERY", 1)
    whole = run("whole")

    def stop(title: str, done: int, total: int) -> None:
        if done == stopped_at:
            raise Interruption

    with pytest.raises(Interruption):
        run("cut", hooks=DistillHooks(step=stop))
    assert same_bits(whole, run("cut"))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "cut")


def test_a_finished_run_trains_no_more(run: Callable[..., Student]) -> None:
    first, steps = run(), []
    again = run(hooks=DistillHooks(step=lambda title, done, total: steps.append(done)))
    assert steps == []
    assert same_bits(first, again)


def test_another_seed_gives_other_weights(run: Callable[..., Student]) -> None:
    assert same_bits(run("a"), run("b"))
    assert not same_bits(run("a"), run("c", plan=replace(PLAN, seed=1)))


def test_another_order_starts_from_the_same_weights(
    run: Callable[..., Student], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not same_bits(run("a"), run("b", plan=replace(PLAN, order=1)))
    monkeypatch.setattr(Distillation, "_step", lambda *_: (0.0, 0.0))
    assert same_bits(run("c"), run("d", plan=replace(PLAN, order=1)))


def test_another_plan_in_the_same_folder_is_refused(run: Callable[..., Student]) -> None:
    run()
    with pytest.raises(TrainingError, match="holds a run with another plan or other images"):
        run(plan=replace(PLAN, batch=3))
    with pytest.raises(TrainingError, match="holds a run with another plan or other images"):
        run(start="other weights")


def test_each_pass_is_told_with_the_held_out_images(run: Callable[..., Student]) -> None:
    told: list[StepLog] = []
    run(hooks=DistillHooks(line=told.append, dev_iou=lambda student: 0.25))
    assert [line.dev_iou for line in told] == [0.25] * PLAN.epochs
    assert all(line.held_out_mask is not None and line.held_out_mask > 0 for line in told)


def test_fewer_images_than_a_batch_are_refused(run: Callable[..., Student]) -> None:
    with pytest.raises(TrainingError, match="needs at least a batch of 16 images beside 2 held out, got 12"):
        run(plan=replace(PLAN, batch=16))


def test_features_that_are_not_finite_are_refused(run: Callable[..., Student], views: Views) -> None:
    broken = views.cached.features.copy()
    broken[:, 3] = np.nan
    cached = replace(views.cached, features=broken, sets={"key": broken})
    other = Views(views.folder, cached, views.targets, SIZE, SIDE, (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(TrainingError, match="the teacher's key has values that are not finite"):
        run(seen=other)


def test_a_loss_that_is_not_finite_names_the_step(
    run: Callable[..., Student], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Distillation, batch: object) -> tuple[torch.Tensor, ...]:
        return (torch.tensor(float("nan")),) * 3

    monkeypatch.setattr(Distillation, "_losses", broken)
    with pytest.raises(TrainingError, match=r"the loss is not finite at step 1 .*lower the learning rate"):
        run()


def test_a_damaged_checkpoint_is_one_line(run: Callable[..., Student], tmp_path: Path) -> None:
    run()
    (tmp_path / "run" / "student.pt").write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"student.pt is damaged: .*; delete"):
        run()


def test_a_full_disk_is_one_line(run: Callable[..., Student], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "claim_folder", full)
    with pytest.raises(OutputError, match="No space left on device"):
        run()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"seed": -1}, "seed"),
        ({"order": 2**32}, "order"),
        ({"nothing": 1.0}, "nothing"),
        ({"learning_rate": 0.0}, "learning-rate"),
        ({"decoder_learning_rate": 2.0}, "decoder-learning-rate"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        replace(PLAN, **change)
