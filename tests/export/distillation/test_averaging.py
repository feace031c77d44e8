"""The mean of the weights of several runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError
from patchcut_export.distillation.averaging import average_runs, check_runs
from patchcut_export.distillation.student import Student, StudentSpec
from patchcut_export.distillation.training import DistillPlan
from patchcut_export.errors import TrainingError

SIZE = 64
PLAN = DistillPlan(epochs=2, batch=4, held_out=0.2)
MINE = {**asdict(PLAN), "student": "test_vit", "size": SIZE, "start": ""}


def student(words: str = "test_vit", size: int = SIZE) -> Student:
    return Student(StudentSpec.parse(words), size, {"key": (6, False)})


@pytest.fixture
def folder(tmp_path: Path, timm: Any) -> Callable[..., Path]:
    """A finished run: what averaging reads of it."""

    def make(name: str, done: int = 4, **other: object) -> Path:
        path = tmp_path / name
        path.mkdir()
        fields = {"plan": {**MINE, **other}, "images": ["a"] * 12, "contents": [""] * 12}
        (path / "plan.json").write_text(json.dumps(fields))
        torch.save({"average": student().state_dict(), "epochs": done}, path / "student.pt")
        return path

    return make


def test_the_mean_is_that_of_all_runs(folder: Callable[..., Path]) -> None:
    one, folders = student(), [folder("a"), folder("b", order=3)]
    states = [one.state_dict(), *(torch.load(path / "student.pt")["average"] for path in folders)]
    wanted = {
        name: np.mean([state[name].double().numpy() for state in states], axis=0)
        for name, tensor in states[0].items()
        if tensor.is_floating_point()
    }
    check_runs(folders, one, MINE)
    average_runs(one, folders)
    assert len(wanted) > 20
    for name, mean in wanted.items():
        np.testing.assert_allclose(one.state_dict()[name].numpy(), mean, atol=1e-6)


def test_no_other_run_changes_nothing(timm: Any) -> None:
    one = student()
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    check_runs([], one, MINE)
    average_runs(one, [])
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"size": 96}, {"start": "sha"}, {"student": "test_vit:layers=0"}, {"frozen": True}]
)
def test_runs_of_another_start_are_refused(folder: Callable[..., Path], other: dict[str, object]) -> None:
    (name,) = other
    with pytest.raises(OptionError, match=rf"^\[average\] .*a is a run of another {name}"):
        check_runs([folder("a", **other)], student(), MINE)


def test_a_run_that_is_not_finished_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(TrainingError, match=r"a stands at step 3 of 4; finish it first"):
        check_runs([folder("a", done=3)], student(), MINE)
    with pytest.raises(TrainingError, match=r"b stands at step 4 of 6"):
        check_runs([folder("b", **asdict(replace(PLAN, epochs=3)))], student(), MINE)


def test_a_folder_without_a_run_is_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("a")
    for missing in ("student.pt", "plan.json"):
        (path / missing).unlink()
        with pytest.raises(OptionError, match="a holds no run"):
            check_runs([path], student(), MINE)
    with pytest.raises(OptionError, match="nowhere holds no run"):
        check_runs([tmp_path / "nowhere"], student(), MINE)


@pytest.mark.parametrize("text", ["{", "{}", '{"plan": 3, "images": []}'])
def test_a_damaged_plan_is_one_line(folder: Callable[..., Path], text: str) -> None:
    path = folder("a")
    (path / "plan.json").write_text(text)
    with pytest.raises(TrainingError, match=r"plan.json is damaged: "):
        check_runs([path], student(), MINE)


def test_a_damaged_checkpoint_is_one_line(folder: Callable[..., Path]) -> None:
    path, one = folder("a"), student()
    torch.save({"average": {}, "epochs": 4}, path / "student.pt")
    with pytest.raises(TrainingError, match=r"student.pt is damaged: "):
        average_runs(one, [path])
    torch.save({"average": student(size=96).state_dict(), "epochs": 4}, path / "student.pt")
    with pytest.raises(TrainingError, match=r"student.pt is damaged: .*pos_embed has another shape"):
        average_runs(one, [path])
    (path / "student.pt").write_bytes(b"PK")
    with pytest.raises(TrainingError, match=r"student.pt is damaged: "):
        check_runs([path], one, MINE)


def test_means_of_batches_are_refused(folder: Callable[..., Path]) -> None:
    one = student()
    one.trunk.norm = torch.nn.BatchNorm2d(3)
    with pytest.raises(OptionError, match="batch normalisation cannot be averaged"):
        check_runs([folder("a")], one, MINE)
