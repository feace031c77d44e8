"""A timm ViT cut down to what patchcut needs: an image in, patch features out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from patchcut.errors import OptionError
from torch import nn
from torch.nn import functional

from patchcut_export.errors import ExportError
from patchcut_export.timm_models import check_vit, create_vit
from patchcut_export.weights import StateDict

FACETS = ("query", "key", "value", "token")


@dataclass(frozen=True)
class FeatureSpec:
    """Which ViT, and which of its activations are the features.

    Attributes:
        name: timm model name.
        facet: "query", "key" or "value" of a block's attention without their bias, or "token", the block's
            output after the final norm.
        layer: index of the block, negative from the end.
    """

    name: str = "vit_small_patch14_dinov2"
    facet: str = "key"
    layer: int = -1


class FeatureExtractor(nn.Module):
    """Maps images [b, 3, S, S] float32, normalised, to features [b, n, d] float32, one row a patch.

    Queries, keys and values are returned without their bias: it is the same for every patch, and where it is
    large it makes every cosine near 1. Blocks after the chosen one, and what the chosen one does after its
    attention's projections, are left out.
    """

    def __init__(self, vit: Any, facet: str, layer: int) -> None:
        super().__init__()
        blocks = vit.blocks
        self.vit = vit
        self.facet = facet
        self.layer = layer = range(len(blocks))[layer]
        self.depth = layer + (facet == "token")
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.feature_dim: int = vit.embed_dim
        if facet != "token":
            self.norm = blocks[layer].norm1
            self.projection = _bias_free_part(blocks[layer].attn, FACETS.index(facet))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        vit = self.vit
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))
        for block in vit.blocks[: self.depth]:
            tokens = block(tokens)
        patches = tokens[:, vit.num_prefix_tokens :]
        features: torch.Tensor
        features = vit.norm(patches) if self.facet == "token" else self.projection(self.norm(patches))
        return features


def build_extractor(spec: FeatureSpec, state: StateDict, image_size: int) -> FeatureExtractor:
    """The feature extractor of a spec, for square images of one size, with the position embedding resampled.

    Raises:
        OptionError: on an unknown name or facet, a size or layer that the model does not have.
        ExportError: on weights that do not fit.
    """
    check_feature(spec, image_size)
    vit: Any = create_vit(spec.name, image_size=image_size)
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    expected = vit.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in expected or not _is_head(name)}
    if "pos_embed" in state:
        _check_position_embedding(state["pos_embed"], prefix, spec.name)
        state["pos_embed"] = resample_position_embedding(
            state["pos_embed"], prefix, vit.patch_embed.grid_size
        )
    try:
        vit.load_state_dict(state, strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise _misfit(spec.name, first) from error
    extractor = FeatureExtractor(vit, spec.facet, spec.layer).eval()
    simplify_blocks(vit)
    return extractor


def check_feature(spec: FeatureSpec, image_size: int) -> int:
    """The layer's index from the front, if there is such a model with such a layer for images of this size.

    Raises:
        OptionError: naming what there is not.
    """
    if spec.facet not in FACETS:
        raise OptionError("facet", f"must be one of {', '.join(FACETS)}, got {spec.facet!r}")
    depth = len(check_vit(spec.name, image_size=image_size).blocks)
    if not -depth <= spec.layer < depth:
        raise OptionError("layer", f"{spec.name} has layers 0 to {depth - 1}, got {spec.layer}")
    return range(depth)[spec.layer]


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
    bare = all(part is None or isinstance(part, nn.Identity) for part in between)
    return bare and type(attention).__name__ == "Attention"


def _check_position_embedding(embedding: torch.Tensor, prefix: int, name: str) -> None:
    """Nothing, if it is [1, prefix + side * side, d]."""
    patches = embedding.shape[1] - prefix if embedding.ndim == 3 and embedding.shape[0] == 1 else 0
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        shape = tuple(embedding.shape)
        raise _misfit(name, f"pos_embed is {shape}, not (1, {prefix} + side * side, d)")


def _misfit(name: str, why: str) -> ExportError:
    what = f"the weights do not fit {name}: {why}"
    return ExportError("weights", what, "name the --model that they belong to")


def _is_head(name: str) -> bool:
    return name.startswith(("head.", "fc_norm.", "mask_token"))


def _bias_free_part(attention: Any, index: int) -> nn.Linear:
    qkv: nn.Linear = attention.qkv
    width = qkv.out_features // 3
    part = nn.Linear(qkv.in_features, width, bias=False)
    part.weight.data = qkv.weight.data[index * width : (index + 1) * width].clone()
    return part
