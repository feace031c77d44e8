"""timm's vision transformers, importable beside any build of torch."""

from __future__ import annotations

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
        stem = name.split("_patch", maxsplit=1)[0]
        near = (timm.list_models(f"{stem}*") or timm.list_models(f"*{stem}*")) if stem else []
        remedy = f"near it: {', '.join(near[:5])}" if near else "pick a vit_* model"
        raise OptionError("model", f"timm has no model {name!r}", remedy)
    try:
        # A model for any size would resample its position embedding in the graph, antialiased.
        model: Any = timm.create_model(
            name, pretrained=False, num_classes=0, img_size=image_size, dynamic_img_size=False
        )
    except TypeError as error:  # convolutional networks take no img_size
        raise _not_plain(name) from error
    if not _is_plain(model):
        raise _not_plain(name)
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
    schemas are declared (nothing here ever calls them) and the import is made again.
    """
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


def _is_plain(model: Any) -> bool:
    """Whether it is a ViT with an absolute position embedding and blocks that normalise before attention."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if "VisionTransformer" not in kinds or getattr(model, "pos_embed", None) is None:
        return False
    return all(type(block).__name__ == "Block" and hasattr(block.attn, "qkv") for block in model.blocks)


def _not_plain(name: str) -> OptionError:
    problem = f"{name} is no plain ViT (absolute position embedding, fused qkv)"
    return OptionError("model", problem, "pick another vit_* model")


_DECLARED: list[Any] = []
