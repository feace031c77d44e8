"""`patchcut info`: what a bundle holds, and what would run it here."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import patchcut_kernels
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import patchcut
from patchcut.bundle import Bundle, BundleSpec, open_bundle
from patchcut.cli.tables import arithmetic, make_console, size_text
from patchcut.errors import PatchcutError
from patchcut.heads import FITTED


def info(path: Path | None, *, as_json: bool = False) -> int:
    """Exit status 0, after everything known of a bundle was printed.

    Raises:
        BundleError: it is missing, damaged (every checksum is looked at), foreign or newer.
    """
    with open_bundle(path) as bundle:
        bundle.verify()
        facts = _facts(bundle)
        spec = bundle.spec
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(make_console(), spec, facts)
    return 0


def _facts(bundle: Bundle) -> dict[str, Any]:
    spec = bundle.spec
    card = bundle.read(spec.card).decode("utf-8", "replace") if spec.card else ""
    return {
        "path": str(bundle.path),
        "bytes": bundle.path.stat().st_size,
        "sha256": hashlib.sha256(bundle.path.read_bytes()).hexdigest(),
        **spec.model_dump(
            mode="json", exclude={"card": True, "backbone": {"graphs": {"__all__": {"initializers"}}}}
        ),
        "card": card,
        "machine": _machine(bundle.path),
    }


def _machine(path: Path) -> dict[str, Any]:
    """What this machine would run the bundle with; {"error": ...} where it cannot."""
    kernels = {"cpu": platform.processor() or platform.machine(), "isa": patchcut_kernels.get_isa()}
    try:
        return {**asdict(patchcut.load(path).describe()), **kernels}
    except PatchcutError as error:
        return {"error": str(error), **kernels}


def _print(console: Console, spec: BundleSpec, facts: dict[str, Any]) -> None:
    for title, rows in (
        (spec.name, _bundle_rows(spec, facts)),
        ("backbone", _backbone_rows(spec)),
        ("head", _head_rows(spec)),
        ("on this machine", _machine_rows(facts["machine"])),
    ):
        console.print(f"\n{title}", style="bold")
        console.print(_pairs(rows))
    if spec.report:
        console.print("\naccuracy", style="bold")
        console.print(_report_table(spec))
    if facts["card"]:
        console.print("\nmodel card", style="bold")
        console.print(facts["card"].strip())


def _bundle_rows(spec: BundleSpec, facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("what", spec.description),
        ("file", f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB, {len(spec.files)} members, all whole)"),
        ("sha256", facts["sha256"]),
    ]


def _backbone_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    backbone = spec.backbone
    graphs = ", ".join(f"{size_text(g.size_hw)} {g.precision}" for g in backbone.graphs)
    return [
        ("name", backbone.name),
        ("source", backbone.source),
        ("sha256", backbone.source_sha256),
        ("licence", backbone.licence),
        ("trained on", backbone.trained_on),
        ("features", backbone.features_text),
        ("graphs", f"{graphs} (the first is the default)"),
    ]


def _head_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    without_training = ("or, untrained", f"{', '.join(FITTED)}: fitted to each frame, see --head")
    if spec.head is None:
        return [("kind", "none"), without_training]
    calibration, parts = spec.regions.calibration, spec.parts
    scores = "rank regions; they are no probabilities"
    if calibration is not None:
        scores = f"are probabilities; nothing is found below {calibration.nothing_below:.3f}"
    return [
        ("kind", spec.head.kind),
        ("method", spec.head.method),
        ("trained on", spec.head.trained_on),
        ("labels", ", ".join(spec.head.labels)),
        *([("parts", f"{parts.kind}: {', '.join(parts.labels)}")] if parts else []),
        ("scores", scores),
        without_training,
    ]


def _machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" in machine:
        return [("cannot run", machine["error"]), ("kernels", machine["isa"])]
    precision = arithmetic(machine["precision"], machine["weights"])
    return [
        ("engine", f"{machine['engine']} ({machine['provider']})"),
        ("device", machine["device"]),
        (
            "precision",
            f"{precision} at {size_text(machine['size_hw'])}",
        ),
        ("head", machine["head"]),
        ("threads", f"{machine['threads']} of the engine, {machine['kernel_threads']} of the kernels"),
        ("kernels", f"{machine['isa']} on {machine['cpu']}"),
    ]


def _pairs(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", value)
    return table


def _report_table(spec: BundleSpec) -> Table:
    titles = ("dataset", "metric", "value", "size", "precision", "images", "refine", "head")
    table = Table(*titles, box=SIMPLE_HEAD)
    for row in spec.report:
        values = (
            row.dataset,
            row.metric,
            f"{row.value:.3f}",
            row.size,
            row.precision,
            row.images,
            row.refine,
            row.head or "its own",
        )
        table.add_row(*map(str, values))
    return table
