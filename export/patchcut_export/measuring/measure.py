"""`patchcut export eval`: measures a bundle and tells, draws or records what it found."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from patchcut import Segmenter
from patchcut.bundle import ReportRow, embedded_bundles, open_bundle
from patchcut.checks import check_choice
from patchcut.description import Description
from patchcut.errors import OptionError
from patchcut.heads import FittedHead
from patchcut.output.whole_files import write_whole
from patchcut.settings import Settings

from patchcut_export.bundles.rewriting import rewrite_bundle, with_report
from patchcut_export.measuring import DEFAULTS
from patchcut_export.measuring.confusion import write_confusion
from patchcut_export.measuring.datasets import LAYOUTS, Choices, Dataset, open_dataset
from patchcut_export.measuring.evaluation import (
    METRICS,
    Score,
    Summary,
    evaluate,
    evaluate_videos,
    summarize,
)
from patchcut_export.measuring.protocols import DEFAULT_PROTOCOL, PROTOCOLS
from patchcut_export.measuring.score_grid import check_picture, write_grid
from patchcut_export.measuring.semantic import (
    MATCHES,
    SemanticScores,
    choose_match,
    measure_labels,
    state_match,
)
from patchcut_export.measuring.videos import MOST_REGIONS
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What `patchcut export eval` was asked for.

    Attributes:
        layout, root, choices: the dataset, its folder, and what is chosen of it.
        settings: the segmenter to measure.
        scores: JSON lines file to write, or None.
        grid: picture file to write, or None.
        record: whether the report of the bundle is rewritten.
        empty_scenes: whether the images' backgrounds are looked at, too.
        protocol: of videos, a key of `PROTOCOLS`; None is the default one.
        match: of semantic sets, one of `MATCHES`; None is the one that the names of the columns allow.
        confusion: of semantic sets, picture file to write, or None.
    """

    layout: str
    root: Path
    settings: Settings
    scores: Path | None = None
    grid: Path | None = None
    record: bool = False
    empty_scenes: bool = False
    protocol: str | None = None
    match: str | None = None
    confusion: Path | None = None
    choices: Choices = field(default_factory=Choices)

    def command(self, ran: Description) -> str:
        """The command line that repeats this on another bundle, with the size and so on that `ran` had."""
        resolved = {name: getattr(ran, name) for name in ("precision", "nothing_below")}
        settings = replace(self.settings, bundle=Settings.bundle, size=ran.size_hw[0], **resolved)
        words = ["patchcut", "export", "eval", self.layout, "--root", self.root.resolve().name]
        words += settings.words(**DEFAULTS) + ["--empty-scenes"] * self.empty_scenes + self.choices.words()
        words += [] if self.protocol is None else ["--protocol", self.protocol]
        words += [] if self.match is None else ["--match", self.match]
        return shlex.join(words)

    @property
    def video_protocol(self) -> str | None:
        """The key of `PROTOCOLS` by which videos are measured; None where the dataset has none.

        Raises:
            OptionError: one was chosen that there is not, or for a dataset without videos.
        """
        if self.protocol is not None:
            check_choice("protocol", self.protocol, tuple(PROTOCOLS))
        if self.layout not in LAYOUTS:  # which opening it says
            return None
        if LAYOUTS[self.layout].is_video:
            return self.protocol or DEFAULT_PROTOCOL
        if self.protocol is not None:
            raise OptionError("protocol", f"must be left out for {self.layout}, got {self.protocol}")
        return None

    def check_semantic(self) -> None:
        """Checks what is asked for of semantic sets, or of others alone.

        Raises:
            OptionError: no match is called so, or it is chosen for a set of another kind; empty scenes are
                asked for of a semantic set.
        """
        if self.match is not None:
            check_choice("match", self.match, MATCHES)
        if self.layout not in LAYOUTS:
            return
        semantic = LAYOUTS[self.layout].is_semantic
        for option, given, takes in (
            ("match", self.match, semantic),
            ("confusion", self.confusion, semantic),
            ("empty_scenes", self.empty_scenes or None, not semantic),
        ):
            if given is not None and not takes:
                raise OptionError(option, f"must be left out for {self.layout}, got {given}")


# What is shown of each video for people; JSON has all.
_OF_EACH_VIDEO = ("region J", "contour F", "J&F", "nothing found", "pixels that change", "unsteadiness")


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
                "segmenter": self.segmenter.to_dict(),
                "command": self.command,
            }
        )

    def to_text(self) -> str:
        """A few lines for people."""
        ran = self.segmenter
        images, metrics = self.summary.images, self.summary.metrics
        lines = [f"{self.dataset}: {images} images, {ran.bundle}, {ran.precision}, {ran.provider}"]
        lines += [f"{name:<12} {text}" for name, text in self.protocol.items()]
        width = max(22, *map(len, metrics))
        lines += [f"{title:<{width}} {value:.4f}  {METRICS[title]}" for title, value in metrics.items()]
        return "\n".join([*lines, *self._classes(), *self._videos()])

    def _classes(self) -> list[str]:
        """A table of the classes."""
        classes = self.summary.classes
        if not classes:
            return []
        total = sum(one.pixels for one in classes.values())
        width = max(len("class"), *map(len, classes))
        lines = [f"{'class':<{width}}     IoU  pixels  columns"]
        for name, one in classes.items():
            iou = "" if one.iou is None else f"{one.iou:.4f}"
            lines.append(f"{name:<{width}}  {iou:>6}  {one.pixels / total:6.1%}  {', '.join(one.columns)}")
        return [line.rstrip() for line in lines]

    def _videos(self) -> list[str]:
        """A table of the videos."""
        videos = self.summary.videos
        if not videos:
            return []
        titles = [title for title in _OF_EACH_VIDEO if title in self.summary.metrics]
        width = max(len("video"), *map(len, videos))
        rows = [["video".ljust(width), *titles]]
        for name, metrics in videos.items():
            values = (metrics.get(title) for title in titles)
            rows.append([name.ljust(width), *("" if value is None else f"{value:.4f}" for value in values)])
        return ["  ".join([row[0], *map(_right, row[1:], titles)]).rstrip() for row in rows]


def _right(cell: str, title: str) -> str:
    return cell.rjust(max(6, len(title)))


def measure(request: EvalRequest, bar: StepBar) -> EvalReport:
    """Runs the bundle over the dataset, and writes what the request asks for.

    Raises:
        OptionError: an option has a value that is not allowed, or `record` comes without a bundle.
        PatchcutError: the dataset or the bundle cannot be read, or a file cannot be written.
    """
    if request.record and str(request.settings.bundle) in embedded_bundles():
        raise OptionError("record", "must say which bundle it changes, got none", "add --bundle FILE")
    key = request.video_protocol
    request.check_semantic()
    dataset = open_dataset(request.layout, request.root, request.choices)
    _check_outputs(request)
    segmenter = Segmenter.open(request.settings)
    match = _match(request, segmenter, dataset)
    scores = list(_scores(request, segmenter, dataset, bar))
    summary, matched = summarize(scores), None
    if match is not None:
        matched = _matched(dataset, segmenter, scores, match)
        summary = replace(summary, metrics=matched.metrics, classes=matched.classes)
        scores = [_with_accuracy(score, matched) for score in scores]
    ran = segmenter.describe()
    protocol = state_protocol(dataset, segmenter, key, request.choices.every or 1, match)
    name = dataset.name if key is None else f"{dataset.name}, {key}"
    report = EvalReport(name, summary, protocol, ran, request.command(ran))
    if request.scores is not None:
        write_whole(request.scores, "".join(json.dumps(s.to_dict()) + "\n" for s in scores).encode())
    if request.grid is not None:
        write_grid(request.grid, segmenter, dataset.examples, scores)
    if request.confusion is not None and matched is not None:
        title = f"{name}, {ran.head}: mIoU {matched.metrics['mIoU']:.3f}"
        write_confusion(request.confusion, matched.confusion, tuple(matched.classes), title)
    if request.record:
        _record(Path(request.settings.bundle), report)
    return report


def _scores(request: EvalRequest, segmenter: Segmenter, dataset: Dataset, bar: StepBar) -> Iterator[Score]:
    key, empty = request.video_protocol, request.empty_scenes
    if key is None:
        return evaluate(segmenter, dataset.examples, partial(bar.step, dataset.name), empty)
    return evaluate_videos(segmenter, dataset, PROTOCOLS[key], bar.step, empty)


def _columns(segmenter: Segmenter) -> tuple[str, ...]:
    """The names that columns of its label maps may have."""
    return segmenter.head.labels if segmenter.parts is None else segmenter.parts.labels


def _match(request: EvalRequest, segmenter: Segmenter, dataset: Dataset) -> str | None:
    """How columns are matched with the classes of a semantic set; None for others."""
    if dataset.classes is None:
        return None
    return choose_match(request.match, _columns(segmenter), dataset.classes, dataset.name)


def _matched(dataset: Dataset, segmenter: Segmenter, scores: list[Score], match: str) -> SemanticScores:
    assert dataset.classes is not None
    counts = [score.labels for score in scores if score.labels is not None]
    return measure_labels(counts, _columns(segmenter), dataset.classes, match)


def _with_accuracy(score: Score, matched: SemanticScores) -> Score:
    assert score.labels is not None
    return replace(score, class_accuracy=matched.matching.accuracy(score.labels))


def state_protocol(
    dataset: Dataset,
    segmenter: Segmenter,
    protocol: str | None = None,
    every: int = 1,
    match: str | None = None,
) -> dict[str, str]:
    """What decides the numbers beside the bundle, each in a few words.

    Args:
        protocol: of videos, a key of `PROTOCOLS`.
        every: of videos, the step from a frame to the next.
        match: of semantic sets, one of `MATCHES`.
    """
    ran = segmenter.describe()
    fitted = isinstance(ran.head, FittedHead)
    how = "fitted to each image by itself" if fitted else "feed-forward, trained beforehand"
    fit = {"stretch": "stretched", "letterbox": "letterboxed"}[segmenter.extractor.backbone.fit]
    regions = "the best region" if ran.single else "all regions"
    least = max(ran.min_score, ran.nothing_below)
    score = f" with a score of at least {least:g}" if least else ""
    stated = {
        "head": f"{ran.head}, {how}",
        "input": f"{'x'.join(map(str, ran.size_hw))}, {fit}",
        "refinement": segmenter.masks.refiner,
        "foreground": regions + score,
        "truth": dataset.truth,
    }
    if match is not None:
        assert dataset.classes is not None
        stated["match"] = state_match(match, _columns(segmenter), dataset.classes)
    if segmenter.parts is not None:
        stated["mode"] = f"{ran.mode}, by {ran.parts}"
    if dataset.published not in (None, len(dataset.examples)):
        stated["images"] = f"{len(dataset.examples)} of the {dataset.published} that were published"
    if protocol is not None:
        stated |= _state_videos(dataset, protocol, every)
        stated["refinement"] = ran.refine  # "auto" is not the same for frames and for streams
    return stated


def _state_videos(dataset: Dataset, protocol: str, every: int) -> dict[str, str]:
    """What has to be said of how videos were measured."""
    frames = "all" if dataset.ends_count else "all but the first and the last of each video"
    frames += "" if every == 1 else f", of frames 0, {every}, {2 * every}, ..., which are neighbours then"
    stated = {"protocol": f"{protocol}: {PROTOCOLS[protocol].text}", "frames": frames}
    if dataset.examples[0].mask_kind == "objects":
        stated["objects"] = (
            f"matched on each frame by itself with its best {MOST_REGIONS} regions at most, "
            "so that the mean of J and F is largest; those that a frame does not show have 1"
        )
    return stated


def _check_outputs(request: EvalRequest) -> None:
    """Checks that all files that the request asks for can be written.

    Raises:
        OutputError: naming the first that cannot.
    """
    record = Path(request.settings.bundle) if request.record else None
    for path in filter(None, (request.scores, request.grid, request.confusion, record)):
        check_output_file(path)
    for path in filter(None, (request.grid, request.confusion)):
        check_picture(path)


def _record(path: Path, report: EvalReport) -> None:
    """Puts the numbers into the report of what was measured, in the place of older ones of the same kind.

    That is the bundle's head whose columns they are of, or the backbone where these were fitted.
    """
    ran = report.segmenter
    divided = ran.mode != "foreground"
    last = ran.parts if divided else ran.head
    owner = None if isinstance(last, FittedHead) else str(last)
    words = f"{ran.head}, {ran.mode} by {ran.parts}" if divided else str(ran.head)
    rows = [
        ReportRow(
            dataset=report.dataset,
            metric=metric,
            value=round(value, 4),
            size=ran.size_hw[0],
            precision=ran.precision,
            images=report.summary.images,
            refine=report.protocol["refinement"],
            command=report.command,
            protocol="; ".join([*report.protocol.values(), METRICS[metric]]),
            head="" if words == owner else words,
        )
        for metric, value in report.summary.metrics.items()
    ]
    with open_bundle(path) as bundle:
        rewrite_bundle(bundle, path, with_report(bundle.spec, tuple(rows), owner))
