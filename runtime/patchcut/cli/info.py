"""`patchcut info`: what a bundle holds, and what would run it here."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import patchcut_kernels
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import patchcut
from patchcut.bundle import BackboneSpec, Bundle, BundleSpec, HeadSpec, embedded_bundles, open_bundle
from patchcut.bundle.spec import AgreementRow, ReportRow, TimingRow
from patchcut.checks import check_environment
from patchcut.cli.printing import make_console, print_rows
from patchcut.cli.tables import precision_text, refusal, size_text
from patchcut.engines import cpu_kind
from patchcut.engines.choice import is_refused
from patchcut.errors import PatchcutError
from patchcut.heads import FITTED
from patchcut.texts import name_text, one_line

_SHORT_REPORTS = 8
# What tables show already.
_CARDS_TABLES = re.compile(
    r"^## (Accuracy|Agreement with fp32|Times)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL
)


def info(bundle: str | None, *, as_json: bool = False, verbose: bool = False) -> int:
    """Exit status 0, after what matters of a bundle was printed.

    Args:
        bundle: a name of an embedded bundle or a path; None is the default.
        verbose: everything that is known of it.
    Raises:
        BundleError: it is missing, damaged (every checksum is looked at), foreign or newer.
    """
    check_environment()
    with open_bundle(bundle) as opened:
        opened.verify()
        facts, spec = _facts(opened), opened.spec
    if as_json:
        print(json.dumps(facts, indent=1))
    elif verbose:
        _print_all(spec, facts)
    else:
        _print_short(spec, facts)
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
        lists = ("\n".join(map(one_line, entry[key])) for key in ("backbones", "heads", "graphs"))
        table.add_row(one_line(entry["name"]), f"{entry['bytes'] / 1e6:.1f}", *lists)
    make_console().print(table)
    return 0


def _entry(name: str, path: Path) -> dict[str, Any]:
    with open_bundle(path) as bundle:
        backbones, heads = bundle.spec.backbones, bundle.spec.heads
    return {
        "name": name,
        "path": name_text(path),
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
        "path": name_text(bundle.path),
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


def _print_short(spec: BundleSpec, facts: dict[str, Any]) -> None:
    """One screen, whatever the bundle holds: at most 40 lines of 80 letters."""
    backbones = spec.backbones
    graphs = dict.fromkeys(text for one in backbones.values() for text in _graphs(one))
    heads = ", ".join(f"{head.name} ({head.role})" for head in spec.heads) or "none"
    rows = [
        ("what", spec.description),
        *_file_rows(spec, facts),
        ("backbone", ", ".join(backbones)),
        ("licence", "; ".join(dict.fromkeys(one.licence for one in backbones.values()))),
        ("graphs", ", ".join(graphs)),
        *_agreement_rows(spec),
        ("heads", f"{heads}; untrained: {', '.join(FITTED)}"),
        *(("concepts", ", ".join(head.labels[1:])) for head in spec.heads if head.concepts is not None),
        ("trained on", "; ".join(dict.fromkeys(head.trained_on for head in spec.heads))),
        ("scores", "; ".join(dict.fromkeys(map(_scores_text, spec.heads)))),
        *_machine_rows(facts["machine"]),
        *_warning_rows(spec, facts["machine"]),
        *_timing_rows(spec, facts["machine"]),
    ]
    print_rows(spec.name, rows, most_lines=2)
    reports = _reports(spec)
    shown = [one for one in reports if _runs_here(one[1], facts["machine"])] or reports
    if shown:
        make_console().print(_report_table(shown[:_SHORT_REPORTS]))
    print("all of it: patchcut info -v")


def _print_all(spec: BundleSpec, facts: dict[str, Any]) -> None:
    heads = ", ".join(head.name for head in spec.heads) or "none"
    untrained = f"{', '.join(FITTED)}: fitted to each frame, see --head"
    rows = [("what", spec.description), *_file_rows(spec, facts), ("heads", heads), ("untrained", untrained)]
    print_rows(spec.name, rows)
    for name, backbone in spec.backbones.items():
        print_rows(f"backbone {name}", _backbone_rows(backbone))
    for head in spec.heads:
        print_rows(f"head {head.name}", _head_rows(head))
    machine = facts["machine"]
    print_rows("on this machine", [*_machine_rows(machine), *_warning_rows(spec, machine)])
    console = make_console()
    agreement = [row for one in spec.backbones.values() for row in one.agreement]
    timings = [row for one in spec.backbones.values() for row in one.timings]
    reports = _reports(spec)
    tables = (
        ("accuracy", bool(reports), _report_table(reports)),
        ("agreement with fp32", bool(agreement), _agreement_table(agreement)),
        ("times of the backbone", bool(timings), _timing_table(timings)),
    )
    for title, there, table in tables:
        if there:
            console.print(f"\n{title}", style="bold")
            console.print(table)
    card = _CARDS_TABLES.sub("", facts["card"])
    if card:
        make_console().print("\nmodel card", style="bold")
        print("\n".join(one_line(line.expandtabs(4)) for line in card.strip().splitlines()))


def _file_rows(spec: BundleSpec, facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("file", f"{facts['path']} ({facts['bytes'] / 1e6:.1f} MB, {len(spec.files)} members, all whole)"),
        ("sha256", facts["sha256"]),
    ]


def _backbone_rows(backbone: BackboneSpec) -> list[tuple[str, str]]:
    return [
        ("model", backbone.model),
        ("source", backbone.source),
        ("sha256", backbone.source_sha256),
        ("licence", backbone.licence),
        ("trained on", backbone.trained_on),
        *(("features", f"{name}: {backbone.features_text(name)}") for name in backbone.features),
        ("graphs", f"{', '.join(_graphs(backbone))} (the first is the default)"),
    ]


def _graphs(backbone: BackboneSpec) -> list[str]:
    return [
        f"{size_text(graph.size_hw)} {graph.precision}"
        + " (inaccurate)" * is_refused(backbone, graph.precision, graph.size_hw[0])
        for graph in backbone.graphs
    ]


def _head_rows(head: HeadSpec) -> list[tuple[str, str]]:
    return [
        ("kind", f"{head.kind}, finds {head.role}"),
        ("features", f"{', '.join(head.features)} of {head.backbone}"),
        ("method", head.method),
        ("trained on", head.trained_on),
        ("labels", ", ".join(head.labels)),
        *_concept_rows(head),
        ("scores", _scores_text(head)),
    ]


def _concept_rows(head: HeadSpec) -> list[tuple[str, str]]:
    if head.concepts is None:
        return []
    seen = f"what {head.concepts.foreground} finds" if head.concepts.foreground else "every patch"
    origins = (f"{name}: {text}" for name, text in head.concepts.origins.items())
    return [("looks at", seen), *(("concept", one) for one in origins)]


def _scores_text(head: HeadSpec) -> str:
    if head.calibration is None:
        return "rank regions; they are no probabilities"
    return f"are probabilities; nothing is found below {head.calibration.nothing_below:.3f}"


def _machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" in machine:
        return [("cannot run", machine["error"]), ("kernels", machine["isa"])]
    precision = precision_text(machine["precision"], machine["weights"])
    return [
        ("engine", f"{machine['engine']} ({machine['provider']}) on {machine['device']}"),
        ("because", machine["why"]),
        ("runs", f"{machine['head']} {precision} at {size_text(machine['size_hw'])}"),
        ("threads", f"{machine['threads']} of the engine, {machine['kernel_threads']} of the kernels"),
        ("kernels", f"{machine['isa']} on {machine['cpu']}"),
    ]


def _warning_rows(spec: BundleSpec, machine: dict[str, Any]) -> list[tuple[str, str]]:
    """What has to be said of the precision that runs here."""
    if "error" in machine:
        return []
    size, precision = machine["size_hw"][0], machine["precision"]
    said = (refusal(backbone, precision, size) for backbone in spec.backbones.values())
    return [("inaccurate", one) for one in said if one]


def _agreement_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    """How near each precision comes to fp32, over all sizes and feature sets; the inaccurate ones first."""
    rows = [row for backbone in spec.backbones.values() for row in backbone.agreement]
    precisions = dict.fromkeys(row.precision for row in sorted(rows, key=lambda row: row.accepted))
    texts = [_agreement_text([row for row in rows if row.precision == one]) for one in precisions]
    return [("agreement", f"with fp32: {'; '.join(texts)}")] if texts else []


def _agreement_text(rows: list[AgreementRow]) -> str:
    """A few words about one precision: the least of its figures."""
    mean, worst = (min(getattr(row, name) for row in rows) for name in ("cosine_mean", "cosine_worst"))
    figures = f"cosine {mean:.4f}, worst {worst:.3f}"
    labels = [row.label_agreement for row in rows if row.label_agreement is not None]
    if labels:
        figures += f", labels {min(labels):.1%}"
    refused = "" if all(row.accepted for row in rows) else "INACCURATE, "
    return f"{rows[0].precision} {refused}{figures}"


def _timing_rows(spec: BundleSpec, machine: dict[str, Any]) -> list[tuple[str, str]]:
    """What is fast on CPUs like this one, at the size that runs here."""
    rows = [row for backbone in spec.backbones.values() for row in backbone.timings]
    kind, size = cpu_kind(), machine.get("size_hw", (0,))[0]
    here = sorted((row for row in rows if (row.cpu, row.size) == (kind, size)), key=lambda row: row.ms)
    if here:
        texts = (f"{row.engine} {row.precision} {row.ms:.1f} ms" for row in here)
        return [("times", f"on {kind} at {size}: {', '.join(texts)}")]
    others = ", ".join(dict.fromkeys(row.cpu for row in rows))
    return [("times", f"none on {kind} at {size}, only on {others}")] if rows else []


_Reports = list[tuple[str, ReportRow]]


def _reports(spec: BundleSpec) -> _Reports:
    """What was measured, and with which head."""
    rows = [(row.head or head.name, row) for head in spec.heads for row in head.report]
    return rows + [(row.head, row) for backbone in spec.backbones.values() for row in backbone.report]


def _runs_here(row: ReportRow, machine: dict[str, Any]) -> bool:
    """Whether a row was measured with what runs here by default."""
    size, precision = machine.get("size_hw", (0,)), machine.get("precision")
    return row.refine == "none" and row.size == size[0] and row.precision == precision


def _report_table(rows: _Reports) -> Table:
    table = Table("head", "accuracy on", "", "value", "with", "images", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for head, row in rows:
        how = f"{row.size} {row.precision} {row.refine}"
        cells = (head, row.dataset, row.metric, f"{row.value:.3f}", how, str(row.images))
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _agreement_table(rows: Sequence[AgreementRow]) -> Table:
    headings = ("precision", "size", "features", "cosine", "worst", "affinity", "labels", "IoU", "images", "")
    table = _plain_table(headings)
    for row in rows:
        cells = (
            row.precision,
            str(row.size),
            row.features,
            f"{row.cosine_mean:.4f}",
            f"{row.cosine_worst:.3f}",
            f"{row.affinity_correlation:.3f}",
            "" if row.label_agreement is None else f"{row.label_agreement:.1%}",
            "" if row.iou is None else f"{row.iou:+.3f}",
            str(row.images),
            "" if row.accepted else "INACCURATE",
        )
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _timing_table(rows: Sequence[TimingRow]) -> Table:
    table = _plain_table(("engine", "precision", "size", "device", "cpu", "threads", "ms"))
    for row in rows:
        cells = (row.engine, row.precision, row.size, row.device, row.cpu, row.threads, f"{row.ms:.1f}")
        table.add_row(*(Text(one_line(str(cell))) for cell in cells))
    return table


def _plain_table(headings: Sequence[str]) -> Table:
    table = Table(*headings, box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    return table
