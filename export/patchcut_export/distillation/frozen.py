"""A student that keeps its teacher's backbone as it is, and learns a mask decoder alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from patchcut.bundle import BackboneSpec
from patchcut.errors import OptionError

from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.vit import build_extractor
from patchcut_export.backbones.weights import StateDict
from patchcut_export.distillation.decoder import CELLS, MaskDecoder
from patchcut_export.distillation.student import MASK, Decoding, Features, StudentSpec


class FrozenStudent(Decoding):
    """The feature sets of a ViT, which does not change, and the mask that a decoder reads off the first.

    Args:
        model: timm's name.
        image_size: S.
        sets: what is taken from the ViT, by name.
        weights: of the ViT, under timm's names.
    Raises:
        OptionError: there is no such model, or it does not fit the size.
        ExportError: the weights do not fit.
    """

    def __init__(
        self, model: str, image_size: int, sets: Mapping[str, FeatureSpec], weights: StateDict
    ) -> None:
        super().__init__()
        self._weights = dict(weights)
        self.trunk = build_extractor(ViTSpec(model, sets), self._weights, image_size).requires_grad_(False)
        self.image_size = image_size
        self.kept = self.trunk.spec
        self.sets = {name: (self.trunk.dims[name], one.of_image) for name, one in self.kept.features.items()}
        self.patch_size, self.grid_hw = self.trunk.patch_size, self.trunk.grid_hw
        first = next(iter(self.sets))
        self.decoder = MaskDecoder(self.sets[first][0])
        layer = max(one.layer for one in self.kept.features[first].components)
        mask = FeatureSpec((Component(MASK, layer),), cells=CELLS)
        self.spec = ViTSpec(model, {**self.kept.features, MASK: mask})

    def read(self, image: torch.Tensor) -> tuple[Features, torch.Tensor]:
        with torch.no_grad():
            sets = dict(zip(self.sets, self.trunk(image), strict=True))
        return sets, next(iter(sets.values()))

    def at_size(self, image_size: int) -> FrozenStudent:
        other = FrozenStudent(self.spec.model, image_size, self.kept.features, self._weights)
        other.decoder.load_state_dict(self.decoder.state_dict())
        return other.eval()


def frozen_student(
    spec: StudentSpec, image_size: int, backbone: BackboneSpec, weights: StateDict | None
) -> FrozenStudent:
    """A student on the backbone of a teacher.

    Args:
        spec: what was asked for.
        image_size: S.
        backbone: the teacher's.
        weights: the teacher's, as they were before they went into 8 bits.
    Raises:
        OptionError: `spec` is another model, or there are no weights.
    """
    if str(spec) != backbone.model:
        problem = f"the frozen backbone is {backbone.model}, got {spec}"
        raise OptionError("student", problem, f"--student {backbone.model}")
    if weights is None:
        problem = "must name the weights of the backbone that is frozen"
        raise OptionError("start", problem, "--start NAME, as `patchcut export backbone` took it")
    sets = {
        name: FeatureSpec(
            tuple(Component(one.facet, one.layer, one.weight) for one in kept.components),
            tuple(kept.scales),
            kept.join,
            kept.log_bins,
        )
        for name, kept in backbone.features.items()
        if not kept.is_assignment
    }
    return FrozenStudent(backbone.model, image_size, sets, weights)
