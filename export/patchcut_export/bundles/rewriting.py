"""Changes of bundles that leave the graphs alone: another head or report. No torch or onnx is imported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchcut.bundle import Bundle, BundleSpec, FileSpec, HeadSpec, ReportRow, Role, TimingRow

from patchcut_export.bundles.archive import write_archive
from patchcut_export.bundles.card import render_card

CARD = "card.md"
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
    fields = {**spec.model_dump(), "card": CARD, "files": file_specs(members)}
    write_archive(path, BundleSpec.model_validate(fields).model_dump_json(indent=1), members)


def file_specs(members: Mapping[str, bytes]) -> dict[str, FileSpec]:
    """What `bundle.json` says of members."""
    return {
        name: FileSpec(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in members.items()
    }
