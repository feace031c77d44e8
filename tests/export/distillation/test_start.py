"""What a student starts from: fewer units of its MLPs, and projections that are fitted to the teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.vit import build_extractor
from patchcut_export.distillation.slimming import kept_units, slim_mlps
from patchcut_export.distillation.start import fit_linear, prepare
from patchcut_export.distillation.student import Student, StudentSpec
from patchcut_export.distillation.views import Batch
from torch import nn
from torch.nn import functional

TINY, SIZE = "test_vit", 96
State = Callable[..., dict[str, Any]]


class Block(nn.Module):
    """A block that is an MLP alone."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answered: torch.Tensor = self.fc2(functional.gelu(self.fc1(rows)))
        return answered


def images(count: int = 24) -> torch.Tensor:
    smooth = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(smooth, size=(SIZE, SIZE), mode="bicubic")


def test_units_that_never_change_go_without_a_trace() -> None:
    """Half of the units do not depend on what comes in: without them the MLP answers as before."""
    torch.manual_seed(0)
    mlp = Mlp(6, 32)
    with torch.no_grad():
        mlp.fc1.weight[::2] = 0
        mlp.fc1.bias[::2] = torch.linspace(-1, 3, 16)
    rows = torch.randn(3, 50, 6)
    with torch.no_grad():
        before = mlp(rows)
        slim_mlps([Block(mlp)], 0.5, lambda: mlp(rows))
        torch.testing.assert_close(mlp(rows), before)
    assert mlp.fc1.out_features == mlp.fc2.in_features == 16


def test_what_goes_is_what_a_search_would_take() -> None:
    """The units with the least variance of what they add, found here by leaving out one at a time."""
    torch.manual_seed(1)
    mlp = Mlp(5, 16)
    rows = torch.randn(400, 5)
    with torch.no_grad():
        hidden = functional.gelu(mlp.fc1(rows))
        lost = []
        for unit in range(16):
            flat = hidden.clone()
            flat[:, unit] = hidden[:, unit].mean()
            lost.append(float((mlp.fc2(flat) - mlp.fc2(hidden)).square().sum()))
        kept = np.sort(np.argsort(lost)[8:])
        expected = mlp.fc1.weight[kept].clone()
        slim_mlps([Block(mlp)], 0.5, lambda: mlp(rows))
    torch.testing.assert_close(mlp.fc1.weight.data, expected)


def test_mlps_of_another_shape_are_refused() -> None:
    gated = Mlp(4, 16)
    gated.fc2 = nn.Linear(8, 4)
    with pytest.raises(OptionError, match="keeps units of MLPs of two layers, got Mlp"):
        slim_mlps([Block(gated)], 0.5, lambda: None)


@pytest.mark.parametrize(
    ("hidden", "share", "kept"), [(1536, 0.75, 1152), (192, 0.3, 56), (16, 0.1, 8), (4, 0.5, 4)]
)
def test_units_are_kept_in_eights(hidden: int, share: float, kept: int) -> None:
    assert kept_units(hidden, share) == kept


def test_a_linear_layer_is_the_least_squares_of_numpy() -> None:
    random = np.random.default_rng(0)
    rows, wanted = random.normal(2, 1, (300, 5)), random.normal(0, 3, (300, 4))
    linear = nn.Linear(5, 4)
    with torch.no_grad():
        fit_linear(linear, *(torch.from_numpy(one).float() for one in (rows, wanted)))
    found = np.linalg.lstsq(np.hstack([rows, np.ones((300, 1))]), wanted, rcond=None)[0]
    np.testing.assert_allclose(linear.weight.detach().numpy(), found[:5].T, atol=0.01)
    np.testing.assert_allclose(linear.bias.detach().numpy(), found[5], atol=0.03)


def test_a_student_of_the_same_weights_starts_where_the_teacher_is(random_state: State) -> None:
    """Before any step its features are nearly the teacher's; with half of the units nearer than at random."""
    state = random_state()
    teacher = build_extractor(
        ViTSpec(
            TINY, {"key": FeatureSpec((Component("key", 3),)), "cls": FeatureSpec((Component("cls", 2),))}
        ),
        state,
        SIZE,
    )
    seen = images()
    with torch.no_grad():
        key, whole = teacher(seen)
    sets = {"key": (key.shape[-1], False), "cls": (whole.shape[-1], True)}
    ones = torch.ones(len(seen))
    batch = Batch(seen, torch.zeros(len(seen), 1, 1), ones, {"key": key, "cls": whole}, ones)
    found = {}
    for words in (f"{TINY}:layers=0,1,2", f"{TINY}:layers=0,1,2:mlp=0.5"):
        torch.manual_seed(0)
        student = Student(StudentSpec.parse(words), SIZE, sets, state)
        prepare(student, batch)
        with torch.no_grad():
            ours = student.read(seen)[0]["key"]
        centred = (one - key.mean((0, 1)) for one in (ours, key))
        found[words] = float(functional.cosine_similarity(*centred, dim=-1).mean())
        again = student.at_size(64)
        assert again.state_dict().keys() == student.state_dict().keys()
    whole_cosine, half_cosine = found.values()
    assert whole_cosine > 0.98
    assert half_cosine > 0.5


def test_a_student_without_weights_has_the_same_shape(random_state: State) -> None:
    """It is what a checkpoint is read into."""
    spec = StudentSpec.parse(f"{TINY}:mlp=0.5")
    seen = images(4)
    sets = {"key": (6, False)}
    batch = Batch(seen, torch.zeros(4, 1, 1), torch.ones(4), {"key": torch.randn(4, 36, 6)}, torch.ones(4))
    slim, blank = Student(spec, SIZE, sets, random_state()), Student(spec, SIZE, sets)
    prepare(slim, batch)
    shapes = ({name: tuple(t.shape) for name, t in one.state_dict().items()} for one in (slim, blank))
    assert next(shapes) == next(shapes)
    blank.load_state_dict(slim.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(blank.eval()(seen), slim.eval()(seen))


@pytest.mark.parametrize("words", ["mobilenetv4_conv_small_035:mlp=0.5"])
def test_a_convolutional_trunk_has_no_such_units(timm: Any, words: str) -> None:
    with pytest.raises(OptionError, match="is no ViT, whose layers can be chosen"):
        Student(StudentSpec.parse(words), SIZE, {"key": (6, False)})


def test_mlps_with_a_gate_are_refused_before_any_work(timm: Any) -> None:
    with pytest.raises(OptionError, match="keeps units of MLPs of two layers, got SwiGLU"):
        Student(StudentSpec.parse("vit_small_plus_patch16_dinov3:mlp=0.5"), SIZE, {"key": (6, False)})
