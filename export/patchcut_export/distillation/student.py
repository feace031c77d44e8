"""The student: a trunk, the teacher's feature sets read off it, and a mask decoder, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from patchcut.errors import OptionError
from torch import nn
from torch.nn import functional

from patchcut_export.backbones.spec import Component, FeatureSpec, ViTSpec
from patchcut_export.backbones.timm_models import check_vit, create_vit, import_timm
from patchcut_export.backbones.vit import (
    Extracting,
    FeatureExtractor,
    build_extractor,
    resample_position_embedding,
)
from patchcut_export.backbones.weights import StateDict
from patchcut_export.distillation.decoder import CELLS, MaskDecoder
from patchcut_export.distillation.slimming import plain_mlps, shrink_mlps, slim_mlps
from patchcut_export.errors import ExportError

MASK = "mask"
Features = dict[str, torch.Tensor]
# Pixels of a cell of a convolutional trunk's grid, and of the coarser features that it is joined with.
_CONV_PATCH, _CONV_COARSE = 16, 32


@dataclass(frozen=True)
class StudentSpec:
    """What a student is made of.

    Attributes:
        model: timm's name of a ViT, or of a convolutional network.
        layers: of a ViT, the blocks that are kept, rising; None for all.
        mlp: of a ViT, the share of the hidden units of each MLP that is kept.
    """

    model: str
    layers: tuple[int, ...] | None = None
    mlp: float = 1.0

    @classmethod
    def parse(cls, words: str) -> StudentSpec:
        """Reads "MODEL", "MODEL:layers=0,2,4", "MODEL:mlp=0.75" or both.

        Raises:
            OptionError: naming what is wrong with the words.
        Examples:
            >>> from patchcut_export.distillation.student import StudentSpec
            >>> StudentSpec.parse("vit_tiny_patch16_224:layers=0,1,2:mlp=0.5")
            StudentSpec(model='vit_tiny_patch16_224', layers=(0, 1, 2), mlp=0.5)
        """
        model, *rest = words.split(":")
        given = dict(one.partition("=")[::2] for one in rest)
        try:
            layers = (
                tuple(int(word) for word in given.pop("layers").split(",")) if "layers" in given else None
            )
            mlp = float(given.pop("mlp", 1.0))
        except ValueError:
            layers, mlp = (), 1.0
        rising = layers is None or (layers and list(layers) == sorted(set(layers)) and layers[0] >= 0)
        if given or not rising or not 0 < mlp <= 1:
            problem = (
                "must be MODEL, :layers=A,B,... with rising numbers from 0, and :mlp=SHARE up to 1, "
                f"got {words!r}"
            )
            raise OptionError("student", problem, "vit_small_patch14_dinov2:layers=0,2,4:mlp=0.75")
        return cls(model, layers, mlp)

    def __str__(self) -> str:
        layers = f":layers={','.join(map(str, self.layers))}" if self.layers else ""
        return self.model + layers + (f":mlp={self.mlp:g}" if self.mlp < 1 else "")

    @property
    def is_vit(self) -> bool:
        """Whether it is no convolutional network.

        Raises:
            OptionError: timm does not know the model.
        """
        timm = import_timm()
        if self.model not in timm.list_models():
            check_vit(self.model, image_size=224)  # says what timm has that is near
        with torch.device("meta"):
            return hasattr(timm.create_model(self.model, pretrained=False), "patch_embed")


class Decoding(Extracting):
    """Maps images [b, 3, S, S] float32, normalised, to feature sets and the mask of a decoder.

    Attributes:
        image_size: S.
        sets: name → (d, whether it is one row an image).
        decoder: reads the mask off tokens and the image.
    """

    image_size: int
    sets: dict[str, tuple[int, bool]]
    decoder: MaskDecoder

    @property
    def dims(self) -> dict[str, int]:
        """d of each set, and the columns of the mask."""
        return {name: dim for name, (dim, _) in self.sets.items()} | {MASK: 2}

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each set [b, n or 1, d], then the mask [b, cells² n, 2]."""
        sets, tokens = self.read(image)
        return (*sets.values(), self.decoder(tokens, image))

    def learned(self, image: torch.Tensor) -> tuple[Features, torch.Tensor, torch.Tensor]:
        """What is compared with the teacher: the sets by name, and `MaskDecoder.logits`."""
        sets, tokens = self.read(image)
        return sets, *self.decoder.logits(tokens, image)

    def read(self, image: torch.Tensor) -> tuple[Features, torch.Tensor]:
        """The sets by name, and the tokens [b, n, width] that the decoder reads."""
        raise NotImplementedError

    def at_size(self, image_size: int) -> Decoding:
        """The same weights for images of another size, with the position embedding resampled; evaluates.

        Raises:
            OptionError: it does not fit the size.
        """
        raise NotImplementedError


class Student(Decoding):
    """Maps images [b, 3, S, S] float32, normalised, to the teacher's sets and the mask of `MaskDecoder`.

    Args:
        spec: what it is made of.
        image_size: S.
        sets: of the teacher: name → (d, whether it is one row an image).
        weights: that its trunk starts from, under timm's names; None for random ones.
    Raises:
        OptionError: there is no such model, it does not fit the size, or has no such layers.
        ExportError: the weights do not fit.
    """

    def __init__(
        self,
        spec: StudentSpec,
        image_size: int,
        sets: Mapping[str, tuple[int, bool]],
        weights: StateDict | None = None,
    ) -> None:
        super().__init__()
        self.student = spec
        self.image_size = image_size
        self.sets = dict(sets)
        trunk = ViTTrunk if spec.is_vit else ConvTrunk
        self.trunk: ViTTrunk | ConvTrunk = trunk(spec, image_size, weights)
        width = self.trunk.width
        self.norm = nn.LayerNorm(width)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, (dim, _) in sets.items()})
        self.decoder = MaskDecoder(width)
        self.patch_size = self.trunk.patch_size
        side = image_size // self.patch_size
        self.grid_hw = (side, side)
        last = self.trunk.depth - 1
        kept = {
            name: FeatureSpec((Component("cls" if of_image else "token", last),))
            for name, (_, of_image) in self.sets.items()
        }
        self.spec = ViTSpec(str(spec), {**kept, MASK: FeatureSpec((Component(MASK, last),), cells=CELLS)})

    def read(self, image: torch.Tensor) -> tuple[Features, torch.Tensor]:
        tokens, whole = self.trunk(image)
        rows = self.norm(tokens), self.norm(whole)
        sets = {name: self.projections[name](rows[of_image]) for name, (_, of_image) in self.sets.items()}
        return sets, tokens

    def at_size(self, image_size: int) -> Student:
        other = Student(self.student, image_size, self.sets)
        state = self.state_dict()
        own = other.state_dict()
        for name in [name for name in state if name.endswith("pos_embed")]:
            prefix = self.trunk.prefix
            grid = other.grid_hw
            state[name] = resample_position_embedding(state[name], prefix, grid)
        own.update({name: tensor for name, tensor in state.items() if name in own})
        other.load_state_dict(own)
        return other.eval()

    def rows(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the projections read: of patches [b, n, width], and of the whole image [b, 1, width]."""
        tokens, whole = self.trunk(image)
        return self.norm(tokens), self.norm(whole)


class ViTTrunk(nn.Module):
    """A ViT, of which some blocks are kept: tokens [b, n, width], and the class token [b, 1, width].

    Without a class token the second is the mean of the first.
    """

    def __init__(self, spec: StudentSpec, image_size: int, weights: StateDict | None) -> None:
        super().__init__()
        vit = create_vit(spec.model, image_size=image_size)
        depth = len(vit.blocks)  # type: ignore[arg-type]
        layers = spec.layers or tuple(range(depth))
        if layers[-1] >= depth:
            raise OptionError("student", f"{spec.model} has layers 0 to {depth - 1}, got {layers[-1]}")
        state = dict(vit.state_dict() if weights is None else weights)
        state |= _moved(state, layers)
        last = len(layers) - 1
        sets = {"token": FeatureSpec((Component("token", last),))}
        if getattr(vit, "cls_token", None) is not None:
            sets["cls"] = FeatureSpec((Component("cls", last),))
        self.extractor: FeatureExtractor = build_extractor(ViTSpec(spec.model, sets), state, image_size)
        inner: Any = self.extractor.vit
        inner.blocks = inner.blocks[: len(layers)]
        self._share = spec.mlp
        if spec.mlp < 1:
            plain_mlps(inner.blocks)  # others are told before the teacher's work
            if weights is None:
                shrink_mlps(inner.blocks, spec.mlp)
        self._is_whole = weights is not None
        self.depth = len(layers)
        self.width = int(inner.embed_dim)
        self.patch_size = self.extractor.patch_size
        self.prefix = 0 if inner.no_embed_class else int(inner.num_prefix_tokens)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, *whole = self.extractor(image)
        return tokens, whole[0] if whole else tokens.mean(1, keepdim=True)

    def slim(self, see: Callable[[], object]) -> None:
        """Keeps the units of its MLPs that `StudentSpec.mlp` asks for; `see` lets it see some images.

        Raises:
            OptionError: as `slim_mlps` does.
        """
        if self._share < 1 and self._is_whole:
            slim_mlps(self.extractor.vit.blocks, self._share, see)
            self._is_whole = False


class ConvTrunk(nn.Module):
    """A convolutional network: its features of every 16 pixels beside those of every 32, as tokens.

    [b, n, width], and their mean [b, 1, width].
    """

    prefix = 0

    def __init__(self, spec: StudentSpec, image_size: int, weights: StateDict | None) -> None:
        super().__init__()
        if spec.layers is not None or spec.mlp < 1:
            raise OptionError("student", f"{spec.model} is no ViT, whose layers can be chosen", spec.model)
        if image_size % _CONV_COARSE:
            near = max(_CONV_COARSE, round(image_size / _CONV_COARSE) * _CONV_COARSE)
            problem = f"must be a multiple of {_CONV_COARSE} for {spec.model}, got {image_size}"
            raise OptionError("size", problem, f"try {near}")
        model: Any = import_timm().create_model(spec.model, pretrained=False, num_classes=0)
        steps = _reductions(model)
        if not {_CONV_PATCH, _CONV_COARSE} <= set(steps) or not hasattr(model, "forward_intermediates"):
            problem = f"{spec.model} does not give features of every {_CONV_PATCH} and {_CONV_COARSE} pixels"
            raise OptionError("student", problem, "mobilenetv4_conv_small, or a ViT")
        if weights is not None:
            _load(model, weights, spec.model)
        self.model = model
        self.depth = len(steps)
        self.patch_size = _CONV_PATCH
        self._taken = [_last(steps, _CONV_PATCH), _last(steps, _CONV_COARSE)]
        with torch.no_grad():
            self.width = sum(one.shape[1] for one in self._maps(torch.zeros(1, 3, image_size, image_size)))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine, coarse = self._maps(image)
        joined = torch.cat([fine, functional.interpolate(coarse, scale_factor=2, mode="bilinear")], dim=1)
        tokens = joined.flatten(2).transpose(1, 2)
        return tokens, tokens.mean(1, keepdim=True)

    def slim(self, see: Callable[[], object]) -> None:
        """Nothing: it is a ViT whose units are chosen."""

    def _maps(self, image: torch.Tensor) -> Sequence[torch.Tensor]:
        maps: Sequence[torch.Tensor] = self.model.forward_intermediates(
            image, indices=self._taken, intermediates_only=True
        )
        return maps


def _reductions(model: Any) -> list[int]:
    """Pixels of a cell of each of a network's features; none where timm does not tell."""
    told = getattr(model, "feature_info", None) or []
    return list(told.reduction()) if hasattr(told, "reduction") else [one["reduction"] for one in told]


def _moved(state: StateDict, layers: Sequence[int]) -> StateDict:
    """The tensors of the blocks that are kept, under the numbers that they have then."""
    moved = {}
    for place, layer in enumerate(layers):
        before = f"blocks.{layer}."
        for name, tensor in state.items():
            if name.startswith(before):
                moved[f"blocks.{place}.{name.removeprefix(before)}"] = tensor
    return moved


def _last(steps: Sequence[int], step: int) -> int:
    """The deepest of a network's features of every `step` pixels."""
    return max(i for i, one in enumerate(steps) if one == step)


def _load(model: nn.Module, weights: StateDict, name: str) -> None:
    own = model.state_dict()
    fitting = {key: tensor for key, tensor in weights.items() if key in own}
    wrong = [key for key, tensor in own.items() if key not in fitting or fitting[key].shape != tensor.shape]
    if wrong:
        problem = f"the weights do not fit {name}: {wrong[0]} is missing or of another shape"
        raise ExportError("weights", problem, "name the network that they belong to")
    model.load_state_dict(fitting)
