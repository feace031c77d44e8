"""Builds bundles: exports a backbone at every size and precision, checks each graph, packs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
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
    FileSpec,
    GraphSpec,
    HeadSpec,
    Precision,
    RegionsSpec,
    ReportRow,
    Role,
)
from patchcut.checks import check_choice
from patchcut.engines.onnxruntime import import_onnxruntime, session_options
from patchcut.errors import OptionError
from patchcut_kernels import default_threads

from patchcut_export.backbones.onnx_export import OUTPUT, export_fp32, set_offsets, share_weights
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
CARD = "card.md"
# Name and weights of the head that training makes, by what it finds; one of the same name is replaced.
_TRAINED: dict[Role, tuple[str, str]] = {
    "objects": ("gnn", "head.safetensors"),
    "parts": ("parts", "parts.safetensors"),
}
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
        ExportError: when the weights do not fit the plan, the donor has no head or one that was trained on
            other features, or a graph disagrees with torch.
        OutputError: when the bundle cannot be written.
    """
    check_plan(plan)
    check_output_file(path)
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
        files=_file_specs(members),
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


def gnn_head(spec: BundleSpec, role: Role, **fields: Any) -> HeadSpec:
    """A GNN on the default features of a bundle.

    Args:
        spec: the bundle's manifest.
        role: "objects" or "parts"; decides the name of the head and of its file.
        fields: all others of HeadSpec; `labels` must be among them.
    """
    name, file = _TRAINED[role]
    if any(file in head.files.values() for head in spec.heads if head.name != name):
        file = f"{name}-{file}"  # the other head keeps its weights
    backbone, features = next(iter(spec.backbones)), next(iter(spec.backbone.features))
    made = {"name": name, "kind": "gnn", "role": role, "backbone": backbone, "features": (features,)}
    return HeadSpec.model_validate({**made, "files": {"weights": file}, **fields})


def with_head(spec: BundleSpec, head: HeadSpec) -> BundleSpec:
    """A copy with this head in the place of the one of its name, or else as the first of its role.

    Calibration and report are the head's own: those of the old one are gone with it.
    """
    heads, names = list(spec.heads), [old.name for old in spec.heads]
    if head.name in names:
        heads[names.index(head.name)] = head
    else:
        roles = [old.role for old in heads]
        heads.insert(roles.index(head.role) if head.role in roles else len(heads), head)
    return spec.model_copy(update={"heads": tuple(heads)})


def with_report(spec: BundleSpec, rows: tuple[ReportRow, ...], head: str | None = None) -> BundleSpec:
    """A copy with rows in a report, in the place of older ones of the same kind.

    Args:
        rows: what was measured.
        head: name of the trained head that was measured, None for one that is fitted to the features of the
            first backbone; then each row's `head` says which.
    """
    if head is not None:
        owner = next(old for old in spec.heads if old.name == head)
        return with_head(spec, owner.model_copy(update={"report": _merge(owner.report, rows)}))
    name, backbone = next(iter(spec.backbones.items()))
    changed = backbone.model_copy(update={"report": _merge(backbone.report, rows)})
    return spec.model_copy(update={"backbones": {**spec.backbones, name: changed}})


def _merge(old: tuple[ReportRow, ...], new: tuple[ReportRow, ...]) -> tuple[ReportRow, ...]:
    kinds = {_kind(row) for row in new}
    return (*(row for row in old if _kind(row) not in kinds), *new)


def _kind(row: ReportRow) -> tuple[str, str, int, str, str, str]:
    return (row.dataset, row.metric, row.size, row.precision, row.refine, row.head)


def rewrite_bundle(
    bundle: Bundle, path: Path, spec: BundleSpec, members: Mapping[str, bytes] | None = None
) -> None:
    """Writes a changed copy of a bundle.

    Args:
        bundle: the bundle to copy; `path` may be its own.
        path: the .patchcut file to write; it is replaced once the new one is whole.
        spec: the manifest of the copy, such as `with_head` makes from `bundle.spec`.
        members: those that the bundle has not, or has otherwise; what `spec` does not name is left out.
    """
    changed, named = members or {}, spec.members() - {spec.card}
    names = [name for name in dict.fromkeys([*bundle.spec.files, *changed]) if name in named]
    write_bundle(
        path, spec, {name: changed[name] if name in changed else bundle.read(name) for name in names}
    )


def write_bundle(path: Path, spec: BundleSpec, members: dict[str, bytes]) -> None:
    """Writes a bundle from its manifest and its members; the card, checksums and sizes are made here."""
    members = {**members, CARD: render_card(spec).encode()}
    fields = {**spec.model_dump(), "card": CARD, "files": _file_specs(members)}
    write_archive(path, BundleSpec.model_validate(fields).model_dump_json(indent=1), members)


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
        if cosine < least:
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


def _file_specs(members: Mapping[str, bytes]) -> dict[str, FileSpec]:
    return {
        name: FileSpec(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in members.items()
    }
