from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NEEDS = "needs patchcut[concepts]"
# Small shapes of three families of open_clip.
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "vit": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "head_width": 16},
        "text_cfg": _TEXT,
    },
    "resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": _TEXT,
    },
    "siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "map",
            "timm_proj": "none",
            "image_size": 64,
        },
        "text_cfg": {
            **_TEXT,
            "context_length": 64,
            "width": 64,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
}


@pytest.fixture(scope="session")
def open_clip() -> Any:
    """open_clip, beside any build of torch."""
    for name in ("torch", "onnxscript", "onnxslim", "tokenizers", "ftfy"):
        pytest.importorskip(name, reason=NEEDS)
    from patchcut_export.errors import ExportError
    from patchcut_export.retrieval.models import import_open_clip

    try:
        return import_open_clip()
    except (ExportError, ImportError) as error:
        pytest.skip(f"{NEEDS}: {error}")


@pytest.fixture(scope="session")
def random_clip(open_clip: Any) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """random_clip(shape): the config and the weights of a small CLIP; no layer gives nothing by its init."""
    import torch
    from patchcut_export.retrieval.models import ModelConfig, create_model

    def make(shape: str) -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(4)
        config = ModelConfig(shape, SHAPES[shape])
        state = {name: one.clone() for name, one in create_model(config, 64).state_dict().items()}
        for name, tensor in state.items():
            if name.endswith("bn3.weight"):  # of zeros where training starts
                state[name] = torch.rand_like(tensor) + 0.5
            elif tensor.is_floating_point() and tensor.ndim == 1 and not bool(tensor.any()):
                state[name] = torch.randn_like(tensor) * 0.1
        return config, state

    return make


@pytest.fixture(scope="session")
def small_clips(
    random_clip: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """small_clips(shape): a bundle of a small CLIP with random weights, made once."""
    from patchcut_export.backbones.weights import Provenance
    from patchcut_export.retrieval.building import ClipPlan, build_clip
    from patchcut_export.retrieval.origins import Access, get_tokenizer

    folder, made = tmp_path_factory.mktemp("clips"), {}

    def make(shape: str) -> Path:
        if shape not in made:
            config, state = random_clip(shape)
            text = get_tokenizer(config, None, Access(False, None, lambda line: None))
            plan = ClipPlan(config, (64,), ("maskclip", "naclip") if shape == "vit" else ("maskclip",))
            path = folder / f"{shape}.patchcut"
            origin = Provenance("tests", "0" * 64, "MIT", "nothing")
            build_clip(path, plan, state, origin, text, name=shape, say=lambda line: None)
            made[shape] = path
        return made[shape]

    return make


@pytest.fixture(scope="session")
def scene_clip(open_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the CLIP that was trained on made scenes."""
    from tests.export.retrieval.scenes import build_scenes

    path = tmp_path_factory.mktemp("scenes") / "scenes.patchcut"
    build_scenes(path)
    return path
