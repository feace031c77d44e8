"""timm's vision transformers, importable beside any build of torch."""

from __future__ import annotations

import difflib
import os
import sys
from types import ModuleType
from typing import Any

import torch
from patchcut.errors import OptionError

# The operators that torchvision's Python half describes to torch even where its C++ half is missing.
_TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def create_vit(name: str, *, image_size: int) -> torch.nn.Module:
    """A timm vision transformer without weights and without a classifier, for square images of one size.

    Args:
        name: a timm model name, such as "vit_small_patch14_dinov2".
        image_size: side of the square input in pixels, a multiple of the patch size.
    Raises:
        OptionError: when timm does not know the name, the model is not a plain ViT, or the size does not fit.
    """
    timm = import_timm()
    if name not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models("*vit*"), 5) or ["vit_small_patch16_224"]
        raise OptionError("model", f"timm has no model {name!r}", f"near it: {', '.join(near)}")
    try:
        # A model for any size would resample its position embedding in the graph, antialiased.
        model: Any = timm.create_model(
            name, pretrained=False, num_classes=0, img_size=image_size, dynamic_img_size=False
        )
    except TypeError as error:  # convolutional networks take no img_size
        raise _not_plain(name, "it takes no size of images") from error
    if why := _why_not(model):
        raise _not_plain(name, why)
    patch: int = model.patch_embed.patch_size[0]
    if image_size % patch:
        near_size = max(patch, round(image_size / patch) * patch)
        problem = f"must be a multiple of {name}'s patches of {patch} pixels, got {image_size}"
        raise OptionError("size", problem, f"try {near_size}")
    vit: torch.nn.Module = model.eval()
    return vit


def check_vit(name: str, *, image_size: int) -> Any:
    """The model as `create_vit` makes it, and its errors, at once: with shapes and no numbers."""
    with torch.device("meta"):
        return create_vit(name, image_size=image_size)


def import_timm() -> ModuleType:
    """The timm module.

    timm imports torchvision, whose Python half registers shapes for C++ operators that exist only when its
    binary matches the installed torch. For a CPU build of torch no such binary is on PyPI, so on failure the
    schemas are declared (nothing here ever calls them) and the import is made again. The hub's client, which
    it imports too, reports downloads to its maker unless it is told not to before that.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return timm
    for module in [m for m in sys.modules if m.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[module]
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _TORCHVISION_SCHEMAS:
        library.define(schema)
    _DECLARED.append(library)  # the schemas live as long as this object
    import timm

    return timm


def _why_not(model: Any) -> str:
    """Why features cannot be taken from a model; "" where they can."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if not kinds & {"VisionTransformer", "Eva"}:
        return "its tokens are not those of one grid of patches from first to last"
    for block in model.blocks:
        if type(block).__name__ not in ("Block", "EvaBlock"):
            return f"its blocks are {type(block).__name__}, which do not normalise before attention"
        if getattr(block.attn, "qkv", None) is None and getattr(block.attn, "k_proj", None) is None:
            return "its attention has no projections of queries, keys and values"
    if getattr(model, "pos_embed", None) is None and getattr(model, "rope", None) is None:
        return "it has no positions"
    return ""


def _not_plain(name: str, why: str) -> OptionError:
    return OptionError("model", f"{name} is no plain ViT: {why}", "see `patchcut export backbone --list`")


_DECLARED: list[Any] = []
