"""Builds bundles: exports a backbone at every size and precision, checks each graph, packs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from patchcut.bundle import (
    BackboneSpec,
    Bundle,
    BundleSpec,
    FeatureComponent,
    FeatureSetSpec,
    GraphSpec,
    HeadSpec,
    Precision,
    RegionsSpec,
)
from patchcut.checks import check_choice
from patchcut.engines.onnxruntime import import_onnxruntime, session_options
from patchcut.errors import OptionError
from patchcut_kernels import default_threads

from patchcut_export.backbones.onnx_export import (
    OUTPUT,
    export_fp32,
    graph_bytes,
    set_offsets,
    share_weights,
)
from patchcut_export.backbones.vit import (
    MAX_SIZE,
    FeatureExtractor,
    FeatureSpec,
    build_extractor,
    check_feature,
)
from patchcut_export.backbones.weights import Provenance, StateDict
from patchcut_export.bundles.archive import safetensors_bytes, safetensors_extents
from patchcut_export.bundles.rewriting import file_specs, write_bundle
from patchcut_export.errors import ExportError
from patchcut_export.outputs import check_output_file
from patchcut_export.precision.int8 import dequantize_weights, quantize_int8

WEIGHTS = "backbone.safetensors"
# Least mean cosine of a graph's features to torch's with which it is shipped, by precision of the weights.
MIN_COSINE = {"fp32": 0.99999, "int8": 0.998}

Say = Callable[[str], None]


@dataclass(frozen=True)
class BackbonePlan:
    """What to export.

    Attributes:
        feature: the ViT and the activations that are the features.
        sizes: sides of the square inputs in pixels, multiples of the patch size; the first is the default.
        precision: "int8" (8-bit linears, and a float graph on the same 8-bit weights) or "fp32".
        mean, std: of the images that the ViT was trained on, RGB in 0..1.
        fit: "stretch" or "letterbox".
    """

    feature: FeatureSpec = field(default_factory=FeatureSpec)
    sizes: tuple[int, ...] = (224, 448)
    precision: str = "int8"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fit: str = "stretch"


def build_bundle(
    path: Path,
    plan: BackbonePlan,
    state: StateDict,
    origin: Provenance,
    *,
    name: str,
    say: Say,
    donor: Bundle | None = None,
) -> None:
    """Writes a bundle with the heads of another one, or without a head.

    Args:
        path: the .patchcut file to write; an existing one is replaced once the new one is whole.
        plan: what to export.
        state: the ViT's weights under timm's names.
        origin: what to tell of them.
        name: what the bundle is called.
        say: called with a line of progress before each step.
        donor: the bundle whose heads are taken, as far as they are of the backbone of its first one, or None.
    Raises:
        OptionError: as `check_plan` does.
        ExportError: when the weights are not finite or do not fit the plan, the donor has no head or one that
            was trained on other features, or a graph disagrees with torch.
        OutputError: when the bundle cannot be written.
    """
    check_plan(plan)
    check_output_file(path)
    _check_finite(state)
    heads = [] if donor is None else _heads_of(donor, plan, origin)
    models: dict[str, onnx.ModelProto] = {}
    graphs: list[GraphSpec] = []
    for size in plan.sizes:
        say(f"exporting {plan.feature.name} at {size}x{size}")
        extractor = build_extractor(plan.feature, dict(state), size)
        for precision, model in _graphs(extractor, size, plan.precision, say).items():
            file = f"backbone-{size}-{precision}.onnx"
            models[file] = model
            graphs.append(_graph_spec(file, extractor, size, precision))
    shared = share_weights(models, WEIGHTS)
    weights = safetensors_bytes(shared.weights)
    set_offsets(models.values(), safetensors_extents(weights))
    shipped = [g.model_copy(update={"initializers": tuple(shared.initializers[g.file])}) for g in graphs]
    members = {WEIGHTS: weights, **{file: graph_bytes(model) for file, model in models.items()}}
    about, regions = "without a head", RegionsSpec()
    if donor is not None:
        about, regions = f"with the head of {donor.spec.name}", donor.spec.regions
        members |= {file: donor.read(file) for head in heads for file in head.files.values()}
    say(f"writing {path}")
    spec = BundleSpec(
        name=name,
        description=f"{plan.feature.name} {about}",
        backbones={plan.feature.name: _backbone_spec(plan, origin, extractor, shipped)},
        heads=tuple(heads),
        regions=regions,
        files=file_specs(members),
    )
    write_bundle(path, spec, members)


def check_plan(plan: BackbonePlan) -> None:
    """Checks that a plan can be carried out, given weights that fit; takes no time.

    Raises:
        OptionError: naming the option that cannot be.
    """
    check_choice("precision", plan.precision, tuple(MIN_COSINE))
    if not plan.sizes or len(set(plan.sizes)) != len(plan.sizes):
        given = ", ".join(map(str, plan.sizes)) or "none"
        raise OptionError("size", f"must be given at least once, and each only once, got {given}")
    for size in plan.sizes:
        if not 1 <= size <= MAX_SIZE:
            raise OptionError("size", f"must be from 1 to {MAX_SIZE} pixels, got {size}")
        check_feature(plan.feature, size)


def _check_finite(state: StateDict) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ExportError("weights", f"{name} is not finite", "use weights of a training that went well")


def _heads_of(donor: Bundle, plan: BackbonePlan, origin: Provenance) -> list[HeadSpec]:
    """The donor's heads, for the backbone that will be exported; nothing was measured of them there yet.

    Raises:
        ExportError: it has none, or they were trained on other features.
    """
    first = donor.spec.head() or next(iter(donor.spec.heads), None)
    if first is None:
        raise ExportError("bundle", f"{donor.path} has no head", "name a bundle that has one")
    ours, theirs = check_feature(plan.feature, plan.sizes[0]), donor.spec.backbones[first.backbone]
    wanted = {"model": ours.name, "source_sha256": origin.sha256, "stride": ours.stride}
    wanted |= _feature_fields(ours)
    came = {**dict(theirs), **dict(theirs.features[first.features[0]])}
    different = [name for name, value in wanted.items() if came[name] != value]
    if different:
        listed = ", ".join(f"{name} {came[name]}, not {wanted[name]}" for name in different)
        what = f"the head of {donor.path} was trained on other features: {listed}"
        raise ExportError("bundle", what, "train one with `patchcut export train`")
    moved = {"backbone": ours.name, "features": (_set_name(ours),), "report": ()}
    return [
        head.model_copy(update=moved)
        for head in donor.spec.heads
        if (head.backbone, head.features) == (first.backbone, first.features)
    ]


def _graphs(
    extractor: FeatureExtractor, size: int, precision: str, say: Say
) -> dict[Precision, onnx.ModelProto]:
    """The graphs to ship for one size, each checked against torch."""
    exact = export_fp32(extractor, size)
    graphs: dict[Precision, onnx.ModelProto]
    if precision == "fp32":
        graphs = {"fp32": exact}
    else:
        say(f"quantizing {size}x{size} to 8 bits")
        quantized = quantize_int8(exact)
        graphs = {"int8": quantized, "fp32": dequantize_weights(exact, quantized)}
    for name, model in graphs.items():
        cosine = _agreement(extractor, model, size, name)
        say(f"{size}x{size} {name}: mean cosine to torch {cosine:.6f}")
        least = MIN_COSINE[precision]
        if not cosine >= least:  # and where it is not a number
            what = f"{name} at {size} has mean cosine {cosine:.5f} to torch, at least {least} needed"
            raise ExportError("export", what, "export with --precision fp32" if precision == "int8" else "")
    return graphs


def _agreement(extractor: FeatureExtractor, model: onnx.ModelProto, size: int, precision: Precision) -> float:
    """Mean cosine in [-1, 1] of features to torch's on smooth random images, run as the runtime does."""
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        session_options(onnxruntime, default_threads(), precision),
        providers=["CPUExecutionProvider"],
    )
    smooth = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    image = torch.nn.functional.interpolate(smooth, size=(size, size), mode="bicubic")
    with torch.inference_mode():
        expected = extractor(image)
    got = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    return float(torch.nn.functional.cosine_similarity(expected, got, dim=-1).mean())


def _backbone_spec(
    plan: BackbonePlan, origin: Provenance, extractor: FeatureExtractor, graphs: list[GraphSpec]
) -> BackboneSpec:
    features = {"output": OUTPUT, "dim": extractor.feature_dim, **_feature_fields(extractor.spec)}
    return BackboneSpec.model_validate(
        {
            "model": plan.feature.name,
            "source": origin.source,
            "source_sha256": origin.sha256,
            "licence": origin.licence,
            "trained_on": origin.trained_on,
            "patch_size": extractor.patch_size,
            "stride": extractor.spec.stride,
            "mean": plan.mean,
            "std": plan.std,
            "fit": plan.fit,
            "weights": WEIGHTS,
            "graphs": graphs,
            "features": {_set_name(extractor.spec): FeatureSetSpec.model_validate(features)},
        }
    )


def _graph_spec(file: str, extractor: FeatureExtractor, size: int, precision: str) -> GraphSpec:
    return GraphSpec.model_validate(
        {"file": file, "size_hw": (size, size), "grid_hw": extractor.grid_hw, "precision": precision}
    )


def _set_name(spec: FeatureSpec) -> str:
    return spec.components[0].facet


def _feature_fields(spec: FeatureSpec) -> dict[str, Any]:
    """What `bundle.json` says of features, all but their number; `spec` is as `check_feature` returns it."""
    return {
        "components": tuple(FeatureComponent.model_validate(asdict(one)) for one in spec.components),
        "scales": spec.scales,
        "join": spec.join,
        "log_bins": spec.log_bins,
    }
