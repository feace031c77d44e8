"""A timm ViT cut down to what patchcut needs: an image in, patch features out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from patchcut.checks import check_choice
from patchcut.errors import OptionError
from torch import nn
from torch.nn import functional

from patchcut_export.backbones.descriptors import (
    Axis,
    Resample,
    join_components,
    join_scales,
    log_bins,
    to_map,
    to_rows,
)
from patchcut_export.backbones.timm_models import check_vit, create_vit
from patchcut_export.backbones.weights import StateDict
from patchcut_export.errors import ExportError

FACETS = ("query", "key", "value", "token")
JOINS = ("mean", "concat")
MAX_SIZE = 8192
MAX_PATCHES = 16_384  # their affinity alone takes 1 GiB
MAX_LOG_BINS = 3


@dataclass(frozen=True)
class Component:
    """One activation of a ViT.

    Attributes:
        facet: "query", "key" or "value" of a block's attention without their bias, or "token", the block's
            output after the final norm.
        layer: index of the block, negative from the end.
        weight: its cosine's share of the features' cosine, beside those of other components.
    """

    facet: str = "key"
    layer: int = -1
    weight: float = 1.0


@dataclass(frozen=True)
class FeatureSpec:
    """Which ViT, and what of it the features are; `patchcut.bundle.BackboneSpec` says how they are joined.

    Attributes:
        name: timm model name.
        components: the activations.
        stride: pixels from one patch to the next, None for the patch size.
        scales: sides of the images that are looked at, each times the input's.
        join: "mean" or "concat" of the scales.
        log_bins: rings of neighbours around each patch, 0 for none.
    """

    name: str = "vit_small_patch14_dinov2"
    components: tuple[Component, ...] = (Component(),)
    stride: int | None = None
    scales: tuple[float, ...] = (1.0,)
    join: str = "mean"
    log_bins: int = 0


class FeatureExtractor(nn.Module):
    """Maps images [b, 3, S, S] float32, normalised, to features [b, n, d] float32, one row a patch.

    Queries, keys and values are returned without their bias: it is the same for every patch, and where it is
    large it makes every cosine near 1. Blocks after the last one that is needed, and what it does after its
    attention's projections, are left out.

    Args:
        vits: the ViT for each of the spec's scales, on the same weights, before `simplify_blocks`.
        spec: as `check_feature` returns it.
        image_size: S.
    """

    def __init__(self, vits: list[Any], spec: FeatureSpec, image_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.vit, *others = vits
        self.others = nn.ModuleList(others)
        patch: int = self.vit.patch_embed.patch_size[0]
        stride = spec.stride or patch
        self.patch_size = patch
        self._depths = [one.layer + (one.facet == "token") for one in spec.components]
        for i, component in enumerate(spec.components):
            norm, projection = _reading(self.vit, component)
            self.add_module(_numbered("norm", i), norm)
            self.add_module(_numbered("projection", i), projection)
        grid = Axis.of_patches(image_size, patch, stride)
        self.grid_hw = (grid.count, grid.count)
        self.resizes, self.to_grid = nn.ModuleList(), nn.ModuleList()
        for vit in vits:
            side = vit.patch_embed.img_size[0]
            same = side == image_size
            pixels = Axis.of_pixels(image_size), Axis.of_pixels(side)
            self.resizes.append(nn.Identity() if same else Resample(*pixels))
            its_grid = Axis.of_patches(side, patch, stride)
            self.to_grid.append(nn.Identity() if same else _ResampleRows(its_grid, grid))

    @property
    def feature_dim(self) -> int:
        """d."""
        scales = len(self.spec.scales) if self.spec.join == "concat" else 1
        bins = 1 + 8 * self.spec.log_bins
        return int(self.vit.embed_dim) * len(self.spec.components) * scales * bins

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        vits = [self.vit, *self.others]
        scales = [
            to_grid(self._activations(vit, resize(image)))
            for vit, resize, to_grid in zip(vits, self.resizes, self.to_grid, strict=True)
        ]
        features = scales[0] if len(scales) == 1 else join_scales(scales, self.spec.join)
        return log_bins(features, self.spec.log_bins) if self.spec.log_bins else features

    def _activations(self, vit: Any, image: torch.Tensor) -> torch.Tensor:
        """[b, n, d] of one scale, on its own grid."""
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))
        read: dict[int, torch.Tensor] = {}
        for depth in range(max(self._depths) + 1):
            if depth > 0:
                tokens = vit.blocks[depth - 1](tokens)
            read |= {i: self._read(i, tokens) for i, at in enumerate(self._depths) if at == depth}
        components = [read[i] for i in range(len(read))]
        if len(components) == 1:
            return components[0]
        return join_components(components, [one.weight for one in self.spec.components])

    def _read(self, i: int, tokens: torch.Tensor) -> torch.Tensor:
        """Component i [b, n, width] of the tokens at its depth."""
        norm, projection = (self.get_submodule(_numbered(name, i)) for name in ("norm", "projection"))
        features: torch.Tensor = projection(norm(tokens[:, self.vit.num_prefix_tokens :]))
        return features


def build_extractor(spec: FeatureSpec, state: StateDict, image_size: int) -> FeatureExtractor:
    """The feature extractor of a spec, for square images of one size, with the position embedding resampled.

    Raises:
        OptionError: as `check_feature` does.
        ExportError: on weights that do not fit.
    """
    spec = check_feature(spec, image_size)
    patch = check_vit(spec.name, image_size=image_size).patch_embed.patch_size[0]
    sides = [scaled_side(image_size, scale, patch) for scale in spec.scales]
    first, *others = (_load_vit(spec, state, side) for side in sides)
    for other in others:
        _share_weights(first, other)
    extractor = FeatureExtractor([first, *others], spec, image_size).eval()
    simplify_blocks(first)
    return extractor


def check_feature(spec: FeatureSpec, image_size: int) -> FeatureSpec:
    """The spec in one spelling, if there is such a model for the size.

    Layers are counted from the front, weights sum to 1, the stride of patches that touch is None.

    Raises:
        OptionError: naming what there is not.
    """
    vit = check_vit(spec.name, image_size=image_size)
    patch: int = vit.patch_embed.patch_size[0]
    components = _check_components(spec, len(vit.blocks))
    spec = replace(spec, components=components, stride=None if spec.stride == patch else spec.stride)
    if spec.stride is not None and not 1 <= spec.stride <= patch:
        problem = f"must be 1 to {patch}, the side of {spec.name}'s patches, got {spec.stride}"
        raise OptionError("stride", problem)
    if not 0 <= spec.log_bins <= MAX_LOG_BINS:
        raise OptionError("log-bins", f"must be 0 to {MAX_LOG_BINS} rings, got {spec.log_bins}")
    check_choice("join", spec.join, JOINS)
    for side in _check_scales(spec, image_size, patch):
        count = Axis.of_patches(side, patch, spec.stride or patch).count ** 2
        if count > MAX_PATCHES:
            problem = f"an image of {side} pixels has {count:,} patches, the limit is {MAX_PATCHES:,}"
            raise OptionError("size", problem, "choose a smaller size or a larger stride")
    return spec


def scaled_side(image_size: int, scale: float, patch: int) -> int:
    """Side in pixels of the image at a scale, in whole patches, the input's own for 1."""
    return max(1, round(image_size * scale / patch)) * patch


def _check_components(spec: FeatureSpec, depth: int) -> tuple[Component, ...]:
    """The spec's components with layers from the front and weights that sum to 1."""
    for one in spec.components:
        if one.facet not in FACETS:
            raise OptionError("facet", f"must be one of {', '.join(FACETS)}, got {one.facet!r}")
        if not -depth <= one.layer < depth:
            raise OptionError("layer", f"{spec.name} has layers 0 to {depth - 1}, got {one.layer}")
        if not 0 < one.weight < math.inf:
            raise OptionError("facet", f"weights must be above 0, got {one.weight:g} for {one.facet}")
    kinds = [(one.facet, range(depth)[one.layer]) for one in spec.components]
    if not kinds or len(set(kinds)) != len(kinds):
        given = ", ".join(f"{facet} of layer {layer}" for facet, layer in kinds) or "none"
        raise OptionError("facet", f"must be given at least once, and each only once a layer, got {given}")
    total = sum(one.weight for one in spec.components)
    return tuple(
        Component(facet, layer, one.weight / total)
        for (facet, layer), one in zip(kinds, spec.components, strict=True)
    )


def _check_scales(spec: FeatureSpec, image_size: int, patch: int) -> list[int]:
    """The side of the image at each scale."""
    given = ", ".join(f"{scale:g}" for scale in spec.scales) or "none"
    if not spec.scales or not all(0 < scale < math.inf for scale in spec.scales):
        raise OptionError("scales", f"must be above 0, got {given}")
    sides = [scaled_side(image_size, scale, patch) for scale in spec.scales]
    if len(set(sides)) != len(sides):
        came = f"{given} of {image_size} pixels are images of {', '.join(map(str, sides))} pixels"
        raise OptionError("scales", f"must give images of different sizes, {came}")
    if max(sides) > MAX_SIZE:
        raise OptionError("scales", f"must give images of at most {MAX_SIZE} pixels, got {max(sides)}")
    return sides


def _load_vit(spec: FeatureSpec, state: StateDict, side: int) -> Any:
    """The ViT with its weights, for images of one side, with patches at the spec's stride."""
    vit: Any = create_vit(spec.name, image_size=side)
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    expected = vit.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in expected or not _is_head(name)}
    embedding = kept.get("pos_embed")
    if embedding is not None:
        _check_position_embedding(embedding, prefix, spec.name)
        kept["pos_embed"] = resample_position_embedding(embedding, prefix, vit.patch_embed.grid_size)
    try:
        vit.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise _misfit(spec.name, first) from error
    if embedding is not None and spec.stride is not None:
        # As Amir et al. (2112.05814) make patches overlap: the same embedding on a denser grid.
        count = Axis.of_patches(side, vit.patch_embed.patch_size[0], spec.stride).count
        vit.patch_embed.proj.stride = (spec.stride, spec.stride)
        vit.pos_embed = nn.Parameter(resample_position_embedding(embedding, prefix, (count, count)))
    return vit


def _share_weights(first: Any, other: Any) -> None:
    """Gives `other` all weights of `first` but the position embedding, which is of its own size."""
    for name, child in first.named_children():
        if name != "patch_embed":
            setattr(other, name, child)
    for name, child in first.patch_embed.named_children():
        setattr(other.patch_embed, name, child)
    for name, parameter in first.named_parameters(recurse=False):
        if name != "pos_embed":
            setattr(other, name, parameter)


def _reading(vit: Any, component: Component) -> tuple[nn.Module, nn.Module]:
    """The norm and the projection that read a component off the patches' tokens."""
    if component.facet == "token":
        return vit.norm, nn.Identity()
    block = vit.blocks[component.layer]
    return block.norm1, _bias_free_projection(block.attn, component.facet)


def _numbered(name: str, i: int) -> str:
    """`name` for the first, so that graphs of one component have the names and bytes that they always had."""
    return f"{name}_{i}" if i else name


class _ResampleRows(nn.Module):
    """Features [b, n, d] of one square grid on the points of another."""

    def __init__(self, source: Axis, target: Axis) -> None:
        super().__init__()
        self.resample = Resample(source, target)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return to_rows(self.resample(to_map(features)))


def simplify_blocks(vit: Any) -> None:
    """Rewrites a ViT's blocks in place to export to fewer, plainer operators; the function is unchanged.

    LayerScale moves into the linear before it, the attention's scale into the query's weights.
    """
    for block in vit.blocks:
        for scale_name, linear in (("ls1", block.attn.proj), ("ls2", getattr(block.mlp, "fc2", None))):
            gamma = getattr(getattr(block, scale_name, None), "gamma", None)
            if gamma is not None and linear is not None:
                linear.weight.data *= gamma.data[:, None]
                if linear.bias is not None:
                    linear.bias.data *= gamma.data
                setattr(block, scale_name, nn.Identity())
        if _is_plain(block.attn):
            block.attn = _PlainAttention(block.attn)


def resample_position_embedding(
    embedding: torch.Tensor, prefix: int, grid_hw: tuple[int, int]
) -> torch.Tensor:
    """The position embedding [1, prefix + h*w, d] of another grid.

    Bicubic, half-pixel, without antialiasing: what DINOv2 was trained with. timm's own resampling antialiases
    and differs by up to 1.0.
    """
    head, grid = embedding[:, :prefix], embedding[:, prefix:]
    side = math.isqrt(grid.shape[1])
    if (side, side) == tuple(grid_hw):
        return embedding
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=grid_hw, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([head, grid.permute(0, 2, 3, 1).reshape(1, grid_hw[0] * grid_hw[1], -1)], dim=1)


class _PlainAttention(nn.Module):
    """Multi-head self-attention [b, n, d] → [b, n, d] with the scale already in the query's weights."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.qkv: nn.Linear = attention.qkv
        self.proj: nn.Linear = attention.proj
        width = self.qkv.out_features // 3
        self.qkv.weight.data[:width] *= attention.scale
        if self.qkv.bias is not None:
            self.qkv.bias.data[:width] *= attention.scale

    def forward(self, tokens: torch.Tensor, **_: object) -> torch.Tensor:
        count, width = tokens.shape[1], self.proj.in_features
        qkv = self.qkv(tokens).reshape(-1, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = (query @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, count, width))
        return out


def _is_plain(attention: Any) -> bool:
    """Whether the attention is softmax(q k' scale) v and a projection, with nothing between them."""
    between = [getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm", "gate")]
    bare = all(layer is None or isinstance(layer, nn.Identity) for layer in between)
    return bare and type(attention).__name__ == "Attention"


def _check_position_embedding(embedding: torch.Tensor, prefix: int, name: str) -> None:
    """Checks that it is [1, prefix + side * side, d].

    Raises:
        ExportError: it is not.
    """
    patches = embedding.shape[1] - prefix if embedding.ndim == 3 and embedding.shape[0] == 1 else 0
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        shape = tuple(embedding.shape)
        raise _misfit(name, f"pos_embed is {shape}, not (1, {prefix} + side * side, d)")


def _misfit(name: str, why: str) -> ExportError:
    problem = f"the weights do not fit {name}: {why}"
    return ExportError("weights", problem, "name the --model that they belong to")


def _is_head(name: str) -> bool:
    return name.startswith(("head.", "fc_norm.", "mask_token"))


def _bias_free_projection(attention: Any, facet: str) -> nn.Linear:
    index = FACETS.index(facet)
    qkv: nn.Linear = attention.qkv
    width = qkv.out_features // 3
    projection = nn.Linear(qkv.in_features, width, bias=False)
    projection.weight.data = qkv.weight.data[index * width : (index + 1) * width].clone()
    return projection
