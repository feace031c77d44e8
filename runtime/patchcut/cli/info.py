"""`patchcut info`: what a bundle holds, and what would run it here."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import patchcut_kernels
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import patchcut
from patchcut.bundle import BackboneSpec, Bundle, BundleSpec, HeadSpec, embedded_bundles, open_bundle
from patchcut.checks import check_environment
from patchcut.cli.tables import make_console, precision_text, size_text
from patchcut.errors import PatchcutError
from patchcut.heads import FITTED


def info(bundle: str | None, *, as_json: bool = False) -> int:
    """Exit status 0, after everything known of a bundle was printed.

    Args:
        bundle: a name of an embedded bundle or a path; None is the default.
    Raises:
        BundleError: it is missing, damaged (every checksum is looked at), foreign or newer.
    """
    check_environment()
    with open_bundle(bundle) as opened:
        opened.verify()
        facts, spec = _facts(opened), opened.spec
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print(make_console(), spec, facts)
    return 0


def list_bundles(*, as_json: bool = False) -> int:
    """Exit status 0, after the embedded bundles were printed."""
    bundles = [_entry(name, path) for name, path in embedded_bundles().items()]
    if as_json:
        print(json.dumps(bundles, indent=1))
        return 0
    table = Table("name", "MB", "backbone", "heads", "graphs", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for entry in bundles:
        lists = ("\n".join(entry[key]) for key in ("backbones", "heads", "graphs"))
        table.add_row(entry["name"], f"{entry['bytes'] / 1e6:.1f}", *lists)
    make_console().print(table)
    return 0


def _entry(name: str, path: Path) -> dict[str, Any]:
    with open_bundle(path) as bundle:
        backbones, heads = bundle.spec.backbones, bundle.spec.heads
    return {
        "name": name,
        "path": str(path),
        "bytes": path.stat().st_size,
        "backbones": list(backbones),
        "heads": [f"{head.name} ({head.role})" for head in heads],
        "graphs": list(dict.fromkeys(text for backbone in backbones.values() for text in _graphs(backbone))),
    }


def _facts(bundle: Bundle) -> dict[str, Any]:
    spec = bundle.spec
    card = bundle.read(spec.card).decode("utf-8", "replace") if spec.card else ""
    initializers = {"__all__": {"graphs": {"__all__": {"initializers"}}}}
    return {
        "path": str(bundle.path),
        "bytes": bundle.path.stat().st_size,
        "sha256": hashlib.sha256(bundle.path.read_bytes()).hexdigest(),
        **spec.model_dump(mode="json", exclude={"card": True, "backbones": initializers}),
        "card": card,
        "machine": _machine(bundle.path),
    }


def _machine(path: Path) -> dict[str, Any]:
    """What this machine would run the bundle with; {"error": ...} where it cannot."""
    kernels = {"cpu": platform.processor() or platform.machine(), "isa": patchcut_kernels.get_isa()}
    try:
        return {**patchcut.load(path).describe().to_dict(), **kernels}
    except PatchcutError as error:
        return {"error": str(error), **kernels}


def _print(console: Console, spec: BundleSpec, facts: dict[str, Any]) -> None:
    sections = [(spec.name, _bundle_rows(spec, facts))]
    sections += [(f"backbone {name}", _backbone_rows(it)) for name, it in spec.backbones.items()]
    sections += [(f"head {head.name}", _head_rows(head)) for head in spec.heads]
    sections.append(("on this machine", _machine_rows(facts["machine"])))
    for title, rows in sections:
        console.print(f"\n{title}", style="bold")
        console.print(_pairs(rows))
    if (table := _report_table(spec)).rows:
        console.print("\naccuracy", style="bold")
        console.print(table)
    if facts["card"]:
        console.print("\nmodel card", style="bold")
        console.print(facts["card"].strip())


def _bundle_rows(spec: BundleSpec, facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("what", spec.description),
        ("file", f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB, {len(spec.files)} members, all whole)"),
        ("sha256", facts["sha256"]),
        ("heads", ", ".join(head.name for head in spec.heads) or "none"),
        ("or, untrained", f"{', '.join(FITTED)}: fitted to each frame, see --head"),
    ]


def _backbone_rows(backbone: BackboneSpec) -> list[tuple[str, str]]:
    return [
        ("model", backbone.model),
        ("source", backbone.source),
        ("sha256", backbone.source_sha256),
        ("licence", backbone.licence),
        ("trained on", backbone.trained_on),
        *((f"features {name}", backbone.features_text(name)) for name in backbone.features),
        ("graphs", f"{', '.join(_graphs(backbone))} (the first is the default)"),
    ]


def _graphs(backbone: BackboneSpec) -> list[str]:
    return [f"{size_text(graph.size_hw)} {graph.precision}" for graph in backbone.graphs]


def _head_rows(head: HeadSpec) -> list[tuple[str, str]]:
    scores = "rank regions; they are no probabilities"
    if head.calibration is not None:
        scores = f"are probabilities; nothing is found below {head.calibration.nothing_below:.3f}"
    return [
        ("kind", f"{head.kind}, finds {head.role}"),
        ("features", f"{', '.join(head.features)} of {head.backbone}"),
        ("method", head.method),
        ("trained on", head.trained_on),
        ("labels", ", ".join(head.labels)),
        ("scores", scores),
    ]


def _machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" in machine:
        return [("cannot run", machine["error"]), ("kernels", machine["isa"])]
    precision = precision_text(machine["precision"], machine["weights"])
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
    titles = ("head", "dataset", "metric", "value", "size", "precision", "images", "refine")
    table = Table(*titles, box=SIMPLE_HEAD)
    rows = [(row.head or head.name, row) for head in spec.heads for row in head.report]
    rows += [(row.head, row) for backbone in spec.backbones.values() for row in backbone.report]
    for head, row in rows:
        accuracy = (row.dataset, row.metric, f"{row.value:.3f}")
        table.add_row(head, *accuracy, *map(str, (row.size, row.precision, row.images)), row.refine)
    return table
