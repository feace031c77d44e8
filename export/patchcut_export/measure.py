"""`patchcut export eval`: measures a bundle and tells, draws or records what it found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Segmenter
from patchcut.bundle import ReportRow, open_bundle
from patchcut.errors import OptionError, OutputError
from patchcut.segmenter import Description
from patchcut.sources.photos import read_photo
from patchcut.whole_files import write_image, write_whole

from patchcut_export.builder import rewrite_bundle
from patchcut_export.datasets import Example, open_dataset
from patchcut_export.evaluation import Score, Summary, evaluate, summarize
from patchcut_export.places import check_place
from patchcut_export.progress import StepBar

_TILE = 224
_COLUMNS = 6
_GRID_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class EvalRequest:
    """What `patchcut export eval` was asked for.

    Attributes:
        layout, root: of the dataset.
        bundle: the bundle to measure, None for the embedded one.
        size, precision, refine, threads: as `patchcut.load` takes them.
        scores: JSON lines file to write, or None.
        grid: picture file to write, or None.
        record: whether the report of `bundle` is rewritten.
    """

    layout: str
    root: Path
    bundle: Path | None
    size: int | None
    precision: str
    refine: str
    threads: int | None
    scores: Path | None
    grid: Path | None
    record: bool


@dataclass(frozen=True)
class EvalReport:
    """What was measured, of what, how."""

    dataset: str
    summary: Summary
    segmenter: Description
    command: str

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(
            {
                "dataset": self.dataset,
                **asdict(self.summary),
                "segmenter": asdict(self.segmenter),
                "command": self.command,
            }
        )

    def to_text(self) -> str:
        """A few lines for people."""
        what = self.segmenter
        size = "x".join(map(str, what.size_hw))
        lines = [f"{self.dataset}: {self.summary.images} images, {what.bundle}"]
        lines.append(f"head {what.head}, {size}, {what.precision}, refine {what.refine}, {what.provider}")
        lines += [f"{title:<20} {value:.4f}" for title, value in self.summary.metrics.items()]
        return "\n".join(lines)


def measure(request: EvalRequest, bar: StepBar) -> EvalReport:
    """Runs the bundle over the dataset, and writes what the request asks for.

    Raises:
        OptionError: an option has a value that is not allowed, or `record` comes without a bundle.
        PatchcutError: the dataset or the bundle cannot be read, or a file cannot be written.
    """
    if request.record and request.bundle is None:
        raise OptionError("record", "must say which bundle it changes, got none", "add --bundle FILE")
    examples = open_dataset(request.layout, request.root)
    _check_outputs(request)
    segmenter = patchcut.load(
        request.bundle,
        size=request.size,
        precision=request.precision,
        refine=request.refine,
        threads=request.threads,
    )
    name = request.root.resolve().name
    scores = list(evaluate(segmenter, examples, lambda done, total: bar.step(name, done, total)))
    report = EvalReport(
        name, summarize(scores), segmenter.describe(), _command(request, segmenter.describe())
    )
    if request.scores is not None:
        write_whole(request.scores, "".join(json.dumps(asdict(score)) + "\n" for score in scores).encode())
    if request.grid is not None:
        _write_grid(request.grid, segmenter, examples, scores)
    if request.record and request.bundle is not None:
        _record(request.bundle, report)
    return report


def _check_outputs(request: EvalRequest) -> None:
    """Nothing, if all that the request asks for can be written."""
    record = request.bundle if request.record else None
    for path in (request.scores, request.grid, record):
        if path is not None:
            check_place(path)
    if request.grid is not None and request.grid.suffix.lower() not in _GRID_SUFFIXES:
        raise OutputError("output", f"cannot draw {request.grid}", "name a .jpg or .png file")


def _record(path: Path, report: EvalReport) -> None:
    """Puts the numbers into a bundle's report, in the place of older ones of the same kind."""
    what = report.segmenter
    rows = [
        ReportRow.model_validate(
            {
                "dataset": report.dataset,
                "metric": metric,
                "value": round(value, 4),
                "size": what.size_hw[0],
                "precision": what.precision,
                "images": report.summary.images,
                "refine": what.refine,
                "command": report.command,
            }
        )
        for metric, value in report.summary.metrics.items()
    ]
    with open_bundle(path) as bundle:
        new = {_kind(row) for row in rows}
        kept = [row for row in bundle.spec.report if _kind(row) not in new]
        rewrite_bundle(bundle, path, report=(*kept, *rows))


def _kind(row: ReportRow) -> tuple[str, str, int, str, str]:
    return (row.dataset, row.metric, row.size, row.precision, row.refine)


def _command(request: EvalRequest, what: Description) -> str:
    size = f"--size {what.size_hw[0]} --precision {what.precision} --refine {what.refine}"
    return f"patchcut export eval {request.layout} --root {request.root.resolve().name} {size}"


def _write_grid(path: Path, segmenter: Segmenter, examples: list[Example], scores: list[Score]) -> None:
    """A picture: the best images in the upper rows, the worst in the lower."""
    order = sorted(range(len(scores)), key=lambda i: -_goodness(scores[i]))
    count = min(2 * _COLUMNS, len(order))
    rows = [order[:count][i : i + _COLUMNS] for i in range(0, count, _COLUMNS)]
    worst = order[max(count, len(order) - count) :]
    rows += [worst[i : i + _COLUMNS] for i in range(0, len(worst), _COLUMNS)]
    picture = np.full((_TILE * len(rows), _TILE * _COLUMNS, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, index in enumerate(row):
            tile = _tile(segmenter, examples[index], _goodness(scores[index]))
            picture[y * _TILE : (y + 1) * _TILE, x * _TILE : (x + 1) * _TILE] = tile
    write_image(path, picture)


def _tile(segmenter: Segmenter, example: Example, goodness: float) -> npt.NDArray[np.uint8]:
    image = read_photo(example.image)
    overlay = segmenter(image).overlay(image)
    tile = cv2.resize(overlay, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    text = f"{example.name} {goodness:.2f}"
    cv2.putText(tile, text, (4, _TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(tile, text, (4, _TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _goodness(score: Score) -> float:
    return score.iou if score.iou is not None else float(bool(score.hit))
