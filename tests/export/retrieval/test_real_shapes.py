"""Whole models of open_clip with random weights: what is exported is what torch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from patchcut.bundle import open_bundle

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "dense", "dim", "grid"),
    [
        ("ViT-B-16", ("maskclip", "naclip"), 512, 14),
        ("RN50", ("maskclip",), 1024, 7),
        ("ViT-B-16-SigLIP", ("maskclip",), 768, 14),
    ],
)
def test_real_shapes(
    model: str, dense: tuple[str, ...], dim: int, grid: int, open_clip: Any, tmp_path: Path
) -> None:
    """`build_clip` writes nothing where a row of an output is further from torch than a cosine of 0.9999."""
    import torch
    from patchcut_export.backbones.weights import Provenance
    from patchcut_export.retrieval.building import ClipPlan, build_clip
    from patchcut_export.retrieval.models import create_model, find_config
    from patchcut_export.retrieval.origins import Access, TextFile, get_tokenizer

    torch.manual_seed(0)
    config = find_config(model)
    state = create_model(config, config.size).state_dict()
    for name in state:
        if name.endswith("bn3.weight"):  # of zeros where training starts
            state[name] = torch.rand_like(state[name]) + 0.5
    if "hf_tokenizer_name" in config.fields["text_cfg"]:
        text = TextFile(b"{}", "canonicalize", 1)
    else:
        text = get_tokenizer(config, None, Access(False, None, lambda line: None))
    path, origin = tmp_path / "clip.patchcut", Provenance("tests", "0" * 64, "MIT", "nothing")
    build_clip(path, ClipPlan(config, dense=dense), state, origin, text, name=model, say=print)
    with open_bundle(path) as bundle:
        bundle.verify()
        backbone = bundle.spec.backbone
        assert backbone.graphs[0].grid_hw == (grid, grid)
        assert {name: one.dim for name, one in backbone.features.items()} == dict.fromkeys(
            (*dense, "embedding"), dim
        )
