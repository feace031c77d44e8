"""The model card inside a bundle, made from its `bundle.json`."""

from __future__ import annotations

from patchcut.bundle.spec import BackboneSpec, BundleSpec, HeadSpec


def render_card(spec: BundleSpec) -> str:
    """The bundle's model card in Markdown."""
    sections = [f"# {spec.name}", spec.description]
    sections += [_backbone(name, backbone) for name, backbone in spec.backbones.items()]
    sections += [_head(head) for head in spec.heads]
    if not spec.heads:
        sections.append("## Head\n\nNone. `patchcut export train` makes one.")
    return "\n\n".join([*sections, *_report(spec), *_agreement(spec), *_times(spec)]) + "\n"


def _backbone(name: str, backbone: BackboneSpec) -> str:
    sizes = ", ".join(dict.fromkeys(f"{g.size_hw[0]}x{g.size_hw[1]}" for g in backbone.graphs))
    precisions = ", ".join(dict.fromkeys(g.precision for g in backbone.graphs))
    lines = [
        f"## Backbone {name}",
        "",
        f"- Architecture: {backbone.model}, patches of {backbone.patch_size} pixels",
        *(f"- Features {features}: {backbone.features_text(features)}" for features in backbone.features),
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


def _head(head: HeadSpec) -> str:
    affinity = head.affinity
    compared = f"- Affinity: {affinity.kind}, {affinity.mode}, threshold {affinity.threshold:g}"
    lines = [
        f"## Head {head.name}",
        "",
        f"- Kind: {head.kind}, finds {head.role}, columns: {', '.join(head.labels)}",
        f"- Features: {', '.join(head.features)} of {head.backbone}",
        *([] if head.kind == "decoder" else [compared]),
        f"- Trained on: {head.trained_on}",
        f"- Method: {head.method}",
    ]
    if (calibration := head.calibration) is not None:
        lines += [
            f"- Scores: probability that a region is an object, fitted on {calibration.fitted_on}",
            f"- Regions that score less than {calibration.nothing_below:.3f} are no objects",
        ]
    return "\n".join(lines)


def _report(spec: BundleSpec) -> list[str]:
    rows = [(row.head or head.name, row) for head in spec.heads for row in head.report]
    rows += [(row.head, row) for backbone in spec.backbones.values() for row in backbone.report]
    if not rows:
        return []
    lines = [
        "| head | data | metric | value | size | precision | refine | images |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for head, row in rows:
        cells = (row.dataset, row.metric, f"{row.value:.3f}", row.size, row.precision, row.refine, row.images)
        lines.append(f"| {head} | {' | '.join(map(str, cells))} |")
    return ["## Accuracy", "\n".join(lines)]


def _agreement(spec: BundleSpec) -> list[str]:
    rows = [row for backbone in spec.backbones.values() for row in backbone.agreement]
    if not rows:
        return []
    lines = [
        "| precision | size | features | cosine | worst | affinity | labels | IoU | CorLoc | data |  |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        labels = "" if row.label_agreement is None else f"{row.label_agreement:.2%}"
        masks = ["" if one is None else f"{one:+.3f}" for one in (row.iou, row.corloc)]
        cosines = (f"{row.cosine_mean:.5f}", f"{row.cosine_worst:.4f}", f"{row.affinity_correlation:.4f}")
        data = f"{row.images} images: {row.data}; {row.engine}"
        mark = "" if row.accepted else "**inaccurate**"
        cells = (row.precision, row.size, row.features, *cosines, labels, *masks, data, mark)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    said = ["## Agreement with fp32", "\n".join(lines)]
    if not all(row.accepted for row in rows):
        said.append(
            "**Inaccurate** precisions did not pass the gate of the export; they were let through with "
            "`--allow-inaccurate` and are never chosen by themselves."
        )
    return said


def _times(spec: BundleSpec) -> list[str]:
    rows = [row for backbone in spec.backbones.values() for row in backbone.timings]
    if not rows:
        return []
    lines = [
        "| engine | precision | size | device | CPU | threads | ms | machine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (row.engine, row.precision, row.size, row.device, row.cpu, row.threads, f"{row.ms:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {row.machine} |")
    return ["## Times", "Of the backbone, for one frame:", "\n".join(lines)]
