"""Changes of bundles that leave the graphs alone: another head or report. No torch or onnx is imported."""

from __future__ import annotations

from typing import Any

from patchcut.bundle import AgreementRow, BundleSpec, HeadSpec, ReportRow, Role, TimingRow
from patchcut.bundle.writing import file_specs, rewrite_bundle, with_head, write_bundle

__all__ = [
    "file_specs",
    "gnn_head",
    "rewrite_bundle",
    "with_agreement",
    "with_head",
    "with_report",
    "with_timings",
    "write_bundle",
]

# Name and weights of the head that training makes, by what it finds; one of the same name is replaced.
_TRAINED: dict[Role, tuple[str, str]] = {
    "objects": ("gnn", "head.safetensors"),
    "parts": ("parts", "parts.safetensors"),
}


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


def with_timings(spec: BundleSpec, rows: tuple[TimingRow, ...]) -> BundleSpec:
    """A copy with rows among the times of the backbone that the first head reads.

    Older ones of the same engine, precision, size, device and kind of CPU are replaced.
    """
    head = spec.head()
    name = head.backbone if head else next(iter(spec.backbones))
    backbone = spec.backbones[name]
    measured = {_what_ran(row) for row in rows}
    kept = tuple(row for row in backbone.timings if _what_ran(row) not in measured)
    changed = backbone.model_copy(update={"timings": (*kept, *rows)})
    return spec.model_copy(update={"backbones": {**spec.backbones, name: changed}})


def _what_ran(row: TimingRow) -> tuple[str, str, int, str, str]:
    return row.engine, row.precision, row.size, row.device, row.cpu


def with_agreement(spec: BundleSpec, rows: tuple[AgreementRow, ...]) -> BundleSpec:
    """A copy with what the gate measured of the first backbone, in the place of what it measured before."""
    name, backbone = next(iter(spec.backbones.items()))
    changed = backbone.model_copy(update={"agreement": rows})
    return spec.model_copy(update={"backbones": {**spec.backbones, name: changed}})


def _merge(old: tuple[ReportRow, ...], new: tuple[ReportRow, ...]) -> tuple[ReportRow, ...]:
    kinds = {_kind(row) for row in new}
    return (*(row for row in old if _kind(row) not in kinds), *new)


def _kind(row: ReportRow) -> tuple[str, str, int, str, str, str]:
    return (row.dataset, row.metric, row.size, row.precision, row.refine, row.head)
