"""Builds bundles: exports a backbone at every size and precision, checks each graph, packs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from patchcut.bundle import (
    SCHEMA_VERSION,
    AffinitySpec,
    BackboneSpec,
    Bundle,
    BundleSpec,
    FeaturePart,
    FileSpec,
    GraphSpec,
    HeadSpec,
    RegionsSpec,
    ReportRow,
)
from patchcut.engines import check_choice
from patchcut.errors import OptionError

from patchcut_export.backbones.onnx_export import export_fp32, set_offsets, share_weights
from patchcut_export.backbones.vit import (
    MAX_SIZE,
    FeatureExtractor,
    FeatureSpec,
    build_extractor,
    check_feature,
)
from patchcut_export.backbones.weights import Provenance, StateDict
from patchcut_export.bundles.archive import graph_bytes, safetensors_bytes, safetensors_extents, write_archive
from patchcut_export.bundles.card import render_card
from patchcut_export.errors import ExportError
from patchcut_export.outputs import check_output_file
from patchcut_export.precision.int8 import dequantize_weights, quantize_int8

WEIGHTS = "backbone.safetensors"
HEAD = "head.safetensors"
PARTS = "parts.safetensors"
CARD = "card.md"
_PARTS_METRICS = ("NMI", "ARI")
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
        name: of the bundle.
        say: called with a line of progress before each step.
        donor: the bundle whose head, and parts if it has any, are taken, or None.
    Raises:
        OptionError: as `check_plan` does.
        ExportError: when the weights do not fit the plan, the donor has no head or one that was trained on
            other features, or a graph disagrees with torch.
        OutputError: when the bundle cannot be written.
    """
    check_plan(plan)
    check_output_file(path)
    if donor is not None:
        _check_donor(donor, plan, origin)
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
    fields: dict[str, Any] = {"name": name, "backbone": _backbone_spec(plan, origin, extractor, shipped)}
    fields["description"] = f"{plan.feature.name} without a head"
    if donor is not None and donor.spec.head is not None:
        members[HEAD] = donor.read(donor.spec.head.file)
        head = donor.spec.head.model_copy(update={"file": HEAD})
        fields.update(head=head, affinity=donor.spec.affinity, regions=donor.spec.regions)
        if donor.spec.parts is not None:
            members[PARTS] = donor.read(donor.spec.parts.file)
            fields["parts"] = donor.spec.parts.model_copy(update={"file": PARTS})
        fields["description"] = f"{plan.feature.name} with the head of {donor.spec.name}"
    say(f"writing {path}")
    write_bundle(path, fields, members)


def check_plan(plan: BackbonePlan) -> None:
    """Nothing, if the plan can be carried out given weights that fit; takes no time.

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


def rewrite_bundle(
    bundle: Bundle,
    path: Path,
    *,
    head: tuple[HeadSpec, bytes] | None = None,
    parts: tuple[HeadSpec, bytes] | None = None,
    affinity: AffinitySpec | None = None,
    regions: RegionsSpec | None = None,
    report: tuple[ReportRow, ...] | None = None,
    name: str | None = None,
    description: str | None = None,
) -> None:
    """Writes a copy of a bundle with other heads, report, name or description; what is None stays.

    Args:
        bundle: the bundle to copy; `path` may be its own.
        path: the .patchcut file to write; it is replaced once the new one is whole.
        head: the head and its safetensors file, for the label names' order see `HeadSpec`.
        parts: the same for parts of the foreground.
        affinity: how the head's features are compared.
        regions: which components are regions, and how they score; a new head has no calibration yet.
        report: rows of the accuracy report.
    """
    spec = bundle.spec
    fields = {
        field: getattr(spec, field)
        for field in ("name", "description", "backbone", "affinity", "head", "parts", "regions")
    }
    fields["report"] = spec.report
    members = {file: bundle.read(file) for file in spec.files if file not in (CARD, spec.card)}
    if head is not None:
        if spec.head is not None:
            del members[spec.head.file]
        fields["head"], members[HEAD] = head
        # a report and a calibration of another head say nothing of this one
        fields["report"] = ()
        fields["regions"] = spec.regions.model_copy(update={"calibration": None})
    if parts is not None:
        if spec.parts is not None:
            del members[spec.parts.file]
        fields["parts"], members[PARTS] = parts
        fields["report"] = tuple(row for row in fields["report"] if row.metric not in _PARTS_METRICS)
    changed = {
        "affinity": affinity,
        "regions": regions,
        "report": report,
        "name": name,
        "description": description,
    }
    fields.update({field: value for field, value in changed.items() if value is not None})
    write_bundle(path, fields, members)


def write_bundle(path: Path, fields: dict[str, Any], members: dict[str, bytes]) -> None:
    """Writes a bundle from the fields of its `bundle.json` and its members; the card is made here."""
    files = {name: _file_spec(data) for name, data in members.items()}
    draft = BundleSpec(schema_version=SCHEMA_VERSION, **fields, files=files)
    members = {**members, CARD: render_card(draft).encode()}
    files = {name: _file_spec(data) for name, data in members.items()}
    spec = BundleSpec(schema_version=SCHEMA_VERSION, **fields, card=CARD, files=files)
    write_archive(path, spec.model_dump_json(indent=1), members)


def _check_donor(donor: Bundle, plan: BackbonePlan, origin: Provenance) -> None:
    """Nothing, if the donor has a head that was trained on the features that will be exported."""
    if donor.spec.head is None:
        raise ExportError("bundle", f"{donor.path} has no head", "name a bundle that has one")
    theirs = donor.spec.backbone
    wanted = {"name": plan.feature.name, "source_sha256": origin.sha256}
    wanted |= _feature_fields(check_feature(plan.feature, plan.sizes[0]))
    different = [name for name, value in wanted.items() if getattr(theirs, name) != value]
    if different:
        came = ", ".join(f"{name} {getattr(theirs, name)}, not {wanted[name]}" for name in different)
        what = f"the head of {donor.path} was trained on other features: {came}"
        raise ExportError("bundle", what, "train one with `patchcut export train`")


def _graphs(extractor: FeatureExtractor, size: int, precision: str, say: Say) -> dict[str, onnx.ModelProto]:
    """The graphs to ship for one size, each checked against torch."""
    exact = export_fp32(extractor, size)
    if precision == "fp32":
        graphs = {"fp32": exact}
    else:
        say(f"quantizing {size}x{size} to 8 bits")
        quantized = quantize_int8(exact)
        graphs = {"int8": quantized, "fp32": dequantize_weights(exact, quantized)}
    for name, model in graphs.items():
        cosine = _agreement(extractor, model, size)
        say(f"{size}x{size} {name}: mean cosine to torch {cosine:.6f}")
        least = MIN_COSINE[precision]
        if cosine < least:
            what = f"{name} at {size} has mean cosine {cosine:.5f} to torch, at least {least} needed"
            raise ExportError("export", what, "export with --precision fp32" if precision == "int8" else "")
    return graphs


def _agreement(extractor: FeatureExtractor, model: onnx.ModelProto, size: int) -> float:
    """Mean cosine of the graph's features to torch's on smooth random images, in [-1, 1]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    coarse = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    with torch.inference_mode():
        expected = extractor(image)
    got = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    return float(torch.nn.functional.cosine_similarity(expected, got, dim=-1).mean())


def _backbone_spec(
    plan: BackbonePlan, origin: Provenance, extractor: FeatureExtractor, graphs: list[GraphSpec]
) -> BackboneSpec:
    return BackboneSpec.model_validate(
        {
            "name": plan.feature.name,
            "source": origin.source,
            "source_sha256": origin.sha256,
            "licence": origin.licence,
            "trained_on": origin.trained_on,
            **_feature_fields(extractor.spec),
            "patch_size": extractor.patch_size,
            "feature_dim": extractor.feature_dim,
            "mean": plan.mean,
            "std": plan.std,
            "fit": plan.fit,
            "weights": WEIGHTS,
            "graphs": graphs,
        }
    )


def _graph_spec(file: str, extractor: FeatureExtractor, size: int, precision: str) -> GraphSpec:
    return GraphSpec.model_validate(
        {"file": file, "size_hw": (size, size), "grid_hw": extractor.grid_hw, "precision": precision}
    )


def _feature_fields(spec: FeatureSpec) -> dict[str, Any]:
    """What `bundle.json` says of features, but for their number; `spec` is as `check_feature` returns it."""
    parts = tuple(FeaturePart.model_validate(asdict(one)) for one in spec.components)
    return {
        "facet": spec.components[0].facet,
        "layer": spec.components[0].layer,
        "parts": parts if len(parts) > 1 else (),
        "stride": spec.stride,
        "scales": spec.scales,
        "join": spec.join,
        "log_bins": spec.log_bins,
    }


def _file_spec(data: bytes) -> FileSpec:
    return FileSpec(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
