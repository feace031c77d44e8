"""Which features are taken from a ViT: activations, several named sets of them, and what can be asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from patchcut.checks import check_choice
from patchcut.errors import OptionError

from patchcut_export.backbones.descriptors import Axis
from patchcut_export.backbones.timm_models import check_vit

FACETS = ("query", "key", "value", "token", "cls", "attention")
JOINS = ("mean", "concat")
MAX_SIZE = 8192
MAX_PATCHES = 16_384  # their affinity alone takes 1 GiB
MAX_LOG_BINS = 3

# Each set is an output of the graph, whose input is called "image".
_SET_NAME = re.compile(r"(?!image$)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Component:
    """One activation of a ViT.

    Attributes:
        facet: "query", "key" or "value" of a block's attention without their bias; "token", the block's
            output after the final norm; "cls", that of the class token; "attention", how much the class token
            attends to each patch in each head of a block, which sums to 1 over the patches.
        layer: index of the block, negative from the end.
        weight: its cosine's share of the features' cosine, beside those of other components.
    """

    facet: str = "key"
    layer: int = -1
    weight: float = 1.0


@dataclass(frozen=True)
class FeatureSpec:
    """One feature set; `patchcut.bundle.FeatureSetSpec` says how its components and scales are joined.

    Attributes:
        components: the activations: of patches, or class tokens alone.
        scales: sides of the images that are looked at, each times the input's.
        join: "mean" or "concat" of the scales.
        log_bins: rings of neighbours around each patch, 0 for none.
        cells: along a side of a patch, of what is finer than the patches.
    """

    components: tuple[Component, ...] = (Component(),)
    scales: tuple[float, ...] = (1.0,)
    join: str = "mean"
    log_bins: int = 0
    cells: int = 1

    @property
    def of_image(self) -> bool:
        """Whether it has one row for the whole image, not one a patch."""
        return any(one.facet == "cls" for one in self.components)

    @property
    def of_attention(self) -> bool:
        """Whether it is the attention of the class token, a number for each head."""
        return any(one.facet == "attention" for one in self.components)

    @property
    def dims(self) -> int:
        """Its dimensions, in widths of the ViT, or in heads where it is attention."""
        scales = len(self.scales) if self.join == "concat" else 1
        return len(self.components) * scales * (1 + 8 * self.log_bins)


def _only_keys() -> dict[str, FeatureSpec]:
    return {"key": FeatureSpec()}


@dataclass(frozen=True)
class ViTSpec:
    """A ViT, and the feature sets that one pass of it gives.

    Attributes:
        model: timm model name.
        features: the sets by name; the first is the default.
        stride: pixels from one patch to the next, None for the patch size.
    """

    model: str = "vit_small_patch14_dinov2"
    features: Mapping[str, FeatureSpec] = field(default_factory=_only_keys)
    stride: int | None = None


def check_spec(spec: ViTSpec, image_size: int) -> ViTSpec:
    """The spec in one spelling, if there is such a model for the size.

    Layers are counted from the front, weights sum to 1, the stride of patches that touch is None.

    Raises:
        OptionError: naming what there is not.
    """
    vit = check_vit(spec.model, image_size=image_size)
    patch: int = vit.patch_embed.patch_size[0]
    if not spec.features:
        raise OptionError("features", "at least one set must be given")
    for name in spec.features:
        if not _SET_NAME.fullmatch(name):
            problem = f"names are letters, digits, _, . and -, and not image, got {name!r}"
            raise OptionError("features", problem)
    features = {name: _check_set(one, spec.model, vit) for name, one in spec.features.items()}
    stride = None if spec.stride == patch else spec.stride
    if stride is not None and not 1 <= stride <= patch:
        problem = f"must be 1 to {patch}, the side of {spec.model}'s patches, got {stride}"
        raise OptionError("stride", problem)
    for one in features.values():
        for side in _check_scales(one, image_size, patch):
            count = Axis.of_patches(side, patch, stride or patch).count ** 2
            if count > MAX_PATCHES:
                problem = f"an image of {side} pixels has {count:,} patches, the limit is {MAX_PATCHES:,}"
                raise OptionError("size", problem, "choose a smaller size or a larger stride")
    return ViTSpec(spec.model, features, stride)


def scaled_side(image_size: int, scale: float, patch: int) -> int:
    """Side in pixels of the image at a scale, in whole patches, the input's own for 1."""
    return max(1, round(image_size * scale / patch)) * patch


def _check_set(spec: FeatureSpec, model: str, vit: Any) -> FeatureSpec:
    """The set in one spelling, but for its scales."""
    spec = replace(spec, components=_check_components(spec, model, len(vit.blocks)))
    if not 0 <= spec.log_bins <= MAX_LOG_BINS:
        raise OptionError("log-bins", f"must be 0 to {MAX_LOG_BINS} rings, got {spec.log_bins}")
    check_choice("join", spec.join, JOINS)
    if not (spec.of_image or spec.of_attention):
        return spec
    if vit.cls_token is None:
        facet = "attention" if spec.of_attention else "cls"
        problem = f"{model} has no class token, so there is no {facet}"
        raise OptionError("features", problem, "ask for token, and average it" if spec.of_image else "")
    if spec.of_attention:
        return _check_attention(spec)
    if any(one.facet != "cls" for one in spec.components):
        problem = "class tokens, one an image, cannot be joined with what is one a patch"
        raise OptionError("features", problem, "make a set of them")
    if len(spec.scales) > 1 or spec.log_bins:
        raise OptionError("features", "class tokens have one scale and no log bins")
    return spec


def _check_attention(spec: FeatureSpec) -> FeatureSpec:
    """The set of attention. What joins makes unit length, and its length is what attention says."""
    if len(spec.components) > 1:
        problem = "attention cannot be joined with anything: joined features are made unit length"
        raise OptionError("features", problem, "make a set of it")
    if len(spec.scales) > 1 or spec.log_bins:
        raise OptionError("features", "attention has one scale and no log bins")
    return spec


def _check_components(spec: FeatureSpec, model: str, depth: int) -> tuple[Component, ...]:
    """The set's components with layers from the front and weights that sum to 1."""
    for one in spec.components:
        if one.facet not in FACETS:
            raise OptionError("features", f"must be of {', '.join(FACETS)}, got {one.facet!r}")
        if not -depth <= one.layer < depth:
            raise OptionError("features", f"{model} has layers 0 to {depth - 1}, got {one.layer}")
        if not 0 < one.weight < math.inf:
            raise OptionError("features", f"weights must be above 0, got {one.weight:g} for {one.facet}")
    kinds = [(one.facet, range(depth)[one.layer]) for one in spec.components]
    if not kinds or len(set(kinds)) != len(kinds):
        given = " + ".join(f"{facet}@{layer}" for facet, layer in kinds) or "none"
        raise OptionError("features", f"a set has at least one, and each only once a layer, got {given}")
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
