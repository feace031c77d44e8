"""A timm ViT cut down to what patchcut needs: an image in, feature sets out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from patchcut_export.backbones.blocks import (
    ClassAttention,
    attention_projection,
    position_rotation,
    simplify_blocks,
)
from patchcut_export.backbones.descriptors import (
    Axis,
    Resample,
    join_components,
    join_scales,
    log_bins,
    to_map,
    to_rows,
)
from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec, check_spec, scaled_side
from patchcut_export.backbones.timm_models import check_vit, create_vit
from patchcut_export.backbones.weights import StateDict
from patchcut_export.errors import ExportError

# What comes after the blocks in classifiers and towers of pairs, and is not needed.
_HEADS = ("head.", "fc_norm.", "attn_pool.", "mask_token", "logit_scale", "logit_bias")
_NAMED = 3  # tensors that an error names

# What is read off a ViT: a facet of a block.
_Reading = tuple[str, int]


class Extracting(nn.Module):
    """Maps images [b, 3, S, S] float32, normalised, to feature sets: what a bundle's graphs are made of.

    Attributes:
        spec: the sets, in the order in which they come out.
        patch_size: pixels of a patch.
        grid_hw: rows and columns of the patch grid.
    """

    spec: ViTSpec
    patch_size: int
    grid_hw: tuple[int, int]

    @property
    def dims(self) -> dict[str, int]:
        """d of each set."""
        raise NotImplementedError


class FeatureExtractor(Extracting):
    """Maps images [b, 3, S, S] float32, normalised, to each feature set of the spec, in its order.

    A set is [b, n, d] float32, one row a patch, or [b, 1, d] where it is of class tokens; d is the number of
    heads where it is the class token's attention. Queries, keys and
    values are returned without their bias: it is the same for every patch, and where it is large it makes
    every cosine near 1. What several sets read is computed once; blocks after the last one that is needed,
    and what it does after its attention's projections, are left out.

    Args:
        vits: the ViT for each side of the images that are looked at, on the same weights, before
            `simplify_blocks`.
        spec: as `check_spec` returns it.
        image_size: S.
    """

    def __init__(self, vits: Mapping[int, Any], spec: ViTSpec, image_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.image_size = image_size
        self.vit, *others = vits.values()
        self.others = nn.ModuleList(others)
        self._sides = list(vits)
        patch: int = self.vit.patch_embed.patch_size[0]
        stride = spec.stride or patch
        self.patch_size = patch
        self._readings = _readings(spec.features.values())
        self._heads = [int(block.attn.num_heads) for block in self.vit.blocks]
        for i, reading in enumerate(self._readings):
            norm, projection = _modules(self.vit, *reading)
            self.add_module(_numbered("norm", i), norm)
            self.add_module(_numbered("projection", i), projection)
        grid = Axis.of_patches(image_size, patch, stride)
        self.grid_hw = (grid.count, grid.count)
        self.resizes, self.to_grid = nn.ModuleList(), nn.ModuleList()
        self.rotations = nn.ModuleList()
        for vit, side in zip(vits.values(), self._sides, strict=True):
            same = side == image_size
            pixels = Axis.of_pixels(image_size), Axis.of_pixels(side)
            self.resizes.append(nn.Identity() if same else Resample(*pixels))
            its_grid = Axis.of_patches(side, patch, stride)
            rotation = position_rotation(vit, (its_grid.count, its_grid.count))
            self.rotations.append(nn.Identity() if rotation is None else rotation)
            self.to_grid.append(nn.Identity() if same else _ResampleRows(its_grid, grid))

    @property
    def dims(self) -> dict[str, int]:
        """d of each set."""
        return {name: self._width(one) * one.dims for name, one in self.spec.features.items()}

    def _width(self, spec: FeatureSpec) -> int:
        """d of one component of a set."""
        return self._heads[spec.components[0].layer] if spec.of_attention else int(self.vit.embed_dim)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        read = [self._read_side(i, image) for i in range(len(self._sides))]
        return tuple(self._join(one, read) for one in self.spec.features.values())

    def _read_side(self, i: int, image: torch.Tensor) -> dict[_Reading, torch.Tensor]:
        """What the sets read of the image at one side, [b, n or 1, width] each, on that side's own grid."""
        vit = [self.vit, *self.others][i]
        wanted = self._wanted(self._sides[i])
        tokens = vit._pos_embed(vit.patch_embed(self.resizes[i](image)))
        tokens = vit.norm_pre(tokens[0] if isinstance(tokens, tuple) else tokens)
        rotated = not isinstance(self.rotations[i], nn.Identity)
        read: dict[_Reading, torch.Tensor] = {}
        for depth in range(max(map(_depth, wanted)) + 1):
            if depth > 0:
                rope = {"rope": self.rotations[i](depth - 1)} if rotated else {}
                tokens = vit.blocks[depth - 1](tokens, **rope)
            for one in wanted:
                if _depth(one) == depth:
                    rotation = self.rotations[i](depth) if rotated and one[0] == "attention" else None
                    read[one] = self._read(one, tokens, rotation)
        return read

    def _wanted(self, side: int) -> list[_Reading]:
        """What is read of the image at a side."""
        sets = [one for one in self.spec.features.values() if side in self._sides_of(one)]
        return _readings(sets)

    def _sides_of(self, spec: FeatureSpec) -> list[int]:
        return [scaled_side(self.image_size, scale, self.patch_size) for scale in spec.scales]

    def _read(self, reading: _Reading, tokens: torch.Tensor, rotation: Any) -> torch.Tensor:
        """[b, n or 1, width] of the tokens at a reading's depth; `rotation` is that of the block's keys."""
        i = self._readings.index(reading)
        norm, projection = (self.get_submodule(_numbered(name, i)) for name in ("norm", "projection"))
        prefix = self.vit.num_prefix_tokens
        whole, patches = tokens[:, :1], tokens[:, prefix:]
        features: torch.Tensor
        if reading[0] == "attention":
            features = projection(norm(whole), norm(patches), rotation)
        else:
            features = projection(norm(whole if reading[0] == "cls" else patches))
        return features

    def _join(self, spec: FeatureSpec, read: Sequence[Mapping[_Reading, torch.Tensor]]) -> torch.Tensor:
        """A set [b, n or 1, d] of what was read at each side."""
        scales = []
        for side in self._sides_of(spec):
            i = self._sides.index(side)
            one = _join_parts(spec.components, read[i])
            scales.append(one if spec.of_image else self.to_grid[i](one))
        features = scales[0] if len(scales) == 1 else join_scales(scales, spec.join)
        return log_bins(features, spec.log_bins) if spec.log_bins else features


def build_extractor(spec: ViTSpec, state: StateDict, image_size: int) -> FeatureExtractor:
    """The feature extractor of a spec, for square images of one size, with the position embedding resampled.

    Raises:
        OptionError: as `check_spec` does.
        ExportError: on weights that do not fit.
    """
    spec = check_spec(spec, image_size)
    patch = check_vit(spec.model, image_size=image_size).patch_embed.patch_size[0]
    scales = [scale for one in spec.features.values() for scale in one.scales]
    sides = dict.fromkeys(scaled_side(image_size, scale, patch) for scale in scales)
    vits = {side: _load_vit(spec, state, side) for side in sides}
    first, *others = vits.values()
    for other in others:
        _share_weights(first, other)
    extractor = FeatureExtractor(vits, spec, image_size).eval()
    simplify_blocks(first)
    return extractor


def _readings(sets: Iterable[FeatureSpec]) -> list[_Reading]:
    """What the sets read, each once."""
    return list(dict.fromkeys((one.facet, one.layer) for spec in sets for one in spec.components))


def _depth(reading: _Reading) -> int:
    """How many blocks come before it."""
    facet, layer = reading
    return layer + (facet in ("token", "cls"))


def _join_parts(components: Sequence[Component], read: Mapping[_Reading, torch.Tensor]) -> torch.Tensor:
    parts = [read[one.facet, one.layer] for one in components]
    return parts[0] if len(parts) == 1 else join_components(parts, [one.weight for one in components])


def _load_vit(spec: ViTSpec, state: StateDict, side: int) -> Any:
    """The ViT with its weights, for images of one side, with patches at the spec's stride."""
    vit: Any = create_vit(spec.model, image_size=side)
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    expected = vit.state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in expected or not _is_head(name)}
    embedding = kept.get("pos_embed") if "pos_embed" in expected else None
    if embedding is not None and embedding.shape[-1:] == expected["pos_embed"].shape[-1:]:
        _check_position_embedding(embedding, prefix, spec.model)
        kept["pos_embed"] = resample_position_embedding(embedding, prefix, vit.patch_embed.grid_size)
    if different := _tensors_that_differ(kept, expected):
        more = len(different) - _NAMED
        listed = "; ".join(different[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise _misfit(spec.model, listed)
    vit.load_state_dict({name: tensor for name, tensor in kept.items() if name in expected}, strict=False)
    if spec.stride is not None:
        # As Amir et al. (2112.05814) make patches overlap: the same embedding on a denser grid.
        count = Axis.of_patches(side, vit.patch_embed.patch_size[0], spec.stride).count
        vit.patch_embed.proj.stride = (spec.stride, spec.stride)
        if embedding is not None:
            vit.pos_embed = nn.Parameter(resample_position_embedding(embedding, prefix, (count, count)))
    return vit


def _tensors_that_differ(state: StateDict, expected: StateDict) -> list[str]:
    """What is missing, of another shape, or of no place in the model, in the model's order; for people."""
    different = []
    for name, tensor in expected.items():
        if name not in state:
            if not _is_head(name):
                different.append(f"{name} {_shape(tensor)} is missing")
        elif state[name].shape != tensor.shape:
            different.append(f"{name} is {_shape(state[name])}, not {_shape(tensor)}")
    return different + [
        f"{name} {_shape(state[name])} has no place" for name in state if name not in expected
    ]


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _share_weights(first: Any, other: Any) -> None:
    """Gives `other` all weights of `first` but those of positions, which are of its own size."""
    for name, child in first.named_children():
        if name not in ("patch_embed", "rope"):
            setattr(other, name, child)
    for name, child in first.patch_embed.named_children():
        setattr(other.patch_embed, name, child)
    for name, parameter in first.named_parameters(recurse=False):
        if name != "pos_embed":
            setattr(other, name, parameter)


def _modules(vit: Any, facet: str, layer: int) -> tuple[nn.Module, nn.Module]:
    """The norm and the projection that read a facet of a block off the tokens."""
    if facet in ("token", "cls"):
        return vit.norm, nn.Identity()
    block = vit.blocks[layer]
    if facet == "attention":
        return block.norm1, ClassAttention(block.attn, vit.num_prefix_tokens)
    return block.norm1, attention_projection(block.attn, facet, bias=False)


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
    return ExportError("weights", problem, "name the backbone that they belong to")


def _is_head(name: str) -> bool:
    return name.startswith(_HEADS)
