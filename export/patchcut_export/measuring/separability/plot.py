"""A picture of how well feature sets separate: a panel a measure, a bar a set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from patchcut.output.whole_files import write_image, write_whole

from patchcut_export.measuring.separability.drawing import Drawing
from patchcut_export.measuring.separability.report import Measure, SeparabilityReport

_MARGIN, _NAMES, _PANEL, _GAP = 24, 250, 132, 28
_HEAD, _ROW, _BAR = 92, 38, 16
_INK, _PALE, _GRID = "#22262b", "#787e85", "#e3e6e9"
_BEST, _OTHER = "#0072b2", "#a9c3d6"  # of Okabe and Ito's blue
_LETTERS = 44  # that fit beside the panels


def write_plots(stem: Path, report: SeparabilityReport) -> None:
    """Writes STEM.png and STEM.svg.

    Raises:
        OutputError: they cannot be written.
    """
    drawing = draw(report)
    write_image(stem.with_suffix(".png"), np.asarray(drawing.to_image())[..., ::-1])
    write_whole(stem.with_suffix(".svg"), drawing.to_svg().encode())


def draw(report: SeparabilityReport) -> Drawing:
    """The picture; the best of each panel is darker."""
    measures = report.measures
    width = 2 * _MARGIN + _NAMES + len(measures) * (_PANEL + _GAP)
    drawing = Drawing(max(width, 640), _MARGIN + _HEAD + len(report.rows) * _ROW + _MARGIN + 8)
    drawing.word(_MARGIN, _MARGIN + 14, "How well features separate", 18, _INK)
    said = f"{report.images} images of {report.data}, k-means with k = {report.k}"
    drawing.word(_MARGIN, _MARGIN + 34, said, 12, _PALE)
    for i, (name, row) in enumerate(zip(report.names(), report.rows, strict=True)):
        y = _MARGIN + _HEAD + i * _ROW
        drawing.word(_MARGIN, y + 13, _shorten(name, _LETTERS - 10), 14, _INK)
        drawing.word(_MARGIN, y + 28, _shorten(row.about, _LETTERS), 11, _PALE)
    for i, measure in enumerate(measures):
        _draw_panel(drawing, _MARGIN + _NAMES + i * (_PANEL + _GAP), measure, report)
    return drawing


def _draw_panel(drawing: Drawing, x: int, measure: Measure, report: SeparabilityReport) -> None:
    """Bars from the value that says nothing to the largest there is."""
    best = report.best(measure)
    top = 1.0 if measure.floor else _round_up(1.1 * best)
    below = _MARGIN + _HEAD + len(report.rows) * _ROW
    drawing.word(x, _MARGIN + _HEAD - 28, _PANEL_TITLES.get(measure.field, measure.title), 13, _INK)
    for share in (0.0, 0.5, 1.0):
        at = x + share * _PANEL
        drawing.box(at, _MARGIN + _HEAD - 8, 1, below - _MARGIN - _HEAD + 8, _GRID)
        value = measure.floor + share * (top - measure.floor)
        drawing.word(at, _MARGIN + _HEAD - 12, f"{value:.3g}", 10, _PALE, "middle")
    for i, row in enumerate(report.rows):
        found = row.value(measure)
        y = _MARGIN + _HEAD + i * _ROW + 4
        if found is None:
            drawing.word(x + 4, y + 13, "not told", 11, _PALE)
            continue
        share = min(1.0, max(0.0, (found - measure.floor) / (top - measure.floor)))
        length = share * _PANEL
        drawing.box(x, y, max(1.0, length), _BAR, _BEST if found == best else _OTHER)
        inside = share > 0.7
        colour = "#ffffff" if inside and found == best else _INK
        drawing.word(
            x + length + (-4 if inside else 4),
            y + 12,
            f"{found:.3f}",
            11,
            colour,
            "right" if inside else "left",
        )


_PANEL_TITLES = {
    "clusters_auc": "clusters, AUC",
    "best_cluster_auc": "best cluster, AUC",
    "probe_auc": "linear probe, AUC",
    "nmi": "patches' classes, NMI",
    "region_nmi": "things' classes, NMI",
    "silhouette": "silhouette",
    "variance_ratio": "between / within",
}


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 and 10 times a power of ten; 1 where there is nothing above 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _shorten(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
