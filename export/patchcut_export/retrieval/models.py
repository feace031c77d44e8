"""Dual encoders of open_clip: built from a name or a config, given weights, at any size of images."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from patchcut.errors import OptionError, install_hint

from patchcut_export.backbones.onnx_export import quiet_logger
from patchcut_export.backbones.timm_models import import_timm
from patchcut_export.backbones.weights import StateDict
from patchcut_export.errors import ExportError

Rgb = tuple[float, float, float]

_OPENAI_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)
_MISSES_SHOWN = 3


@dataclass(frozen=True)
class ModelConfig:
    """An architecture as open_clip describes it.

    Attributes:
        name: of open_clip, or of the file that describes it.
        fields: its "model_cfg".
        mean, std: of the images that it was trained on, RGB in 0..1.
    """

    name: str
    fields: Mapping[str, Any]
    mean: Rgb = _OPENAI_MEAN
    std: Rgb = _OPENAI_STD

    @property
    def size(self) -> int:
        """Side of its own images in pixels."""
        side: int | list[int] = self.fields["vision_cfg"].get("image_size", 224)
        return side if isinstance(side, int) else side[0]


def import_open_clip() -> ModuleType:
    """The open_clip module.

    Raises:
        ExportError: it is not installed.
    """
    import_timm()  # which makes torchvision importable beside any torch
    try:
        import open_clip
    except ImportError as error:
        raise ExportError("clip", f"open_clip is missing: {error}", install_hint("concepts")) from error
    module: ModuleType = open_clip
    return module


def find_config(model: str) -> ModelConfig:
    """The architecture of open_clip's name, or of a .json file such as `open_clip_config.json`.

    Raises:
        OptionError: there is neither.
        ExportError: the file is no config, or the text tower is one that only the library transformers has.
    """
    path = Path(model)
    config = _read_config(path) if path.suffix == ".json" else _known_config(model)
    text = config.fields["text_cfg"]
    if "hf_model_name" in text or "multimodal_cfg" in config.fields:
        problem = f"{config.name} is no dual encoder whose text tower is open_clip's own"
        raise ExportError("clip", problem, "choose another, such as ViT-B-16 or ViT-B-16-SigLIP")
    return config


def with_weights_of(config: ModelConfig, published: Mapping[str, Any]) -> ModelConfig:
    """The architecture as published weights need it: what open_clip says of them goes before its config."""
    if not published:
        return config
    quick = bool(published.get("quick_gelu", config.fields.get("quick_gelu", False)))
    return ModelConfig(config.name, {**config.fields, "quick_gelu": quick}, *_look(published))


def build_model(config: ModelConfig, state: StateDict, size: int) -> torch.nn.Module:
    """The model with weights, in evaluation mode, for images of one size; positions are resampled.

    Args:
        config: the architecture.
        state: its weights under open_clip's names.
        size: side of the images in pixels.
    Raises:
        OptionError: there is no such model for images of this size.
        ExportError: the weights are not its own, or not finite.
    """
    open_clip = import_open_clip()
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    model = create_model(config, size)
    state = convert_state_dict(model, dict(state))
    if isinstance(model, open_clip.CustomTextCLIP) and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    _fit_state(state, model)
    _load(config, model, state)
    trunk: Any = getattr(model.visual, "trunk", None)  # timm makes it for its own size
    if trunk is not None and trunk.patch_embed.img_size != (size, size):
        try:
            trunk.set_input_size((size, size))
        except (AssertionError, ValueError, RuntimeError, AttributeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OptionError("size", f"{config.name} takes no images of {size} pixels: {first}") from error
    return model.eval().requires_grad_(False)


def create_model(config: ModelConfig, size: int) -> torch.nn.Module:
    """The model with random weights, for images of one size.

    Raises:
        OptionError: there is no such model.
    """
    open_clip = import_open_clip()
    fields = deepcopy(dict(config.fields))
    custom = fields.pop("custom_text", False)
    fields["vision_cfg"] |= {"image_size": size}
    if "timm_model_name" in fields["vision_cfg"]:
        fields["vision_cfg"]["timm_model_pretrained"] = False
    kind: Any = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        with quiet_logger("root"):
            model: torch.nn.Module = kind(**fields)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"{config.name} cannot be built for images of {size} pixels: {first}"
        raise OptionError("model", problem) from error
    return model


def parameter_bytes(config: ModelConfig) -> int:
    """About how large its weights are, in float32."""
    with torch.device("meta"):
        model = create_model(config, config.size)
    return sum(one.numel() for one in model.parameters()) * 4


def _known_config(name: str) -> ModelConfig:
    open_clip = import_open_clip()
    known = open_clip.list_models()
    fields = open_clip.get_model_config(name) if name in known else None
    if fields is None:
        near = difflib.get_close_matches(name, known, 5) or ["ViT-B-16", "RN50", "ViT-B-16-SigLIP"]
        raise OptionError("model", f"open_clip has no model {name!r}", f"near it: {', '.join(near)}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    looks = {_look(open_clip.get_pretrained_cfg(name, tag)) for tag in tags}
    return ModelConfig(name, fields, *(looks.pop() if len(looks) == 1 else ()))


def _read_config(path: Path) -> ModelConfig:
    try:
        told = json.loads(path.read_text("utf-8"))
        fields = told.get("model_cfg", told)
        look = _look(told.get("preprocess_cfg", {}))
        if not isinstance(fields["text_cfg"], dict) or not isinstance(fields["vision_cfg"], dict):
            raise TypeError("its towers are no objects")
    except OSError as error:
        raise OptionError("model", f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path} is no config of open_clip: {error}"
        raise ExportError("clip", problem, "it needs vision_cfg, text_cfg and embed_dim") from error
    return ModelConfig(path.stem, fields, *look)


def _look(preprocess: Mapping[str, Any]) -> tuple[Rgb, Rgb]:
    mean, std = (
        tuple(map(float, preprocess.get(name, default)))
        for name, default in (("mean", _OPENAI_MEAN), ("std", _OPENAI_STD))
    )
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("mean and std must have three numbers")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _fit_state(state: StateDict, model: torch.nn.Module) -> None:
    """Brings numbers to the model's shapes, and position embeddings to its grid."""
    own = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
    for name in ("visual.positional_embedding", "visual.attnpool.positional_embedding"):
        if name in state and name in own and state[name].shape != own[name].shape:
            state[name] = _resampled(state[name], len(own[name]) - 1)


def _resampled(positions: torch.Tensor, patches: int) -> torch.Tensor:
    """Positions [1 + n, d] of a class token and a square grid, for another grid."""
    first, grid = positions[:1], positions[1:]
    side, wanted = math.isqrt(len(grid)), math.isqrt(patches)
    if side * side != len(grid):
        return positions  # which loading will refuse
    image = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    image = torch.nn.functional.interpolate(image, (wanted, wanted), mode="bicubic", antialias=True)
    return torch.cat([first, image.flatten(2)[0].T.to(first.dtype)])


def _load(config: ModelConfig, model: torch.nn.Module, state: StateDict) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ExportError("weights", f"{name} is not finite", "use weights of a training that went well")
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not its own" for name in state if name not in own]
    wrong += [
        f"{name} is {list(state[name].shape)}, not {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        shown = ", ".join(wrong[:_MISSES_SHOWN]) + (", ..." if len(wrong) > _MISSES_SHOWN else "")
        problem = f"these are no weights of {config.name}: {shown}"
        raise ExportError("weights", problem, "name the model that they are of with --model")
    model.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    )
