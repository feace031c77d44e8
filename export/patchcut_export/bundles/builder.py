"""Builds bundles: exports a backbone at every size and precision, checks each graph, packs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import onnx
import torch
from patchcut.bundle import (
    AgreementRow,
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
    OPSET,
    export_fp32,
    graph_bytes,
    set_offsets,
    share_weights,
)
from patchcut_export.backbones.spec import MAX_SIZE, FeatureSpec, ViTSpec, check_spec
from patchcut_export.backbones.vit import Extracting, build_extractor
from patchcut_export.backbones.weights import Provenance, StateDict
from patchcut_export.bundles.archive import safetensors_bytes, safetensors_extents
from patchcut_export.bundles.rewriting import file_specs, with_agreement, write_bundle
from patchcut_export.errors import ExportError
from patchcut_export.measuring.datasets import Dataset
from patchcut_export.outputs import check_output_file
from patchcut_export.precision import CALIBRATED, EIGHT_BIT, convert
from patchcut_export.precision.bf16 import rounded_to_bf16
from patchcut_export.precision.gate import measure, refused
from patchcut_export.precision.pictures import Pictures, as_inputs, fewer, random_pictures

WEIGHTS = "backbone.safetensors"
# Least mean cosine of a graph's features to torch's with which it is shipped, or made into other precisions.
MIN_COSINE = 0.99999

Say = Callable[[str], None]
Models = dict[tuple[int, Precision], onnx.ModelProto]


@dataclass(frozen=True)
class BackbonePlan:
    """What to export.

    Attributes:
        vit: the ViT and the feature sets that are taken from it; the first is the default.
        sizes: sides of the square inputs in pixels, multiples of the patch size; the first is the default.
        precisions: of the graphs, the default first. Beside graphs in 8 bits there is one in fp32 on the same
            8-bit weights.
        pictures: photos that precisions are fitted to and measured on; None is random pictures.
        truth: masks or boxes that masks are measured by.
        allow_inaccurate: whether precisions that are too far from fp32 are shipped; the bundle says it.
        mean, std: of the images that the ViT was trained on, RGB in 0..1.
        fit: "stretch" or "letterbox".
    """

    vit: ViTSpec = field(default_factory=ViTSpec)
    sizes: tuple[int, ...] = (224, 448)
    precisions: tuple[Precision, ...] = ("int8",)
    pictures: Pictures | None = None
    truth: Dataset | None = None
    allow_inaccurate: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fit: str = "stretch"

    @property
    def is_eight_bit(self) -> bool:
        """Whether the weights are in 8 bits."""
        return any(precision in EIGHT_BIT for precision in self.precisions)

    @property
    def shipped(self) -> tuple[Precision, ...]:
        """Precisions of the graphs."""
        more: tuple[Precision, ...] = ("fp32",) if self.is_eight_bit else ()
        return tuple(dict.fromkeys((*self.precisions, *more)))


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
            was trained on other features, a graph disagrees with torch, or a precision with fp32.
        OutputError: when the bundle cannot be written.
    """
    check_plan(plan)
    check_output_file(path)
    _check_finite(state)
    heads = [] if donor is None else heads_of(donor, plan, origin)
    extractors = {size: build_extractor(plan.vit, dict(state), size) for size in plan.sizes}
    about = "without a head" if donor is None else f"with the head of {donor.spec.name}"
    description = f"{plan.vit.model} {about}"
    write_extractors(path, Content(name, description, plan, origin, extractors, heads, donor), say)


@dataclass(frozen=True)
class Content:
    """What a bundle is made of.

    Attributes:
        name, description: its own.
        plan: sizes and precisions of its graphs, and what they are measured on.
        origin: where the weights are from.
        extractors: by size, what the graphs compute.
        heads: what it finds things by.
        donor: the bundle that has the heads' files, or None.
    """

    name: str
    description: str
    plan: BackbonePlan
    origin: Provenance
    extractors: Mapping[int, Extracting]
    heads: Sequence[HeadSpec] = ()
    donor: Bundle | None = None


def write_extractors(path: Path, content: Content, say: Say) -> None:
    """Exports the extractors at every size and precision, checks each graph, and writes the bundle.

    Raises:
        ExportError: a graph disagrees with torch, or a precision with fp32.
        OutputError: the bundle cannot be written.
    """
    plan = content.plan
    exact: Models = {}
    models: Models = {}
    for size, extractor in content.extractors.items():
        say(f"exporting {plan.vit.model} at {size}x{size}")
        exact[size, "fp32"] = _checked(export_fp32(extractor, size), extractor, size)
    for (size, _), model in exact.items():
        models |= _graphs(model, size, plan, say)
    rows = _gate(content, models, exact, say)
    say(f"writing {path}")
    spec, members = _pack(content, models)
    write_bundle(path, with_agreement(spec, rows), members)


def _pack(content: Content, models: Models) -> tuple[BundleSpec, dict[str, bytes]]:
    """The manifest and the members of a bundle of these graphs; equal weights are in it once."""
    plan, donor = content.plan, content.donor
    graphs = []
    files: dict[str, onnx.ModelProto] = {}
    for (size, precision), model in models.items():
        file = f"backbone-{size}-{precision}.onnx"
        files[file] = onnx.ModelProto()
        files[file].CopyFrom(model)
        graphs.append(_graph_spec(file, content.extractors[size], size, precision))
    shared = share_weights(files, WEIGHTS)
    weights = safetensors_bytes(shared.weights)
    set_offsets(files.values(), safetensors_extents(weights))
    shipped = [g.model_copy(update={"initializers": tuple(shared.initializers[g.file])}) for g in graphs]
    extractor = content.extractors[plan.sizes[0]]
    about_graphs = {g.file: _about(plan, content.extractors[g.size_hw[0]], g) for g in graphs}
    members = {WEIGHTS: weights}
    members |= {file: graph_bytes(model, about_graphs[file]) for file, model in files.items()}
    regions = RegionsSpec()
    if donor is not None:
        regions = donor.spec.regions
        members |= {file: donor.read(file) for head in content.heads for file in head.files.values()}
    spec = BundleSpec(
        name=content.name,
        description=content.description,
        backbones={plan.vit.model: _backbone_spec(plan, content.origin, extractor, shipped)},
        heads=tuple(content.heads),
        regions=regions,
        files=file_specs(members),
    )
    return spec, members


def _gate(content: Content, models: Models, exact: Models, say: Say) -> tuple[AgreementRow, ...]:
    """How near each precision comes to fp32.

    Raises:
        ExportError: a precision is too far from it, and that was not allowed.
    """
    plan = content.plan
    if all(models[key] is exact.get(key) for key in models):
        return ()
    say("measuring the precisions against fp32")
    run = {key: rounded_to_bf16(one) if key[1] == "bf16" else one for key, one in models.items()}
    with TemporaryDirectory(prefix="patchcut-") as folder:
        candidate, reference = (Path(folder) / f"{name}.patchcut" for name in ("candidate", "exact"))
        write_bundle(candidate, *_pack(content, run))
        write_bundle(reference, *_pack(content, exact))
        rows = measure(candidate, reference, plan.pictures or random_pictures(), plan.truth, say)
    error = refused(rows, [precision for _, precision in models])
    if error is not None and not plan.allow_inaccurate:
        raise error
    return rows


def check_plan(plan: BackbonePlan) -> None:
    """Checks that a plan can be carried out, given weights that fit; takes no time.

    Raises:
        OptionError: naming the option that cannot be.
    """
    if not plan.precisions:
        raise OptionError("precision", "must be given at least once, got none")
    for precision in plan.precisions:
        check_choice("precision", precision, get_args(Precision))
        if precision in CALIBRATED and plan.pictures is None:
            raise OptionError("precision", f"{precision} must be fitted to photos", "pass --calibrate DIR")
    if not plan.sizes or len(set(plan.sizes)) != len(plan.sizes):
        given = ", ".join(map(str, plan.sizes)) or "none"
        raise OptionError("size", f"must be given at least once, and each only once, got {given}")
    for size in plan.sizes:
        if not 1 <= size <= MAX_SIZE:
            raise OptionError("size", f"must be from 1 to {MAX_SIZE} pixels, got {size}")
        check_spec(plan.vit, size)


def _check_finite(state: StateDict) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ExportError("weights", f"{name} is not finite", "use weights of a training that went well")


def heads_of(donor: Bundle, plan: BackbonePlan, origin: Provenance) -> list[HeadSpec]:
    """The donor's heads, for the backbone that will be exported; nothing was measured of them there yet.

    Raises:
        ExportError: it has none, or they were trained on other features.
    A decoder stays behind: it is a part of the donor's graphs.
    """
    heads = [head for head in donor.spec.heads if head.kind != "decoder"]
    first = next((head for head in heads if head.role == "objects"), next(iter(heads), None))
    if first is None:
        what = "no head" if not donor.spec.heads else "no head but a decoder, which is a part of its graphs"
        raise ExportError("bundle", f"{donor.path} has {what}", "name a bundle that has one")
    ours, theirs = check_spec(plan.vit, plan.sizes[0]), donor.spec.backbones[first.backbone]
    different = _differences(
        theirs, {"model": ours.model, "source_sha256": origin.sha256, "stride": ours.stride}
    )
    names = {name: _same_set(one, ours) for name, one in theirs.features.items()}
    for name in first.features:
        if names[name] is None:
            nearest = ours.features.get(name, next(iter(ours.features.values())))
            different += _differences(theirs.features[name], _feature_fields(nearest))
    if different:
        what = f"the head of {donor.path} was trained on other features: {', '.join(different)}"
        raise ExportError("bundle", what, "train one with `patchcut export train`")
    moved = []
    for head in heads:
        features = (
            tuple(names[name] for name in head.features) if head.backbone == first.backbone else (None,)
        )
        if all(features):
            update = {"backbone": ours.model, "features": features, "report": ()}
            moved.append(head.model_copy(update=update))
    return moved


def _same_set(theirs: FeatureSetSpec, ours: ViTSpec) -> str | None:
    """The name of our set that is the donor's."""
    sets = ours.features.items()
    return next((name for name, one in sets if not _differences(theirs, _feature_fields(one))), None)


def _differences(theirs: BackboneSpec | FeatureSetSpec, ours: Mapping[str, object]) -> list[str]:
    """What of a donor's is not as ours, for people."""
    pairs = [(name, getattr(theirs, name), value) for name, value in ours.items()]
    return [f"{name} {came}, not {value}" for name, came, value in pairs if came != value]


def _graphs(exact: onnx.ModelProto, size: int, plan: BackbonePlan, say: Say) -> Models:
    """The graphs to ship for one size."""
    photos = [] if plan.pictures is None else fewer(plan.pictures.fitted, size)
    graphs: Models = {}
    for precision in plan.shipped:
        if precision == "fp32" and not plan.is_eight_bit:
            graphs[size, precision] = exact
            continue
        say(f"making {size}x{size} in {precision}")
        inputs = as_inputs(photos, size, plan.mean, plan.std, plan.fit) if precision in CALIBRATED else []
        graphs[size, precision] = convert(exact, precision, inputs)
    return graphs


def _checked(model: onnx.ModelProto, extractor: Extracting, size: int) -> onnx.ModelProto:
    """The graph, if it computes what torch does.

    Raises:
        ExportError: it does not.
    """
    cosine = _agreement(extractor, model, size)
    if not cosine >= MIN_COSINE:  # and where it is not a number
        what = f"the graph at {size} has mean cosine {cosine:.5f} to torch, at least {MIN_COSINE} needed"
        raise ExportError("export", what, "try another version of torch")
    return model


def _agreement(extractor: Extracting, model: onnx.ModelProto, size: int) -> float:
    """Mean cosine in [-1, 1] of features to torch's on smooth random images, run as the runtime does.

    The least of all feature sets.
    """
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        session_options(onnxruntime, default_threads(), "fp32"),
        providers=["CPUExecutionProvider"],
    )
    smooth = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.5
    image = torch.nn.functional.interpolate(smooth, size=(size, size), mode="bicubic")
    with torch.inference_mode():
        expected = extractor(image)
    got = session.run(list(extractor.spec.features), {"image": image.numpy()})
    cosine = torch.nn.functional.cosine_similarity
    means = [cosine(a, torch.from_numpy(b), dim=-1).mean() for a, b in zip(expected, got, strict=True)]
    return float(torch.stack(means).min())  # which is not a number if one of them is none


def _backbone_spec(
    plan: BackbonePlan, origin: Provenance, extractor: Extracting, graphs: list[GraphSpec]
) -> BackboneSpec:
    features = {
        name: {"output": name, "dim": extractor.dims[name], **_feature_fields(one)}
        for name, one in extractor.spec.features.items()
    }
    return BackboneSpec.model_validate(
        {
            "model": plan.vit.model,
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
            "features": features,
        }
    )


def _about(plan: BackbonePlan, extractor: Extracting, graph: GraphSpec) -> str:
    """The card inside a graph, for those who take nothing else of the bundle."""
    side, (rows, columns) = graph.size_hw[0], graph.grid_hw
    outputs = [
        f"{name} [batch, {1 if one.of_image else rows * columns * one.cells**2}, {extractor.dims[name]}]"
        for name, one in extractor.spec.features.items()
    ]
    return (
        f"{plan.vit.model} in {graph.precision}, ONNX opset {OPSET}, by patchcut. "
        f"image [batch, 3, {side}, {side}] float32: RGB in 0..1 less {plan.mean}, over {plan.std}. "
        f"Features of {rows} x {columns} patches: {', '.join(outputs)} float32."
    )


def _graph_spec(file: str, extractor: Extracting, size: int, precision: str) -> GraphSpec:
    return GraphSpec.model_validate(
        {"file": file, "size_hw": (size, size), "grid_hw": extractor.grid_hw, "precision": precision}
    )


def _feature_fields(spec: FeatureSpec) -> dict[str, Any]:
    """What `bundle.json` says of features, all but their number; `spec` is as `check_spec` returns it."""
    return {
        "components": tuple(FeatureComponent.model_validate(asdict(one)) for one in spec.components),
        "scales": spec.scales,
        "join": spec.join,
        "log_bins": spec.log_bins,
        "cells": spec.cells,
    }
