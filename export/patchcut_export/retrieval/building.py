"""CLIP as a bundle: its image tower as a backbone, its text tower and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from patchcut.bundle import BackboneSpec, BundleSpec, GraphSpec, TextSpec
from patchcut.engines.onnxruntime import import_onnxruntime, session_options
from patchcut.errors import OptionError
from patchcut_kernels import default_threads

from patchcut_export.backbones.onnx_export import (
    OPSET,
    SharedGraphs,
    export_graph,
    graph_bytes,
    set_offsets,
    share_weights,
)
from patchcut_export.backbones.spec import MAX_SIZE
from patchcut_export.backbones.weights import Provenance, StateDict
from patchcut_export.bundles.archive import safetensors_bytes, safetensors_extents
from patchcut_export.bundles.rewriting import file_specs, write_bundle
from patchcut_export.errors import ExportError
from patchcut_export.outputs import check_output_file
from patchcut_export.retrieval.models import ModelConfig, build_model
from patchcut_export.retrieval.origins import TextFile
from patchcut_export.retrieval.towers import EMBEDDING, TEXT, ImageTower, TextTower, dense_outputs

# Least cosine of every row of every output to torch's with which a graph is shipped.
MIN_COSINE = 0.9999
_IMAGE_WEIGHTS, _TEXT_WEIGHTS = "backbone.safetensors", "text.safetensors"
_TEXT, _TOKENIZER = "text.onnx", "tokenizer.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ClipPlan:
    """What to export.

    Attributes:
        config: the model.
        sizes: sides of the square images in pixels, the first the default; none is the model's own.
        dense: "maskclip" and "naclip", or none of them; None is "maskclip" where the model gives it.
    """

    config: ModelConfig
    sizes: tuple[int, ...] = ()
    dense: tuple[str, ...] | None = None


def build_clip(
    path: Path,
    plan: ClipPlan,
    state: StateDict,
    origin: Provenance,
    tokenizer: TextFile,
    *,
    name: str,
    say: Say,
) -> None:
    """Writes a bundle whose backbone is the image tower, with the text tower and the tokenizer.

    Its feature sets are `embedding`, one an image, and the dense ones, a row a patch, all in one space with
    the embeddings of texts; none is of unit length.

    Args:
        path: the .patchcut file to write.
        plan: what to export.
        state: the model's weights under open_clip's names.
        origin: what to tell of them.
        tokenizer: of the text tower.
        name: what the bundle is called.
        say: called with a line of progress before each step.
    Raises:
        OptionError: the model is not for such images, or gives no such output.
        ExportError: the weights do not fit, or a graph disagrees with torch.
        OutputError: the bundle cannot be written.
    """
    check_output_file(path)
    sizes = _check_sizes(plan)
    graphs: dict[str, onnx.ModelProto] = {}
    towers: dict[str, ImageTower] = {}
    for size in sizes:
        say(f"exporting {plan.config.name} at {size}x{size}")
        model = build_model(plan.config, state, size)
        tower = _image_tower(model, plan, size)
        file = f"backbone-{size}-fp32.onnx"
        graphs[file] = _exported(tower, _smooth_images(size), "image", list(tower.outputs))
        towers[file] = tower
    say("exporting its text tower")
    tokens = _some_tokens(plan.config, tokenizer)
    encode_text: Any = model.encode_text
    text = _exported(TextTower(model).eval(), tokens, "tokens", [TEXT], encode_text)
    say(f"writing {path}")
    about = {file: _about_image(plan.config, tower) for file, tower in towers.items()}
    images, members = _pack(graphs, _IMAGE_WEIGHTS, about)
    texts, more = _pack({_TEXT: text}, _TEXT_WEIGHTS, {_TEXT: _about_text(plan.config, tokenizer)})
    members |= {**more, _TOKENIZER: tokenizer.data}
    backbone = _backbone_spec(plan.config, origin, towers, images)
    spec = BundleSpec(
        name=name,
        description=f"{plan.config.name}, images and texts in one space",
        backbones={plan.config.name: backbone},
        text=_text_spec(plan.config, model, tokenizer, backbone, texts.initializers[_TEXT]),
        files=file_specs(members),
    )
    write_bundle(path, spec, members)


def _check_sizes(plan: ClipPlan) -> tuple[int, ...]:
    sizes = plan.sizes or (plan.config.size,)
    if len(set(sizes)) != len(sizes) or not all(1 <= size <= MAX_SIZE for size in sizes):
        given = ", ".join(map(str, sizes))
        raise OptionError("size", f"must be from 1 to {MAX_SIZE} pixels, each only once, got {given}")
    return sizes


def _image_tower(model: Any, plan: ClipPlan, size: int) -> ImageTower:
    dense = dense_outputs(model.visual)[0][:1] if plan.dense is None else plan.dense
    return ImageTower(model.visual, size, (*dense, EMBEDDING)).eval()


def _exported(
    module: torch.nn.Module,
    example: torch.Tensor,
    source: str,
    outputs: list[str],
    expected: Callable[[torch.Tensor], Any] | None = None,
) -> onnx.ModelProto:
    """The graph of a module, if it computes what torch does.

    Args:
        expected: what it is compared with; None is the module itself.
    Raises:
        ExportError: it does not.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    try:
        with torch.no_grad():
            model = export_graph(module, example, source, outputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for name, cosine in agreement(expected or module, model, example, source, outputs).items():
        if not cosine >= MIN_COSINE:  # and where it is not a number
            what = (
                f"{name} of the graph has a cosine of {cosine:.5f} to torch's, at least {MIN_COSINE} needed"
            )
            raise ExportError("export", what, "try another version of torch")
    return model


def agreement(
    module: Callable[[torch.Tensor], Any],
    model: onnx.ModelProto,
    example: torch.Tensor,
    source: str,
    outputs: Sequence[str],
) -> dict[str, float]:
    """The least cosine of any row of each output to torch's, run as the runtime does."""
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        session_options(onnxruntime, default_threads(), "fp32"),
        providers=["CPUExecutionProvider"],
    )
    with torch.inference_mode():
        expected = module(example)
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = session.run(list(outputs), {source: example.numpy()})
    cosine = torch.nn.functional.cosine_similarity
    return {
        name: float(cosine(a, torch.from_numpy(b), dim=-1).min())
        for name, a, b in zip(outputs, expected, got, strict=True)
    }


def _smooth_images(size: int) -> torch.Tensor:
    smooth = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    return torch.nn.functional.interpolate(smooth, size=(size, size), mode="bicubic")


def _some_tokens(config: ModelConfig, tokenizer: TextFile) -> torch.Tensor:
    """[3, context_length], texts of several lengths."""
    text = config.fields["text_cfg"]
    length, vocabulary = text.get("context_length", 77), text.get("vocab_size", 49408)
    random = torch.Generator().manual_seed(0)
    words = torch.randint(1, vocabulary - 2, (3, length), generator=random)
    tokens = torch.full((3, length), tokenizer.pad)
    for row, count in enumerate((1, length // 2, length - 2)):
        tokens[row, 1 : 1 + count] = words[row, :count]
        tokens[row, 0] = words[row, -1] if tokenizer.start is None else tokenizer.start
        tokens[row, 1 + count] = vocabulary - 1 if tokenizer.end is None else tokenizer.end
    return tokens


def _pack(
    graphs: dict[str, onnx.ModelProto], weights: str, about: Mapping[str, str]
) -> tuple[SharedGraphs, dict[str, bytes]]:
    """The graphs, with the names of their shared weights, and the members they make."""
    shared = share_weights(graphs, weights)
    data = safetensors_bytes(shared.weights)
    set_offsets(graphs.values(), safetensors_extents(data))
    members = {weights: data}
    return shared, members | {file: graph_bytes(model, about[file]) for file, model in graphs.items()}


def _backbone_spec(
    config: ModelConfig, origin: Provenance, towers: Mapping[str, ImageTower], shared: SharedGraphs
) -> BackboneSpec:
    first = next(iter(towers.values()))
    depth = _depth(first.visual)
    graphs = [
        GraphSpec(
            file=file,
            size_hw=(tower.grid_hw[0] * tower.patch_size, tower.grid_hw[1] * tower.patch_size),
            grid_hw=tower.grid_hw,
            precision="fp32",
            initializers=tuple(shared.initializers[file]),
        )
        for file, tower in towers.items()
    ]
    features = {
        name: {"output": name, "dim": first.dim, "components": ({"facet": name, "layer": depth - 1},)}
        for name in first.outputs
    }
    return BackboneSpec.model_validate(
        {
            "model": config.name,
            "source": origin.source,
            "source_sha256": origin.sha256,
            "licence": origin.licence,
            "trained_on": origin.trained_on,
            "patch_size": first.patch_size,
            "mean": config.mean,
            "std": config.std,
            "fit": "stretch",
            "weights": _IMAGE_WEIGHTS,
            "graphs": graphs,
            "features": features,
        }
    )


def _text_spec(
    config: ModelConfig, model: Any, tokenizer: TextFile, backbone: BackboneSpec, initializers: list[str]
) -> TextSpec:
    bias = getattr(model, "logit_bias", None)
    return TextSpec.model_validate(
        {
            "backbone": config.name,
            "features": tuple(backbone.features),
            "file": _TEXT,
            "weights": _TEXT_WEIGHTS,
            "initializers": tuple(initializers),
            "tokenizer": _TOKENIZER,
            "clean": tokenizer.clean,
            "context_length": config.fields["text_cfg"].get("context_length", 77),
            "start": tokenizer.start,
            "end": tokenizer.end,
            "pad": tokenizer.pad,
            "dim": backbone.features[EMBEDDING].dim,
            "scale": float(np.exp(float(model.logit_scale))),
            "bias": 0.0 if bias is None else float(bias),
        }
    )


def _depth(visual: Any) -> int:
    """Blocks of an image tower; a ResNet has four stages."""
    trunk = getattr(visual, "trunk", None)
    blocks = getattr(trunk, "blocks", None)
    if blocks is None and hasattr(visual, "transformer"):
        blocks = visual.transformer.resblocks
    return 4 if blocks is None else len(blocks)


def _about_image(config: ModelConfig, tower: ImageTower) -> str:
    side, (rows, columns) = tower.grid_hw[0] * tower.patch_size, tower.grid_hw
    outputs = [
        f"{name} [batch, {1 if name == EMBEDDING else rows * columns}, {tower.dim}]" for name in tower.outputs
    ]
    return (
        f"The image tower of {config.name} in fp32, ONNX opset {OPSET}, by patchcut. "
        f"image [batch, 3, {side}, {side}] float32: RGB in 0..1 less {config.mean}, over {config.std}. "
        f"{', '.join(outputs)} float32."
    )


def _about_text(config: ModelConfig, tokenizer: TextFile) -> str:
    length = config.fields["text_cfg"].get("context_length", 77)
    return (
        f"The text tower of {config.name} in fp32, ONNX opset {OPSET}, by patchcut. "
        f"tokens [batch, {length}] int64, filled up with {tokenizer.pad}, to {TEXT} [batch, d] float32."
    )
