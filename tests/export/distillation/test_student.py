"""Students: what they are made of, and what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.vit import build_extractor
from patchcut_export.distillation.decoder import CELLS, MaskDecoder
from patchcut_export.distillation.student import MASK, Student, StudentSpec
from patchcut_export.errors import ExportError
from torch.nn import functional

State = Callable[..., dict[str, Any]]

TINY = "test_vit"
SETS = {"key": (24, False), "cls": (10, True)}


def image(size: int, batch: int = 2) -> torch.Tensor:
    smooth = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return functional.interpolate(smooth, size=(size, size), mode="bicubic")


@pytest.mark.parametrize(
    ("words", "model", "layers"),
    [
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", None),
        ("a:layers=0,3,11", "a", (0, 3, 11)),
        ("a:mlp=0.75", "a", None),
        ("a:layers=0,3:mlp=0.5", "a", (0, 3)),
        ("mobilenetv4_conv_small", "mobilenetv4_conv_small", None),
    ],
)
def test_words_of_a_student(words: str, model: str, layers: tuple[int, ...] | None) -> None:
    spec = StudentSpec.parse(words)
    assert (spec.model, spec.layers) == (model, layers)
    assert str(spec) == words


@pytest.mark.parametrize(
    "words",
    [
        "a:",
        "a:layers=",
        "a:layers=2,1",
        "a:layers=1,1",
        "a:layers=-1",
        "a:depth=3",
        "a:mlp=0",
        "a:mlp=1.5",
        "a:mlp=half",
    ],
)
def test_words_that_are_no_student_are_refused(words: str) -> None:
    with pytest.raises(OptionError, match="must be MODEL, :layers=A,B,"):
        StudentSpec.parse(words)


def test_an_unknown_model_names_what_is_near(timm: Any) -> None:
    with pytest.raises(
        OptionError, match=r"timm has no model 'vit_smal_patch14_dinov2'.*vit_small_patch14_dinov2"
    ):
        Student(StudentSpec("vit_smal_patch14_dinov2"), 96, SETS)


def test_a_size_that_is_no_whole_number_of_patches_is_refused(timm: Any) -> None:
    with pytest.raises(OptionError, match="try 96"):
        Student(StudentSpec(TINY), 100, SETS)
    with pytest.raises(OptionError, match="multiple of 32 for mobilenetv4_conv_small, got 80"):
        Student(StudentSpec("mobilenetv4_conv_small"), 80, SETS)


def test_layers_that_are_not_there_are_refused(timm: Any) -> None:
    with pytest.raises(OptionError, match="has layers 0 to 5, got 6"):
        Student(StudentSpec(TINY, (0, 6)), 96, SETS)
    with pytest.raises(OptionError, match="is no ViT, whose layers can be chosen"):
        Student(StudentSpec("mobilenetv4_conv_small", (0, 1)), 96, SETS)


def test_weights_of_another_network_are_refused(random_state: State) -> None:
    with pytest.raises(ExportError, match="the weights do not fit"):
        Student(StudentSpec("vit_tiny_patch16_224"), 96, SETS, random_state())
    with pytest.raises(ExportError, match="the weights do not fit mobilenetv4_conv_small"):
        Student(StudentSpec("mobilenetv4_conv_small"), 96, SETS, random_state())


def test_a_trunk_on_given_weights_is_the_vit_itself(random_state: State) -> None:
    """All layers kept, the tokens are those of the extractor that `patchcut export backbone` ships."""
    state = random_state()
    trunk = Student(StudentSpec(TINY), 96, SETS, state).trunk
    sets = {"token": FeatureSpec((Component("token", -1),)), "cls": FeatureSpec((Component("cls", -1),))}
    plain = build_extractor(ViTSpec(TINY, sets), state, 96)
    with torch.no_grad():
        for ours, theirs in zip(trunk(image(96)), plain(image(96)), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_layers_that_are_kept_are_those_of_the_weights(random_state: State) -> None:
    """Block 1 and 4 alone are what a ViT of two blocks with their weights computes."""
    state = random_state()
    kept = Student(StudentSpec(TINY, (1, 4)), 96, SETS, state).trunk
    short = dict(state)
    for place, layer in enumerate((1, 4)):
        for name in [name for name in state if name.startswith(f"blocks.{layer}.")]:
            short[name.replace(f"blocks.{layer}.", f"blocks.{place}.")] = state[name]
    plain = build_extractor(ViTSpec(TINY, {"token": FeatureSpec((Component("token", 1),))}), short, 96)
    with torch.no_grad():
        torch.testing.assert_close(kept(image(96))[0], plain(image(96))[0])
    assert sum(name.endswith("attn.qkv.weight") for name in kept.state_dict()) == 2


@pytest.mark.parametrize(
    ("words", "size", "patch"),
    [(TINY, 96, 16), (f"{TINY}:layers=0,2", 96, 16), ("mobilenetv4_conv_small_035", 96, 16)],
)
def test_what_a_student_gives(timm: Any, words: str, size: int, patch: int) -> None:
    torch.manual_seed(0)
    student = Student(StudentSpec.parse(words), size, SETS).eval()
    side = size // patch
    with torch.no_grad():
        key, whole, mask = student(image(size))
        _, logits, coarse = student.learned(image(size))
    assert list(student.spec.features) == ["key", "cls", MASK]
    assert student.dims == {"key": 24, "cls": 10, MASK: 2}
    assert student.grid_hw == (side, side)
    assert key.shape == (2, side**2, 24)
    assert whole.shape == (2, 1, 10)
    assert mask.shape == (2, (CELLS * side) ** 2, 2)
    assert coarse.shape == (2, side**2)
    torch.testing.assert_close(mask.sum(-1), torch.ones(mask.shape[:2]))
    torch.testing.assert_close(mask[..., 1], logits.sigmoid().flatten(1))
    assert student.spec.features[MASK].cells == CELLS


@pytest.mark.parametrize("words", [TINY, "mobilenetv4_conv_small_035"])
def test_another_size_has_the_same_weights(timm: Any, words: str) -> None:
    """All but where positions are learned for one grid; there the embedding is that of the other grid."""
    torch.manual_seed(0)
    student = Student(StudentSpec.parse(words), 96, SETS).eval()
    other = student.at_size(128)
    assert other.grid_hw == (8, 8)
    ours, theirs = student.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert different == [name for name in ours if name.endswith("pos_embed")]
    with torch.no_grad():
        assert other(image(128))[-1].shape == (2, (8 * CELLS) ** 2, 2)


def test_cells_lie_where_their_patch_is() -> None:
    """A token that is changed changes the answer around its own patch, and its quarters in reading order."""
    torch.manual_seed(0)
    decoder = MaskDecoder(8, width=4).eval()
    side = 12
    tokens = torch.randn(1, side * side, 8)
    blank = torch.zeros(1, 3, side * 14, side * 14)
    changed = tokens.clone()
    changed[0, 3 * side + 8] += torch.randn(8)
    with torch.no_grad():
        before, after = (
            decoder(one, blank)[0, :, 1].reshape(CELLS * side, CELLS * side) for one in (tokens, changed)
        )
    rows, columns = np.nonzero((before - after).abs().numpy() > 1e-6)
    reach = 4  # of two convolutions and the bilinear steps, in cells
    assert rows.min() >= CELLS * 3 - reach
    assert rows.max() < CELLS * 4 + reach
    assert columns.min() >= CELLS * 8 - reach
    assert columns.max() < CELLS * 9 + reach


def test_an_edge_of_the_image_moves_the_answer_at_its_own_cells() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(8, width=4).eval()
    side = 12
    tokens = torch.randn(1, side * side, 8)
    blank = torch.zeros(1, 3, side * 14, side * 14)
    edge = blank.clone()
    edge[..., 70:84, 112:126] = 2
    with torch.no_grad():
        before, after = (decoder(tokens, one)[0, :, 1].reshape(CELLS * side, -1) for one in (blank, edge))
    rows, columns = np.nonzero((before - after).abs().numpy() > 1e-6)
    assert abs(rows.mean() - (77 / 14 * CELLS - 0.5)) < 1
    assert abs(columns.mean() - (119 / 14 * CELLS - 0.5)) < 1
