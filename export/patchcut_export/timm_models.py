"""timm's vision transformers, importable beside any build of torch."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

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
        ValueError: when timm does not know the name, or the model is not a plain ViT.
    """
    timm = import_timm()
    if name not in timm.list_models():
        near = ", ".join(timm.list_models(f"*{name.split('_patch', maxsplit=1)[0]}*")[:5])
        raise ValueError(f"[backbone] timm has no model {name!r}" + (f"; near it: {near}" if near else ""))
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size)
    if not (
        hasattr(model, "blocks") and hasattr(model, "pos_embed") and hasattr(model.blocks[0].attn, "qkv")
    ):
        raise ValueError(f"[backbone] {name!r} is not a plain ViT with fused qkv; pick a vit_* model")
    vit: torch.nn.Module = model.eval()
    return vit


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


_DECLARED: list[Any] = []
