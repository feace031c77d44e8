"""Training on a dozen planted images: it learns, repeats itself, and survives interruptions."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError, OutputError
from patchcut_export.errors import TrainingError
from patchcut_export.training import foreground as training
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.foreground import Extract, ForegroundPlan, predict, train_foreground
from patchcut_export.training.gnn import GraphHead
from patchcut_export.training.loop import EpochLog, Hooks
from tests.export.training.runs import Interruption, log_lines, same_bits

IMAGES, SIDE, DIM = 12, 4, 16
OBJECT = np.pad(np.ones((2, 2), bool), 1).ravel()  # the centre of the 4x4 grid
PLAN = ForegroundPlan(
    seed=1, hidden=(16,), mlp_hidden=8, batch=4, ncut_epochs=3, epochs=4, learning_rate=1e-2
)


def planted(images: int = IMAGES) -> CachedFeatures:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, DIM)) + 0.4
    noise = 0.25 * rng.standard_normal((images, SIDE * SIDE, DIM))
    features = centres[OBJECT.astype(int)] + noise
    names = tuple(f"{i:02}.png" for i in range(images))
    return CachedFeatures(features.astype(np.float16), names, (SIDE, SIDE), ())


def empty_scene(image: np.ndarray) -> np.ndarray:
    """Features of a picture without an object: all patches alike, between background and foreground."""
    rng = np.random.default_rng(image.sum() % 1000)
    centres = np.random.default_rng(0).standard_normal((2, DIM)) + 0.4
    scene = centres.mean(0) + 0.25 * rng.standard_normal((SIDE * SIDE, DIM))
    return scene.astype(np.float32)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square in the middle of each."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in planted().images:
        image = rng.integers(0, 60, (64, 64, 3), np.uint8)
        image[16:48, 16:48] = rng.integers(180, 250, (32, 32, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), image)
    return folder


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphHead, Path]:
    """A head that was trained without interruption, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return train_foreground(
        planted(), pictures, empty_scene, folder, PLAN, Hooks(dev_iou=lambda head: 0.0)
    ), folder


@pytest.fixture
def fit(pictures: Path, tmp_path: Path) -> Callable[..., GraphHead]:
    """fit(...): trains in tmp_path/head, with anything changed."""

    def run(
        cached: CachedFeatures | None = None,
        *,
        plan: ForegroundPlan = PLAN,
        hooks: Hooks = Hooks(),  # noqa: B008 - frozen
        folder: Path = tmp_path / "head",
        extract: Extract = empty_scene,
    ) -> GraphHead:
        return train_foreground(
            planted() if cached is None else cached, pictures, extract, folder, plan, hooks
        )

    return run


def epochs_of(plan: ForegroundPlan) -> list[tuple[str, int]]:
    lengths = [plan.ncut_epochs, *[plan.epochs] * (len(plan.stages) - 1)]
    return [(s, e + 1) for s, n in zip(plan.stages, lengths, strict=True) for e in range(n)]


def test_it_learns_that_there_may_be_nothing(fit: Callable[..., GraphHead], tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def extract(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return empty_scene(image)

    plan = replace(PLAN, empty_weight=4.0, blanks=6)
    heads = {
        weight: fit(
            plan=replace(plan, empty_weight=weight), folder=tmp_path / f"weight-{weight}", extract=extract
        )
        for weight in (0.0, 4.0)
    }
    # the blanks of the second run alone: the border around the planted objects is too thin to be cropped
    assert len(seen) == 6
    scenes = torch.from_numpy(np.stack([empty_scene(np.full((1, 1), i)) for i in range(20)]))
    shares = {
        weight: float(predict(head, scenes, PLAN.threshold)[..., 1].mean()) for weight, head in heads.items()
    }
    assert shares[4.0] < 0.2 < shares[0.0]


def test_it_learns_the_planted_foreground(fit: Callable[..., GraphHead], tmp_path: Path) -> None:
    told: list[EpochLog] = []
    cached = planted()
    head = fit(hooks=Hooks(epoch=told.append, dev_iou=lambda head: 0.5))
    foreground = predict(head, torch.from_numpy(cached.features.astype(np.float32)), PLAN.threshold)[..., 1]
    found = foreground.numpy() > 0.5
    iou = (found & OBJECT).sum(1) / (found | OBJECT).sum(1)
    assert iou.mean() > 0.95
    lines = log_lines(tmp_path / "head")
    assert [(line["stage"], line["epoch"]) for line in lines] == epochs_of(PLAN)
    assert [(log.stage, log.epoch) for log in told] == epochs_of(PLAN)
    assert {line["dev_iou"] for line in lines} == {0.5}
    assert all(np.isfinite([line["loss"], line["held_out_loss"]]).all() for line in lines)
    losses = [line["loss"] for line in lines if line["stage"] == "self-1"]
    assert losses[-1] < losses[0]


def test_one_seed_gives_the_same_bits_and_another_does_not(
    fit: Callable[..., GraphHead], whole: tuple[GraphHead, Path], tmp_path: Path
) -> None:
    assert same_bits(whole[0], fit(hooks=Hooks(dev_iou=lambda head: 0.0)))
    assert log_lines(whole[1]) == log_lines(tmp_path / "head")
    assert not same_bits(whole[0], fit(folder=tmp_path / "other", plan=replace(PLAN, seed=2)))


@pytest.mark.parametrize(
    "stop", [("ncut", 2), ("ncut", 3), ("cut", 1), ("cut", 4), ("self-1", 2), ("self-1", 4)]
)
@pytest.mark.parametrize("where", ["epoch", "dev_iou", "step"])
def test_an_interrupted_run_ends_with_the_same_bits(
    fit: Callable[..., GraphHead],
    whole: tuple[GraphHead, Path],
    tmp_path: Path,
    stop: tuple[str, int],
    where: str,
) -> None:
    measured: list[GraphHead] = []

    def epoch(log: EpochLog) -> None:
        if where == "epoch" and (log.stage, log.epoch) == stop:
            raise Interruption

    def dev_iou(head: GraphHead) -> float:
        measured.append(head)
        if where == "dev_iou" and epochs_of(PLAN)[len(measured) - 1] == stop:
            raise Interruption
        return 0.0

    def step(what: str, done: int, total: int) -> None:
        if where == "step" and what.startswith(f"{stop[0]} {stop[1]}/") and done > 4:
            raise Interruption

    with pytest.raises(Interruption):
        fit(hooks=Hooks(step=step, epoch=epoch, dev_iou=dev_iou))
    torch.manual_seed(99)  # what other code does meanwhile must not matter
    resumed = fit(hooks=Hooks(dev_iou=lambda head: 0.0))
    assert same_bits(whole[0], resumed)
    lines = log_lines(tmp_path / "head")
    assert [(line["stage"], line["epoch"]) for line in lines] == epochs_of(PLAN)
    assert [line["loss"] for line in lines] == [line["loss"] for line in log_lines(whole[1])]


def test_a_finished_run_trains_no_more(fit: Callable[..., GraphHead], tmp_path: Path) -> None:
    first = fit()
    told: list[EpochLog] = []
    assert same_bits(first, fit(hooks=Hooks(epoch=told.append)))
    assert told == []


def test_the_order_of_a_plan_means_nothing(fit: Callable[..., GraphHead], tmp_path: Path) -> None:
    first, path = fit(), tmp_path / "head" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=1))
    assert same_bits(first, fit())


def test_another_plan_or_other_images_are_refused(fit: Callable[..., GraphHead]) -> None:
    fit()
    with pytest.raises(TrainingError, match="another plan or other images; name another --work"):
        fit(plan=replace(PLAN, epochs=5))
    cached = planted()
    with pytest.raises(TrainingError, match="another plan or other images"):
        fit(replace(cached, images=(*cached.images[:-1], "other.png")))


@pytest.mark.parametrize("broken", range(0, IMAGES, 3))
def test_features_that_are_not_finite_name_the_image(
    fit: Callable[..., GraphHead], tmp_path: Path, broken: int
) -> None:
    fit()
    before = {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()}
    cached = planted()
    cached.features[broken, 3, 2] = np.inf if broken % 2 else np.nan
    with pytest.raises(TrainingError, match=rf"the features of {broken:02}\.png are not finite; remove"):
        fit(cached)
    assert {path.name: path.read_bytes() for path in (tmp_path / "head").iterdir()} == before


def test_a_loss_that_diverges_keeps_the_last_epoch(
    fit: Callable[..., GraphHead],
    whole: tuple[GraphHead, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(log: EpochLog) -> None:
        raise Interruption

    with pytest.raises(Interruption):
        fit(hooks=Hooks(epoch=stop))
    before = (tmp_path / "head" / "ncut.pt").read_bytes()
    loss = training.ncut_loss
    monkeypatch.setattr(training, "ncut_loss", lambda *args: loss(*args) * float("nan"))
    with pytest.raises(
        TrainingError, match=r"the loss of \d\d\.png is not finite; lower the learning rate; the last epoch's"
    ):
        fit()
    assert (tmp_path / "head" / "ncut.pt").read_bytes() == before
    monkeypatch.undo()
    assert same_bits(fit(), whole[0])


def test_images_in_which_nothing_is_found_teach_nothing(
    fit: Callable[..., GraphHead], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(head: GraphHead, features: torch.Tensor, threshold: float) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]).expand(*features.shape[:2], 2)

    monkeypatch.setattr(training, "predict", nothing)
    fit(plan=replace(PLAN, epochs=1, empty_weight=0.0))
    with np.load(tmp_path / "head" / "self-1.targets.npz") as targets:
        assert not targets["foreground"].any()
        np.testing.assert_array_equal(targets["weight"], 0)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(fit: Callable[..., GraphHead], tmp_path: Path, count: int) -> None:
    with pytest.raises(TrainingError, match=f"needs at least 2 images, got {count}"):
        fit(planted(count))
    assert not (tmp_path / "head").exists()


def test_two_images_are_enough(fit: Callable[..., GraphHead]) -> None:
    fit(planted(2))


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 10, 11, 20])
def test_a_stage_may_have_any_number_of_steps(
    fit: Callable[..., GraphHead], tmp_path: Path, steps: int
) -> None:
    # ten steps once divided by zero in the schedule
    fit(plan=replace(PLAN, batch=IMAGES, ncut_epochs=steps, epochs=1, rounds=0))
    assert len(log_lines(tmp_path / "head")) == steps + 1


@pytest.mark.parametrize(
    "file", ["plan.json", "ncut.pt", "self-1.pt", "cut.targets.npz", "self-1.targets.npz"]
)
@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_folder_is_one_line(
    fit: Callable[..., GraphHead], tmp_path: Path, file: str, keep: int
) -> None:
    fit()
    path = tmp_path / "head" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError) as raised:
        fit()
    assert f"{path} is damaged" in str(raised.value)
    assert str(raised.value).endswith(f"delete {path.parent}")


def test_a_full_disk_is_one_line(fit: Callable[..., GraphHead], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.np, "savez", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        fit()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": -1}, "[seed] must be from 0"),
        ({"seed": 2**40}, "[seed]"),
        ({"threshold": -0.1}, "[threshold] must be from 0 to less than 1, got -0.1"),
        ({"threshold": 1.0}, "[threshold]"),
        ({"threshold": float("nan")}, "[threshold]"),
        ({"learning_rate": 0.0}, "[learning-rate] must be between 0 and 1, got 0.0"),
        ({"learning_rate": float("nan")}, "[learning-rate]"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as raised:
        replace(PLAN, **change)
    assert expected in str(raised.value)
