"""Columns trained on planted images: the same thing on every image, the best pass kept, nothing lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError, OutputError
from patchcut_export.errors import TrainingError
from patchcut_export.measuring.metrics import adjusted_rand_index, contingency
from patchcut_export.training import columns
from patchcut_export.training.columns import ColumnPlan, TrainedColumns, train_columns
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.gnn import GraphHead, cosine_affinity
from patchcut_export.training.loop import EpochLog, Hooks
from tests.export.training.runs import Interruption, log_lines, same_bits

IMAGES, SIDE, DIM = 24, 6, 16
# What lies where on the 6x6 grid: background around an object whose left and right halves differ.
KINDS = np.pad(np.repeat([[1, 1, 2, 2]], 4, axis=0), 1).ravel()
PARTS = ColumnPlan(
    columns=2,
    parts=True,
    seed=1,
    hidden=(16,),
    mlp_hidden=8,
    batch=8,
    epochs=8,
    patience=8,
    learning_rate=1e-2,
)
ALL = replace(PARTS, columns=3, parts=False)


def planted(images: int = IMAGES) -> CachedFeatures:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, DIM)) + 0.4
    features = centres[KINDS] + 0.25 * rng.standard_normal((images, SIDE * SIDE, DIM))
    names = tuple(f"{i:02}.png" for i in range(images))
    return CachedFeatures(features.astype(np.float16), names, (SIDE, SIDE), ())


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., TrainedColumns]:
    """fit(...): trains in tmp_path/run, with anything changed; parts are of the object's patches."""

    def run(
        plan: ColumnPlan = PARTS,
        *,
        cached: CachedFeatures | None = None,
        chosen: np.ndarray | None = None,
        hooks: Hooks = Hooks(),  # noqa: B008 - frozen
        folder: Path = tmp_path / "run",
    ) -> TrainedColumns:
        cached = planted() if cached is None else cached
        if chosen is None:
            of_object = KINDS > 0 if plan.parts else np.ones(len(KINDS), bool)
            chosen = np.tile(of_object, (len(cached.images), 1))
        return train_columns(cached, chosen, folder, plan, hooks)

    return run


def winners(trained: TrainedColumns, plan: ColumnPlan) -> np.ndarray:
    """[N, n] column of each patch."""
    features = torch.from_numpy(planted().features.astype(np.float32))
    with torch.no_grad():
        columns = trained.head(features, cosine_affinity(features, plan.threshold)).argmax(-1).numpy()
    return np.asarray(columns)


@pytest.mark.parametrize("loss", ["ncut", "cc"])
@pytest.mark.parametrize("base", [PARTS, ALL])
def test_a_column_is_the_same_on_every_image(
    fit: Callable[..., TrainedColumns], tmp_path: Path, base: ColumnPlan, loss: str
) -> None:
    plan = replace(base, loss=loss)
    trained = fit(plan)
    found = winners(trained, plan)
    among = KINDS > 0 if plan.parts else np.ones(len(KINDS), bool)
    kinds = np.tile(KINDS, (IMAGES, 1))[:, among].ravel()
    assert adjusted_rand_index(contingency(found[:, among].ravel(), kinds)) > 0.95
    assert sum(trained.shares) == pytest.approx(1)
    if not plan.parts:
        assert (found[:, KINDS == 0] == 0).mean() > 0.95, "column 0 is not the background"
        assert trained.shares[0] == pytest.approx(20 / 36, abs=0.05)
    lines = log_lines(tmp_path / "run")
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert {line["stage"] for line in lines} == {f"{loss}-{plan.columns}"}
    assert lines[-1]["held_out_loss"] < lines[0]["held_out_loss"]


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        ("ncut", {"context": 0}),
        ("ncut", {"edge_threshold": 0.7}),
        ("ncut", {"threshold": 0.7}),
        ("ncut", {"temperature": 1.0}),
        ("ncut", {"anchor": 0.0}),
        ("ncut", {"nodes": 40}),
        ("ncut", {"loss": "cc"}),
        ("cc", {"alpha": 6.0}),
    ],
)
def test_every_setting_changes_what_is_learnt(
    fit: Callable[..., TrainedColumns], tmp_path: Path, loss: str, change: dict[str, Any]
) -> None:
    plan = replace(PARTS, epochs=1, loss=loss)
    before = fit(plan, folder=tmp_path / "before")
    after = fit(replace(plan, **change), folder=tmp_path / "after")
    assert not same_bits(before.head, after.head)


def test_more_columns_than_kinds_come_largest_first(fit: Callable[..., TrainedColumns]) -> None:
    trained = fit(replace(PARTS, columns=5))
    assert len(trained.shares) == 5
    assert list(trained.shares) == sorted(trained.shares, reverse=True)
    found = winners(trained, PARTS)[:, KINDS > 0]
    np.testing.assert_allclose(
        trained.shares, np.bincount(found.ravel(), minlength=5) / found.size, atol=0.03
    )


def test_training_ends_when_held_out_images_get_no_better(
    fit: Callable[..., TrainedColumns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.0, 0.5])
    monkeypatch.setattr(columns._Columns, "_held_out_loss", lambda self, head: next(losses))
    weights: list[dict[str, Any]] = []

    def epoch(log: EpochLog) -> None:
        saved = torch.load(tmp_path / "run" / "columns.pt", weights_only=True)
        weights.append({name: tensor.clone() for name, tensor in saved["head"].items()})

    trained = fit(replace(PARTS, patience=2), hooks=Hooks(epoch=epoch))
    assert len(weights) == 4  # an equal loss is no better
    assert trained.passes == 2
    for name, tensor in trained.head.state_dict().items():
        if not name.startswith("mlp.1."):  # the last layer's columns are put in order
            assert torch.equal(tensor, weights[1][name])
            assert name in ("shift", "scale") or not torch.equal(tensor, weights[3][name])


@pytest.mark.parametrize("loss", ["ncut", "cc"])
@pytest.mark.parametrize("stop", [1, 3, 8])
@pytest.mark.parametrize("where", ["epoch", "step"])
def test_an_interrupted_run_ends_with_the_same_bits(
    fit: Callable[..., TrainedColumns], tmp_path: Path, loss: str, stop: int, where: str
) -> None:
    plan = replace(PARTS, loss=loss, nodes=20)  # patches are picked at random, too
    whole = fit(plan, folder=tmp_path / "whole")

    def epoch(log: EpochLog) -> None:
        if where == "epoch" and log.epoch == stop:
            raise Interruption

    def step(what: str, done: int, total: int) -> None:
        if where == "step" and what.startswith(f"{loss}-2 {stop}/") and done > 8:
            raise Interruption

    with pytest.raises(Interruption):
        fit(plan, hooks=Hooks(step=step, epoch=epoch))
    torch.manual_seed(99)  # what other code does meanwhile must not matter
    resumed = fit(plan)
    assert same_bits(whole.head, resumed.head)
    assert (whole.shares, whole.passes) == (resumed.shares, resumed.passes)
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")


def test_a_finished_run_trains_no_more(fit: Callable[..., TrainedColumns]) -> None:
    first = fit()
    told: list[EpochLog] = []
    assert same_bits(first.head, fit(hooks=Hooks(epoch=told.append)).head)
    assert told == []


def test_another_seed_gives_other_bits(fit: Callable[..., TrainedColumns], tmp_path: Path) -> None:
    assert same_bits(fit().head, fit(folder=tmp_path / "again").head)
    assert not same_bits(fit().head, fit(replace(PARTS, seed=2), folder=tmp_path / "other").head)


def test_another_plan_or_foreground_is_refused(fit: Callable[..., TrainedColumns]) -> None:
    fit()
    with pytest.raises(TrainingError, match="another plan or other images; name another --work"):
        fit(replace(PARTS, columns=3))
    with pytest.raises(TrainingError, match="another plan or other images"):
        fit(chosen=np.tile(KINDS == 1, (IMAGES, 1)))


def test_images_without_foreground_are_left_out(fit: Callable[..., TrainedColumns], tmp_path: Path) -> None:
    chosen = np.tile(KINDS > 0, (IMAGES, 1))
    chosen[::2] = False
    cached = planted()
    plain = fit(cached=cached, chosen=chosen)
    cached.features[::2] += 1
    spoilt = fit(cached=cached, chosen=chosen, folder=tmp_path / "spoilt")
    assert same_bits(plain.head, spoilt.head)


@pytest.mark.parametrize("good", [0, 1])
def test_too_few_images_are_refused(fit: Callable[..., TrainedColumns], tmp_path: Path, good: int) -> None:
    chosen = np.zeros((IMAGES, len(KINDS)), bool)
    chosen[:good] = True
    with pytest.raises(TrainingError, match=f"needs at least 2 images with foreground, got {good}"):
        fit(chosen=chosen)
    with pytest.raises(TrainingError, match=f"needs at least 2 images, got {good}; name a larger folder"):
        fit(ALL, cached=planted(good))
    assert not (tmp_path / "run").exists()


def test_two_images_of_two_patches_each_are_enough(fit: Callable[..., TrainedColumns]) -> None:
    chosen = np.zeros((IMAGES, len(KINDS)), bool)
    chosen[:2, 7:9] = True
    fit(replace(PARTS, epochs=2), chosen=chosen)
    with pytest.raises(OptionError, match=r"\[k\] must be at most the 2 patches to learn from, got 3"):
        fit(replace(PARTS, columns=3), chosen=chosen)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"columns": 1}, "[k] must be from 2 to 256, the limit of a head, got 1"),
        ({"columns": 300}, "[k] must be from 2 to 256, the limit of a head, got 300"),
        ({"loss": "mincut"}, '[loss] must be one of "ncut", "cc", got \'mincut\''),
        ({"context": -1}, "[context] must be from 0 to 8, got -1"),
        ({"context": 9}, "[context]"),
        ({"alpha": 1.0}, "[alpha] must be above 1, got 1"),
        ({"alpha": float("nan")}, "[alpha]"),
        ({"seed": -1}, "[seed]"),
        ({"threshold": 1.0}, "[threshold]"),
        ({"learning_rate": 1.0}, "[learning-rate]"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as raised:
        replace(PARTS, **change)
    assert expected in str(raised.value)


def test_an_image_has_a_patch_for_each_column(fit: Callable[..., TrainedColumns]) -> None:
    with pytest.raises(OptionError, match=r"\[k\] must be from 2 to 36, an image has 36 patches, got 37"):
        fit(replace(ALL, columns=37))


def test_features_that_are_not_finite_name_the_image(fit: Callable[..., TrainedColumns]) -> None:
    cached = planted()
    cached.features[7, 3, 2] = np.nan
    with pytest.raises(TrainingError, match=r"the features of 07\.png are not finite; remove that image"):
        fit(cached=cached)


@pytest.mark.parametrize("where", ["train", "held_out"])
def test_a_loss_that_diverges_names_the_image_and_keeps_the_last_pass(
    fit: Callable[..., TrainedColumns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = fit(folder=tmp_path / "whole")

    def stop(log: EpochLog) -> None:
        raise Interruption

    with pytest.raises(Interruption):
        fit(hooks=Hooks(epoch=stop))
    before = (tmp_path / "run" / "columns.pt").read_bytes()
    forward = GraphHead.forward

    def diverge(self: GraphHead, features: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
        logits = forward(self, features, affinity)
        if self.training == (where == "train"):
            logits[-1] = logits[-1] * float("nan")
        return logits

    monkeypatch.setattr(GraphHead, "forward", diverge)
    with pytest.raises(TrainingError, match=r"the loss of \d\d\.png is not finite; lower the learning rate"):
        fit()
    monkeypatch.undo()
    assert (tmp_path / "run" / "columns.pt").read_bytes() == before
    assert same_bits(fit().head, whole.head)


def test_a_full_disk_is_one_line_and_the_run_goes_on(
    fit: Callable[..., TrainedColumns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(folder=tmp_path / "whole")
    write_bytes, written = Path.write_bytes, []

    def fill(self: Path, data: bytes) -> int:
        written.append(len(data))
        if len(written) == 3:  # the plan, a pass, and then there is no room
            write_bytes(self, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        fit()
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "columns.pt",
        "log.jsonl",
        "plan.json",
    ]
    assert same_bits(fit().head, whole.head)
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "whole")


@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_folder_is_one_line(fit: Callable[..., TrainedColumns], tmp_path: Path, keep: int) -> None:
    fit()
    path = tmp_path / "run" / "columns.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingError) as raised:
        fit()
    assert f"{path} is damaged" in str(raised.value)
    assert str(raised.value).endswith(f"delete {path.parent}")
