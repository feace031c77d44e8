"""`patchcut export eval`: measures a bundle and tells, draws or records what it found."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

from patchcut import Segmenter
from patchcut.bundle import ReportRow, open_bundle
from patchcut.cli.load_options import LoadOptions
from patchcut.errors import OptionError
from patchcut.heads import TRAINED
from patchcut.output.whole_files import write_whole
from patchcut.segmenter import Description, settings_text

from patchcut_export.bundles.builder import rewrite_bundle, with_report
from patchcut_export.measuring.datasets import Choices, Dataset, open_dataset
from patchcut_export.measuring.evaluation import METRICS, Summary, evaluate, summarize
from patchcut_export.measuring.score_grid import check_grid, write_grid
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What `patchcut export eval` was asked for.

    Attributes:
        layout, root, choices: of the dataset.
        load: the segmenter to measure.
        scores: JSON lines file to write, or None.
        grid: picture file to write, or None.
        record: whether the report of the bundle is rewritten.
        empty_scenes: whether the images' backgrounds are looked at, too.
    """

    layout: str
    root: Path
    load: LoadOptions
    scores: Path | None = None
    grid: Path | None = None
    record: bool = False
    empty_scenes: bool = False
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True)
class EvalReport:
    """What was measured, of what, how.

    Attributes:
        dataset: its name.
        summary: the numbers.
        protocol: what has to be said beside them: head, input, refinement, regions, truth.
        segmenter: what ran.
        command: what repeats it.
    """

    dataset: str
    summary: Summary
    protocol: dict[str, str]
    segmenter: Description
    command: str

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(
            {
                "dataset": self.dataset,
                **asdict(self.summary),
                "protocol": self.protocol | {title: METRICS[title] for title in self.summary.metrics},
                "segmenter": asdict(self.segmenter),
                "command": self.command,
            }
        )

    def to_text(self) -> str:
        """A few lines for people."""
        ran = self.segmenter
        lines = [
            f"{self.dataset}: {self.summary.images} images, {ran.bundle}, {ran.precision}, {ran.provider}"
        ]
        lines += [f"{name:<12} {text}" for name, text in self.protocol.items()]
        lines += [
            f"{title:<22} {value:.4f}  {METRICS[title]}" for title, value in self.summary.metrics.items()
        ]
        return "\n".join(lines)


def measure(request: EvalRequest, bar: StepBar) -> EvalReport:
    """Runs the bundle over the dataset, and writes what the request asks for.

    Raises:
        OptionError: an option has a value that is not allowed, or `record` comes without a bundle.
        PatchcutError: the dataset or the bundle cannot be read, or a file cannot be written.
    """
    if request.record and request.load.bundle is None:
        raise OptionError("record", "must say which bundle it changes, got none", "add --bundle FILE")
    dataset = open_dataset(request.layout, request.root, request.choices)
    _check_outputs(request)
    segmenter = request.load.load()
    name, examples = dataset.name, dataset.examples
    scores = list(
        evaluate(segmenter, examples, lambda done, total: bar.step(name, done, total), request.empty_scenes)
    )
    ran = segmenter.describe()
    report = EvalReport(
        name, summarize(scores), state_protocol(dataset, segmenter), ran, _command(request, ran)
    )
    if request.scores is not None:
        write_whole(request.scores, "".join(json.dumps(s.to_dict()) + "\n" for s in scores).encode())
    if request.grid is not None:
        write_grid(request.grid, segmenter, examples, scores)
    if request.record and request.load.bundle is not None:
        _record(request.load.bundle, report)
    return report


def state_protocol(dataset: Dataset, segmenter: Segmenter) -> dict[str, str]:
    """What decides the numbers beside the bundle, each in a few words."""
    ran = segmenter.describe()
    how = "feed-forward, trained beforehand" if ran.head in TRAINED else "fitted to each image by itself"
    fit = {"stretch": "stretched", "letterbox": "letterboxed"}[segmenter.spec.backbone.fit]
    regions = "the best region" if ran.single else "all regions"
    score = f" with a score of at least {ran.min_score:g}" if ran.min_score else ""
    nothing = f", none where the best scores less than {ran.nothing_below:g}" if ran.nothing_below else ""
    protocol = {
        "head": f"{settings_text(ran.head, ran.head_settings)}, {how}",
        "input": f"{'x'.join(map(str, ran.size_hw))}, {fit}",
        "refinement": ran.refine,
        "foreground": regions + score + nothing,
        "truth": dataset.truth,
    }
    if ran.parts:
        protocol["mode"] = f"{ran.mode}, by {settings_text(ran.parts, ran.parts_settings)}"
    if dataset.published not in (None, len(dataset.examples)):
        protocol["images"] = f"{len(dataset.examples)} of the {dataset.published} that were published"
    return protocol


def _check_outputs(request: EvalRequest) -> None:
    """Checks that all files that the request asks for can be written.

    Raises:
        OutputError: naming the first that cannot.
    """
    record = request.load.bundle if request.record else None
    for path in (request.scores, request.grid, record):
        if path is not None:
            check_output_file(path)
    if request.grid is not None:
        check_grid(request.grid)


def _record(path: Path, report: EvalReport) -> None:
    """Puts the numbers into a bundle's report, in the place of older ones of the same kind."""
    ran = report.segmenter
    rows = [
        ReportRow.model_validate(
            {
                "dataset": report.dataset,
                "metric": metric,
                "value": round(value, 4),
                "size": ran.size_hw[0],
                "precision": ran.precision,
                "images": report.summary.images,
                "refine": ran.refine,
                "command": report.command,
                "protocol": "; ".join([*report.protocol.values(), METRICS[metric]]),
                "head": _other_head(ran),
            }
        )
        for metric, value in report.summary.metrics.items()
    ]
    with open_bundle(path) as bundle:
        head = bundle.spec.head("parts" if what.parts in TRAINED else "objects")
        is_fitted = what.parts not in TRAINED and bool(_other_head(what))
        name = None if head is None or is_fitted else head.name
        rewrite_bundle(bundle, path, with_report(bundle.spec, tuple(rows), name))


def _other_head(ran: Description) -> str:
    """What ran in the place of the bundle's own head, or after it; "" where that ran alone."""
    if ran.head in TRAINED and not ran.parts:
        return ""
    parts = f", {ran.mode} by {settings_text(ran.parts, ran.parts_settings)}" if ran.parts else ""
    return settings_text(ran.head, ran.head_settings) + parts


def _command(request: EvalRequest, ran: Description) -> str:
    choices, load = request.choices, request.load
    words = [f"patchcut export eval {request.layout} --root {shlex.quote(request.root.resolve().name)}"]
    words.append(
        f"--size {ran.size_hw[0]} --precision {ran.precision} --head {ran.head} --refine {ran.refine}"
    )
    words += [f"--{key} {value}" for key, value in load.head_settings.items() if value is not None]
    if ran.parts:
        words.append(f"--mode {ran.mode} --parts {load.parts}")
    if load.parts_k is not None:
        words.append(f"--parts-k {load.parts_k}")
    if ran.single:
        words.append("--single")
    if ran.nothing_below:
        words.append(f"--nothing-below {ran.nothing_below:g}")
    if request.empty_scenes:
        words.append("--empty-scenes")
    if choices.split is not None:
        words.append(f"--split {choices.split}")
    if choices.names is not None:
        words.append(f"--list {shlex.quote(choices.names.name)}")
    if choices.difficult is not None:
        words.append("--difficult" if choices.difficult else "--no-difficult")
    return " ".join(words)
