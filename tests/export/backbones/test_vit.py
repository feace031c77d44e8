"""The extractor against what hooks see inside the plain timm model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut.errors import OptionError
from patchcut_export.backbones.spec import FACETS, Component, FeatureSpec, ViTSpec, check_spec
from patchcut_export.backbones.vit import (
    build_extractor,
    resample_position_embedding,
    simplify_blocks,
)
from patchcut_export.errors import ExportError
from torch.nn import functional

TINY = "test_vit"
# (size, layers, facets): plain; LayerScale; registers beside a class token outside the embedding; a
# distillation token; registers and no class token
MODELS = {
    TINY: (96, (0, 3, -1), FACETS),
    "vit_small_patch14_dinov2": (56, (1,), ("key",)),
    "vit_small_patch14_reg4_dinov2": (56, (1,), ("token", "cls", "attention")),
    "deit_tiny_distilled_patch16_224": (64, (-1,), ("value", "cls", "attention")),
    "test_vit3": (96, (-1,), ("key", "token")),
}
State = Callable[..., dict[str, Any]]


def plain_vit(timm: Any, name: str, size: int, state: dict[str, Any]) -> Any:
    with torch.device("meta"):
        vit = timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval()
    vit.load_state_dict({key: tensor.clone() for key, tensor in state.items()}, assign=True)
    return vit


def oracle(vit: Any, image: torch.Tensor, facet: str, layer: int) -> torch.Tensor:
    """Features as the hook on the block's qkv, or on the block and then the norm, sees them."""
    if facet == "attention":
        return attention_oracle(vit, image, layer)
    seen = []
    block = vit.blocks[layer]
    module = block if facet in ("token", "cls") else block.attn.qkv
    handle = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        vit.forward_features(image)
    handle.remove()
    if facet == "cls":
        return vit.norm(seen[0])[:, :1]
    patches = seen[0][:, vit.num_prefix_tokens :]
    if facet == "token":
        return vit.norm(patches)
    index = FACETS.index(facet)
    bias = 0 if block.attn.qkv.bias is None else block.attn.qkv.bias.chunk(3)[index]
    return patches.chunk(3, dim=-1)[index] - bias


def attention_oracle(vit: Any, image: torch.Tensor, layer: int) -> torch.Tensor:
    """[b, n, heads], the row of the class token in timm's own attention, which shares 1 among the patches."""
    seen = []
    attention = vit.blocks[layer].attn
    attention.fused_attn = False
    handle = attention.attn_drop.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        vit.forward_features(image)
    handle.remove()
    row = seen[0][:, :, 0, vit.num_prefix_tokens :]
    assert row.sum(-1).min() < 0.999, "nothing goes to other tokens"
    return (row / row.sum(-1, keepdim=True)).mT


def spec(*components: Component, model: str = TINY, stride: int | None = None, **choices: Any) -> ViTSpec:
    """One set, of the last keys where nothing else is said."""
    return ViTSpec(model, {"one": FeatureSpec(components or (Component(),), **choices)}, stride)


def photo_batch(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_hooks_see(timm: Any, random_state: State, name: str) -> None:
    size, layers, facets = MODELS[name]
    state = random_state(name, size)
    vit, image = plain_vit(timm, name, size, state), photo_batch(size)
    for layer in layers:
        for facet in facets:
            extractor = build_extractor(spec(Component(facet, layer), model=name), dict(state), size)
            with torch.inference_mode():
                (got,), expected = extractor(image), oracle(vit, image, facet, layer)
            assert expected.std() > 1e-2 * expected.abs().mean(), "the reference is near-constant"
            rows = 1 if facet == "cls" else (size // extractor.patch_size) ** 2
            assert got.shape == (2, rows, extractor.dims["one"])
            assert extractor.grid_hw == (size // extractor.patch_size,) * 2
            torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


def test_the_layer_is_told_from_the_front(random_state: State) -> None:
    extractor = build_extractor(spec(), random_state(), 96)
    assert extractor.spec.features["one"].components == (Component("key", len(extractor.vit.blocks) - 1),)


def features_of(feature: ViTSpec, state: dict[str, Any], image: torch.Tensor) -> torch.Tensor:
    extractor = build_extractor(feature, dict(state), image.shape[-1])
    with torch.inference_mode():
        (features,) = extractor(image)
    assert features.shape == (len(image), extractor.grid_hw[0] ** 2, extractor.dims["one"])
    return features


def unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def test_several_components_are_weighted_units_side_by_side(timm: Any, random_state: State) -> None:
    state, image = random_state(TINY, 96), photo_batch(96)
    components = (
        Component("value", -2, 3.0),
        Component("token", 0, 1.0),
        Component("key", -1, 4.0),
        Component("key", 4, 8.0),
    )
    got = features_of(spec(*components), state, image)
    vit = plain_vit(timm, TINY, 96, state)
    with torch.inference_mode():
        alone = [unit(oracle(vit, image, component.facet, component.layer)) for component in components]
    weighted = [
        one * (component.weight / 16) ** 0.5 for one, component in zip(alone, components, strict=True)
    ]
    torch.testing.assert_close(got, torch.cat(weighted, -1), atol=1e-4, rtol=1e-4)
    cosines = sum(
        one @ one.mT * component.weight / 16 for one, component in zip(alone, components, strict=True)
    )
    torch.testing.assert_close(unit(got) @ unit(got).mT, cosines, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "size", "stride"), [(TINY, 96, 8), (TINY, 64, 5), ("test_vit3", 64, 4)])
def test_overlapping_patches_are_those_of_shifted_images(
    timm: Any, random_state: State, name: str, size: int, stride: int
) -> None:
    state, image = random_state(name, size), photo_batch(size)
    got = features_of(spec(model=name, stride=stride), state, image)
    vit = plain_vit(timm, name, size, state)
    patch = vit.patch_embed.patch_size[0]
    steps = range(0, size - patch + 1, stride)
    kernel, bias = vit.patch_embed.proj.weight, vit.patch_embed.proj.bias
    crops = [image[:, :, y : y + patch, x : x + patch] for y in steps for x in steps]
    embedded = torch.stack([(crop[:, None] * kernel).sum((2, 3, 4)) + bias for crop in crops], 1)
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    position = resample_position_embedding(state["pos_embed"], prefix, (len(steps), len(steps)))
    vit.patch_embed, vit.dynamic_img_size = torch.nn.Identity(), False
    vit.pos_embed = torch.nn.Parameter(position)
    expected = oracle(vit, embedded, "key", -1)
    assert expected.std() > 1e-2, "the reference is near-constant"
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


def test_a_stride_of_whole_patches_is_none(random_state: State) -> None:
    checked = check_spec(spec(stride=16), 96)
    assert checked == check_spec(spec(), 96)
    assert checked.stride is None


@pytest.mark.parametrize("join", ["mean", "concat"])
@pytest.mark.parametrize("scales", [(1.0, 0.5), (2.0, 1.0, 0.7), (0.5,)])
def test_scales_are_images_of_other_sizes_brought_to_one_grid(
    random_state: State, scales: tuple[float, ...], join: str
) -> None:
    state, image = random_state(TINY, 96), photo_batch(96)
    got = features_of(spec(scales=scales, join=join), state, image)
    expected = []
    for scale in scales:
        side = round(96 * scale / 16) * 16
        resized = functional.interpolate(image, (side, side), mode="bilinear", antialias=True)
        features = features_of(spec(), state, resized)
        grid = features.mT.unflatten(-1, (side // 16, side // 16))
        grid = functional.interpolate(grid, (6, 6), mode="bilinear", antialias=True)
        expected.append(grid.flatten(2).mT)
    if len(scales) == 1:
        joined = expected[0]
    elif join == "mean":
        joined = torch.stack([unit(one) for one in expected]).mean(0)
    else:
        joined = unit(torch.cat([unit(one) for one in expected], -1))
    torch.testing.assert_close(got, joined, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (TINY, {"qk_norm": True}),
        (TINY, {"scale_attn_norm": True}),
        ("eva02_tiny_patch14_224", {"depth": 3, "embed_dim": 64, "num_heads": 4}),  # timm's own rotations
    ],
)
def test_attention_of_blocks_that_are_not_plain(
    timm: Any, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]
) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **change))
    size = 4 * timm.create_model(name, num_classes=0).patch_embed.patch_size[0]
    vit = timm.create_model(name, num_classes=0, img_size=size).eval()
    torch.manual_seed(0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 1.0)
    got = features_of(spec(Component("attention", 2), model=name), vit.state_dict(), photo_batch(size))
    expected = attention_oracle(vit, photo_batch(size), 2)
    assert expected.std() > 0.1 * expected.mean(), "the reference is near-constant"
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-3)


def test_attention_of_a_small_image_comes_to_the_grid(random_state: State) -> None:
    state, image = random_state(TINY, 96), photo_batch(96)
    got = features_of(spec(Component("attention", 2), scales=(0.5,)), state, image)
    small = functional.interpolate(image, (48, 48), mode="bilinear", antialias=True)
    grid = features_of(spec(Component("attention", 2)), state, small).mT.unflatten(-1, (3, 3))
    grid = functional.interpolate(grid, (6, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(got, grid.flatten(2).mT, atol=1e-5, rtol=1e-3)


SETS = {
    "key": FeatureSpec((Component("key", 4),)),
    "semantic": FeatureSpec((Component("token", 2),)),
    "cls": FeatureSpec((Component("cls", 2),), scales=(0.5,)),
    "attention": FeatureSpec((Component("attention", 3),)),
    "both": FeatureSpec((Component("key", 4), Component("token", 2, 3.0)), scales=(1.0, 0.5), log_bins=1),
}


def test_sets_of_one_pass_are_those_of_a_pass_each(random_state: State) -> None:
    state, image = random_state(TINY, 96), photo_batch(96)
    together = build_extractor(ViTSpec(TINY, SETS), dict(state), 96)
    heads = together.vit.blocks[3].attn.heads
    widths = {"key": 64, "semantic": 64, "cls": 64, "attention": heads, "both": 64 * 2 * 9}
    assert together.dims == widths
    with torch.inference_mode():
        got = dict(zip(together.spec.features, together(image), strict=True))
        for name, one in SETS.items():
            (alone,) = build_extractor(ViTSpec(TINY, {name: one}), dict(state), 96)(image)
            assert alone.std() > 1e-3, "the reference is near-constant"
            torch.testing.assert_close(got[name], alone)
    assert got["cls"].shape == (2, 1, 64)
    assert got["attention"].shape == (2, 36, heads)
    torch.testing.assert_close(got["attention"].sum(1), torch.ones(2, heads))
    assert got["both"].shape == (2, 36, 64 * 2 * 9)


def test_no_block_runs_twice_or_for_nothing(random_state: State) -> None:
    sets = {name: SETS[name] for name in ("key", "semantic")} | {"cls": FeatureSpec((Component("cls", 3),))}
    extractor = build_extractor(ViTSpec(TINY, sets), random_state(), 96)
    ran = []
    for i, block in enumerate(extractor.vit.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.inference_mode():
        extractor(photo_batch(96))
    assert ran == [0, 1, 2, 3], "keys of layer 4 need the blocks before it, and cls of layer 3 no more"


def test_scales_share_their_weights(random_state: State) -> None:
    extractor = build_extractor(spec(scales=(1.0, 0.5)), random_state(), 96)
    single = build_extractor(spec(), random_state(), 96)
    counts = [sum(p.numel() for p in one.parameters()) for one in (extractor, single)]
    assert counts[0] - counts[1] == (9 + 1) * 64  # the smaller grid's position embedding alone


@pytest.mark.parametrize("name", [TINY, "vit_small_patch14_dinov2"])
def test_simpler_blocks_are_the_same_function(timm: Any, random_state: State, name: str) -> None:
    size = MODELS[name][0]
    vit, image = plain_vit(timm, name, size, random_state(name, size)), photo_batch(size)
    with torch.inference_mode():
        before = vit.forward_features(image)
        simplify_blocks(vit)
        after = vit.forward_features(image)
    assert all(type(block.attn).__name__ == "_PlainAttention" for block in vit.blocks)
    assert not any(hasattr(block.ls1, "gamma") or hasattr(block.ls2, "gamma") for block in vit.blocks)
    torch.testing.assert_close(after, before, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("change", [{"qk_norm": True}, {"scale_attn_norm": True}, {"proj_bias": False}])
def test_attention_that_is_not_plain_keeps_its_function(timm: Any, change: dict[str, bool]) -> None:
    torch.manual_seed(0)
    vit = timm.create_model(TINY, num_classes=0, img_size=64, init_values=0.1, **change).eval()
    image = photo_batch(64)
    with torch.inference_mode():
        before = vit.forward_features(image)
        simplify_blocks(vit)
        torch.testing.assert_close(vit.forward_features(image), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("grid_hw", [(4, 4), (7, 7), (5, 3)])
def test_resampling_is_torch_bicubic(prefix: int, grid_hw: tuple[int, int]) -> None:
    embedding = torch.randn(1, prefix + 25, 6, generator=torch.Generator().manual_seed(0))
    got = resample_position_embedding(embedding, prefix, grid_hw)
    grid = embedding[0, prefix:].T.reshape(1, 6, 5, 5)
    expected = functional.interpolate(grid, grid_hw, mode="bicubic", align_corners=False)[0].flatten(1).T
    assert torch.equal(got[:, :prefix], embedding[:, :prefix])
    torch.testing.assert_close(got[0, prefix:], expected)


def test_resampling_to_the_same_grid_changes_nothing() -> None:
    embedding = torch.randn(1, 26, 6)
    assert resample_position_embedding(embedding, 1, (5, 5)) is embedding


def test_an_embedding_of_another_size_is_resampled_when_built(random_state: State) -> None:
    state = random_state(TINY, 96)
    small = build_extractor(spec(Component("key", 0)), dict(state), 64)
    expected = resample_position_embedding(state["pos_embed"], 1, (4, 4))
    assert torch.equal(small.vit.pos_embed, expected)
    assert state["pos_embed"].shape[1] == 1 + 36, "the caller's state dict was changed"


@pytest.mark.parametrize(
    ("wrong", "size", "expected"),
    [
        (spec(model="nonsense"), 64, "[model] timm has no model 'nonsense'"),
        (spec(model="vit_tiny_patch17"), 64, "near it: vit_tiny_patch16_"),
        (spec(model="resnet18"), 64, "[model] resnet18 is no plain ViT"),
        (spec(model="beit_base_patch16_224"), 224, "is no plain ViT"),
        (spec(model="mixer_s32_224"), 224, "is no plain ViT"),
        (
            spec(Component("nose")),
            64,
            "[features] must be of query, key, value, token, cls, attention, got 'nose'",
        ),
        (spec(Component("key", 6)), 64, "[features] test_vit has layers 0 to 5, got 6"),
        (spec(Component("key", -7)), 64, "layers 0 to 5, got -7"),
        (spec(Component("key", -1, 0.0)), 64, "[features] weights must be above 0, got 0 for key"),
        (spec(Component("key", -1, float("nan"))), 64, "weights must be above 0, got nan"),
        (ViTSpec(TINY, {"none": FeatureSpec(())}), 64, "at least one, and each only once a layer, got none"),
        (spec(Component("key", 5), Component()), 64, "each only once a layer, got key@5 + key@5"),
        (ViTSpec(TINY, {}), 64, "[features] at least one set must be given"),
        (ViTSpec(TINY, {"image": FeatureSpec()}), 64, "and not image, got 'image'"),
        (ViTSpec(TINY, {"a b": FeatureSpec()}), 64, "[features] names are letters, digits, _, . and -"),
        (spec(Component("cls"), Component()), 64, "cannot be joined with what is one a patch; make a set"),
        (spec(Component("cls"), scales=(1, 0.5)), 64, "class tokens have one scale and no log bins"),
        (spec(Component("cls"), log_bins=1), 64, "class tokens have one scale and no log bins"),
        (spec(Component("cls"), model="test_vit3"), 64, "test_vit3 has no class token, so there is no cls"),
        (spec(Component("attention"), model="test_vit3"), 64, "no class token, so there is no attention"),
        (spec(Component("attention"), Component()), 64, "attention cannot be joined with anything"),
        (spec(Component("attention"), Component("attention", 1)), 64, "attention cannot be joined with any"),
        (spec(Component("attention"), Component("cls")), 64, "attention cannot be joined with anything"),
        (spec(Component("attention"), scales=(1, 0.5)), 64, "attention has one scale and no log bins"),
        (spec(Component("attention"), log_bins=1), 64, "attention has one scale and no log bins"),
        (spec(stride=0), 64, "[stride] must be 1 to 16, the side of test_vit's patches, got 0"),
        (spec(stride=17), 64, "[stride] must be 1 to 16"),
        (spec(stride=1), 160, "an image of 160 pixels has 21,025 patches, the limit is 16,384"),
        (spec(scales=()), 64, "[scales] must be above 0, got none"),
        (spec(scales=(1, -1)), 64, "[scales] must be above 0, got 1, -1"),
        (spec(scales=(1, 1.1)), 64, "different sizes, 1, 1.1 of 64 pixels are images of 64, 64"),
        (spec(scales=(200,)), 64, "[scales] must give images of at most 8192 pixels, got 12800"),
        (spec(scales=(1, 40)), 64, "an image of 2560 pixels has 25,600 patches"),
        (spec(join="sum"), 64, '[join] must be one of "mean", "concat", got \'sum\''),
        (spec(log_bins=4), 64, "[log-bins] must be 0 to 3 rings, got 4"),
        (spec(), 65, "multiple of test_vit's patches of 16 pixels, got 65; try 64"),
        (spec(), 7, "got 7; try 16"),
    ],
)
@pytest.mark.usefixtures("timm")
def test_a_wrong_option_is_named(wrong: ViTSpec, size: int, expected: str) -> None:
    with pytest.raises(OptionError) as raised:
        build_extractor(wrong, {}, size)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def drop(state: dict[str, Any]) -> None:
    del state["blocks.2.mlp.fc1.weight"]


def narrow(state: dict[str, Any]) -> None:
    state["blocks.2.mlp.fc1.weight"] = torch.zeros(2, 2)


def add(state: dict[str, Any]) -> None:
    state["decoder.weight"] = torch.zeros(2)


def crop(state: dict[str, Any]) -> None:
    state["pos_embed"] = state["pos_embed"][:, :-1]


def flatten(state: dict[str, Any]) -> None:
    state["pos_embed"] = state["pos_embed"][0]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop, "blocks.2.mlp.fc1.weight"),
        (narrow, "blocks.2.mlp.fc1.weight"),
        (add, "decoder.weight"),
        (crop, "pos_embed"),
        (flatten, "pos_embed"),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor(
    random_state: State, damage: Callable[[dict[str, Any]], None], named: str
) -> None:
    state = random_state()
    damage(state)
    with pytest.raises(ExportError, match=f"the weights do not fit test_vit.*{named}") as raised:
        build_extractor(spec(), state, 64)
    assert "\n" not in str(raised.value)


def test_classifier_and_mask_token_are_ignored(random_state: State) -> None:
    extra = {"head.weight": torch.zeros(2), "fc_norm.bias": torch.zeros(2), "mask_token": torch.zeros(1)}
    build_extractor(spec(), {**random_state(), **extra}, 64)
