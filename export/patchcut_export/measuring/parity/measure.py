"""`patchcut export parity`: runs all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from patchcut import open_source
from patchcut.bundle import BackboneSpec, Bundle, embedded_bundles, open_bundle
from patchcut.checks import check_choice
from patchcut.cli.demo import SAMPLES
from patchcut.engines import cpu_kind, engine_names
from patchcut.errors import OptionError
from patchcut.frames import Frame
from patchcut.output.whole_files import write_whole
from patchcut.settings import PRECISIONS, Settings
from patchcut_kernels import default_threads

from patchcut_export.bundles.rewriting import rewrite_bundle, with_timings
from patchcut_export.errors import ExportError
from patchcut_export.measuring import DEFAULTS
from patchcut_export.measuring.parity.answers import compare
from patchcut_export.measuring.parity.one_process import measure_alone
from patchcut_export.measuring.parity.plot import check_plot, write_plot
from patchcut_export.measuring.parity.report import ParityReport, ParityRow, machine_text, make_row
from patchcut_export.measuring.parity.times import take_turns
from patchcut_export.measuring.parity.ways import Absent, Step, Way, open_ways, reference_of
from patchcut_export.outputs import check_output_file

# What makes labels and masks where the bundle has no head.
_HEAD_WITHOUT_TRAINING = "ncut"


@dataclass(frozen=True, kw_only=True)
class ParityRequest:
    """What was asked for.

    Attributes:
        settings: the bundle, device and threads.
        sizes, engines, precisions: those to try; all where none is named. fp32 is tried in any case: the
            others are measured against it.
        images: a folder or whatever else `open_source` takes; None for the sample photos.
        limit: images to look at, at most.
        rounds: timed ones.
        plot, json_file: files to write, or None.
        record: whether the times go into the bundle.
    """

    settings: Settings
    sizes: tuple[int, ...] = ()
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    images: Path | None = None
    limit: int = 100
    rounds: int = 20
    plot: Path | None = None
    json_file: Path | None = None
    record: bool = False


def measure_parity(request: ParityRequest, step: Step) -> ParityReport:
    """Runs every way there is, and writes what the request asks for.

    Raises:
        OptionError: an option has a value that is not allowed, or `record` comes without a bundle.
        ExportError: nothing runs here in fp32.
        PatchcutError: the bundle or the images cannot be read, or a file cannot be written.
    """
    _check_outputs(request)
    for engine in request.engines:
        check_choice("engine", engine, engine_names())
    for precision in request.precisions:
        check_choice("precision", precision, PRECISIONS[1:])
    with open_bundle(request.settings.bundle) as bundle:
        if request.record:
            _check_gate(bundle)
        report = _measure(bundle, request, step)
        if request.plot is not None:
            write_plot(request.plot, report)
        if request.json_file is not None:
            write_whole(request.json_file, f"{report.to_json()}\n".encode())
        if request.record:
            path = Path(request.settings.bundle)
            rewrite_bundle(bundle, path, with_timings(bundle.spec, report.timing_rows()))
    return report


def _check_outputs(request: ParityRequest) -> None:
    if request.record and str(request.settings.bundle) in embedded_bundles():
        raise OptionError("record", "must say which bundle it changes, got none", "name its file")
    record = Path(request.settings.bundle) if request.record else None
    for path in filter(None, (request.plot, request.json_file, record)):
        check_output_file(path)
    if request.plot is not None:
        check_plot(request.plot)


def _check_gate(bundle: Bundle) -> None:
    """Checks that times would not slow a bundle down: "auto" goes by the times of what the gate accepted.

    Raises:
        OptionError: the gate has not seen the bundle, and of what was timed "auto" would take fp32 alone.
    """
    backbone = _backbone(bundle)
    others = {graph.precision for graph in backbone.graphs} - {"fp32"}
    if others and not backbone.agreement:
        what = f"{bundle.path} does not say how near its {', '.join(sorted(others))} comes to fp32"
        raise OptionError("record", what, "export the backbone again: the gate measures that")


def _measure(bundle: Bundle, request: ParityRequest, step: Step) -> ParityReport:
    head = bundle.spec.head()
    threads = request.settings.threads or default_threads()
    chosen = {"head": "auto" if head else _HEAD_WITHOUT_TRAINING, "threads": threads, **DEFAULTS}
    settings = replace(request.settings, **chosen)
    frames = _frames(request)
    rows: list[ParityRow] = []
    absent: list[Absent] = []
    features = ""
    precisions = dict.fromkeys((*request.precisions, "fp32")) if request.precisions else ()
    only = {"engine": request.engines, "precision": tuple(precisions)}
    for size in _sizes(bundle, request):
        ways, without = open_ways(bundle, settings, (size,), only, step)
        absent += without
        if ways:
            features = next(iter(ways[0].segmenter.extractor.backbone.features))
        rows += _measure_size(ways, without, frames, request.rounds, step)
    return ParityReport(
        bundle=bundle.spec.name,
        head=head.name if head else _HEAD_WITHOUT_TRAINING,
        features=features,
        images=len(frames),
        data=request.images.name if request.images else "sample photos",
        cpu=cpu_kind(),
        machine=machine_text(),
        threads=threads,
        rounds=request.rounds,
        rows=tuple(rows),
        absent=tuple(absent),
    )


def _measure_size(
    ways: Sequence[Way], absent: Sequence[Absent], frames: list[Frame], rounds: int, step: Step
) -> list[ParityRow]:
    reference = reference_of(ways)
    if reference is None:
        why = next(one.why for one in absent if one.precision == "fp32")
        raise ExportError("parity", f"nothing runs here in fp32, to measure against: {why}")
    size = reference.size

    def looked(frame: Frame, done: int) -> Frame:
        step(f"agreement at {size}", done, len(frames))
        return frame

    agreements = compare(ways, reference, (looked(frame, done) for done, frame in enumerate(frames, 1)))
    times = take_turns(ways, frames[0], rounds, step, f"times at {size}")
    rows = []
    for done, (way, agreement, time) in enumerate(zip(ways, agreements, times, strict=True)):
        step(f"memory at {size}", done, len(ways))
        rows.append(make_row(way, agreement, time, measure_alone(way.settings), reference=way is reference))
    step(f"memory at {size}", len(ways), len(ways))
    return rows


def _sizes(bundle: Bundle, request: ParityRequest) -> tuple[int, ...]:
    """Sides of the inputs to try: those asked for, or all of the backbone that the first head reads.

    Raises:
        OptionError: the bundle has no such size.
    """
    backbone = _backbone(bundle)
    held = tuple(dict.fromkeys(graph.size_hw[0] for graph in backbone.graphs))
    if unknown := [size for size in request.sizes if size not in held]:
        listed = ", ".join(map(str, held))
        raise OptionError("size", f"must be one of the bundle's sizes ({listed}), got {unknown[0]}")
    return request.sizes or held


def _backbone(bundle: Bundle) -> BackboneSpec:
    """The backbone that the first head reads."""
    head = bundle.spec.head()
    return bundle.spec.backbones[head.backbone] if head else bundle.spec.backbone


def _frames(request: ParityRequest) -> list[Frame]:
    """The images, evenly spread where there are more than the limit.

    Raises:
        SourceError: there is nothing that can be read.
    """
    folder = SAMPLES if request.images is None else request.images
    with open_source(folder) as source:
        every = max(1, -(-(source.total or 1) // request.limit))
    with open_source(folder, every=every) as source:
        frames = list(islice(source, request.limit))
    if not frames:
        raise ExportError("images", f"{folder} has no image that can be read", "name a folder with photos")
    return frames
