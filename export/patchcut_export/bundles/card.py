"""The model card inside a bundle, made from its `bundle.json`."""

from __future__ import annotations

from patchcut.bundle import BundleSpec


def render_card(spec: BundleSpec) -> str:
    """The bundle's model card in Markdown."""
    sections = [_backbone(spec), _head(spec), _parts(spec), _scores(spec), _report(spec)]
    parts = [f"# {spec.name}", spec.description, *sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def _backbone(spec: BundleSpec) -> str:
    backbone = spec.backbone
    sizes = ", ".join(dict.fromkeys(f"{g.size_hw[0]}x{g.size_hw[1]}" for g in backbone.graphs))
    precisions = ", ".join(dict.fromkeys(g.precision for g in backbone.graphs))
    lines = [
        "## Backbone",
        "",
        f"- Architecture: {backbone.name}, patches of {backbone.patch_size} pixels",
        f"- Features: {backbone.features_text}",
        f"- Weights: {backbone.source} (sha256 {backbone.source_sha256})",
        f"- Licence: {backbone.licence}",
        f"- Trained on: {backbone.trained_on}",
        f"- Sizes: {sizes}; precisions: {precisions}",
    ]
    if "int8" in precisions:
        lines.append(
            "- The linear layers' weights are stored in 8 bits; the fp32 graphs use the same 8-bit weights."
        )
    return "\n".join(lines)


def _head(spec: BundleSpec) -> str:
    head = spec.head
    if head is None:
        return "## Head\n\nNone. `patchcut export train` makes one."
    lines = [
        "## Head",
        "",
        f"- Kind: {head.kind}, columns: {', '.join(head.labels)}",
        f"- Affinity: {spec.affinity.kind}, {spec.affinity.mode}, threshold {spec.affinity.threshold:g}",
        f"- Trained on: {head.trained_on}",
        f"- Method: {head.method}",
    ]
    return "\n".join(lines)


def _parts(spec: BundleSpec) -> str:
    parts = spec.parts
    if parts is None:
        return ""
    lines = [
        "## Parts",
        "",
        f"- Kind: {parts.kind}, columns: {', '.join(parts.labels)}",
        f"- Trained on: {parts.trained_on}",
        f"- Method: {parts.method}",
    ]
    return "\n".join(lines)


def _scores(spec: BundleSpec) -> str:
    calibration = spec.regions.calibration
    if calibration is None:
        return ""
    lines = [
        "## Scores",
        "",
        f"- Probability that a region is an object, fitted on {calibration.fitted_on}",
        f"- There is nothing where no region scores {calibration.nothing_below:.3f}",
    ]
    return "\n".join(lines)


def _report(spec: BundleSpec) -> str:
    if not spec.report:
        return ""
    header = "| data | metric | value | size | precision | refine | images |"
    rule = "| --- | --- | --- | --- | --- | --- | --- |"
    rows = [
        f"| {r.dataset} | {r.metric} | {r.value:.3f} | {r.size} | {r.precision} | {r.refine} | {r.images} |"
        for r in spec.report
    ]
    return "\n".join(["## Accuracy", "", header, rule, *rows])
