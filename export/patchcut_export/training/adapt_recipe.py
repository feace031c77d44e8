"""From a bundle that names things and a folder of images to a light head that learned these names (ReCo+)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.errors import OptionError
from patchcut.features import Features, to_host
from patchcut.heads import open_head
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.stages import Extractor

from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.rewriting import gnn_head, rewrite_bundle
from patchcut_export.errors import TrainingError
from patchcut_export.measuring.datasets import LAYOUTS, Choices
from patchcut_export.measuring.measure import EvalRequest, measure
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar
from patchcut_export.training.adaptation import Adapted, AdaptPlan, PseudoLabels, adapt
from patchcut_export.training.feature_cache import CachedFeatures, cache_features
from patchcut_export.training.loop import EpochLog, Hooks
from patchcut_export.training.torch_device import open_device

ADAPTED = "adapted"
_TIMED = 20  # frames


@dataclass(frozen=True, kw_only=True)
class AdaptRequest:
    """What `patchcut export adapt` was asked for.

    Attributes:
        images: folder of unlabelled images.
        settings: the bundle, how its backbone runs, and where the new head learns.
        head: name of the head whose names are learned; None is the first for names.
        out: the file to write; may be the bundle itself.
        work: folder for features, checkpoints and log.
        layout, root: a set with a class for each pixel, on which both heads are measured; or None.
        trained_on: what the card says about the images.
    """

    images: Path
    settings: Settings
    head: str | None
    out: Path
    work: Path
    layout: str
    root: Path | None
    trained_on: str


@dataclass(frozen=True)
class Compared:
    """A head beside the one that it learned from, or that one.

    Attributes:
        head: its name.
        agreement: as in `Adapted`; None of the one that was learned from.
        milliseconds: of a frame, the head alone, the median.
        metrics: mIoU and pixel accuracy on the set with masks; empty without one.
    """

    head: str
    agreement: float | None
    milliseconds: float
    metrics: dict[str, float]


def adapt_bundle(request: AdaptRequest, plan: AdaptPlan, bar: StepBar) -> tuple[Compared, Compared]:
    """Trains the head `adapted` on what another head of the bundle calls the images; the one and the other.

    Goes on where an earlier run was stopped. The bundle keeps its heads; an earlier `adapted` is replaced.

    Raises:
        PatchcutError: naming what is wrong with the request, before any work is done where that is possible.
    """
    check_output_file(request.out)
    open_source(request.images).close()
    device = open_device(request.settings.device)
    if request.root is not None and not LAYOUTS[request.layout].is_semantic:
        known = ", ".join(name for name, layout in LAYOUTS.items() if layout.is_semantic)
        raise OptionError("dataset", f"must have a class for each pixel: {known}; got {request.layout}")
    if request.settings.threads is not None:
        torch.set_num_threads(request.settings.threads)
    with open_bundle(request.settings.bundle) as bundle:
        teacher = choose_teacher(bundle, request.head)
        head = open_head(bundle, teacher)
        extractor = Extractor.open(bundle, request.settings, needs=list(head.needs))
        step = partial(bar.step, "features")
        folder = request.work / "features"
        cached = cache_features(request.images, bundle, extractor, folder, step, head.needs)
        for problem in cached.problems:
            bar.say(f"skipped {problem}")
        labels = PseudoLabels.of(head, cached, partial(bar.step, "names of patches"))
        started = time.monotonic()
        hooks = Hooks(bar.step, lambda log: bar.say(_line(log)))
        made = adapt(cached, labels, request.work / "head", plan, hooks, device)
        seconds = time.monotonic() - started
        bar.say(f"trained on {len(cached.images)} images in {seconds:.0f} s, {made.passes} passes")
        _write(request, plan, bundle, teacher, made, len(cached.images))
    bar.say(f"wrote {request.out}")
    return _compare(request, teacher, made, cached, bar)


def choose_teacher(bundle: Bundle, name: str | None) -> HeadSpec:
    """The head whose names are learned.

    Raises:
        OptionError: there is none, or `name` is none of them.
    """
    named = [spec for spec in bundle.spec.heads if spec.role == "names" and spec.name != ADAPTED]
    if not named:
        what = f"the bundle {bundle.path} has no head that names things"
        raise OptionError("bundle", what, "make one with `patchcut export concept` or `export levels`")
    found = [spec for spec in named if name in (None, spec.name)]
    if not found:
        held = ", ".join(spec.name for spec in named)
        raise OptionError("head", f"must be one of {held}, got {name}")
    return found[0]


def _write(
    request: AdaptRequest, plan: AdaptPlan, bundle: Bundle, teacher: HeadSpec, made: Adapted, images: int
) -> None:
    tensors = made.head.tensors()
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise TrainingError("train", f"the head's {broken[0]} is not finite", "lower the learning rate")
    spec = gnn_head(
        bundle.spec,
        "names",
        backbone=teacher.backbone,
        features=teacher.features[:1],
        labels=teacher.labels,
        affinity=AffinitySpec(threshold=plan.threshold),
        trained_on=f"{images:,} images without labels or masks: {request.trained_on}",
        method=(
            f"a GNN that learned what the head {teacher.name} calls their patches, weighted by how sure it "
            f"is (ReCo+); {made.passes} passes, the best by held-out images, seed {plan.seed}"
        ),
    )
    kept = [head for head in bundle.spec.heads if head.name != ADAPTED]
    changed = bundle.spec.model_copy(update={"heads": (*kept, spec)})
    rewrite_bundle(bundle, request.out, changed, {spec.files["weights"]: safetensors_bytes(tensors)})


def _compare(
    request: AdaptRequest, teacher: HeadSpec, made: Adapted, cached: CachedFeatures, bar: StepBar
) -> tuple[Compared, Compared]:
    """Both heads of the new bundle, on the same features and, where there are masks, on these."""
    with open_bundle(request.out) as bundle:
        specs = {spec.name: spec for spec in bundle.spec.heads}
        times = {name: _time(bundle, specs[name], cached) for name in (teacher.name, ADAPTED)}
    before, after = (
        Compared(name, agreement, times[name], _measure(request, name, bar))
        for name, agreement in ((teacher.name, None), (ADAPTED, made.agreement))
    )
    return before, after


def _time(bundle: Bundle, spec: HeadSpec, cached: CachedFeatures) -> float:
    head = open_head(bundle, spec)
    frames = []
    for i in range(min(_TIMED, len(cached.images))):
        rows = {name: cached.take(slice(i, i + 1), name).astype(np.float32) for name in head.needs}
        frames.append(Features(rows, cached.grid_hw))
    to_host(head(frames[0]))
    times = []
    for frame in frames:
        started = time.perf_counter()
        to_host(head(frame))
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def _measure(request: AdaptRequest, head: str, bar: StepBar) -> dict[str, float]:
    if request.root is None:
        return {}
    settings = replace(request.settings, bundle=request.out, head=head, refine="none", nothing_below=0.0)
    asked = EvalRequest(
        layout=request.layout, root=request.root, choices=Choices(), settings=settings, match="names"
    )
    metrics = measure(asked, bar).summary.metrics
    return {name: metrics[name] for name in ("mIoU", "pixel accuracy (set)")}


def to_text(heads: tuple[Compared, Compared]) -> str:
    """A table of both heads.

    Examples:
        >>> from patchcut_export.training.adapt_recipe import Compared, to_text
        >>> print(to_text((Compared("concepts", None, 1.5, {}), Compared("adapted", 0.9, 0.8, {}))))
        head        agrees with it  ms a frame
        concepts                 -        1.50
        adapted              0.900        0.80
    """
    titles = ["head    ", "agrees with it", "ms a frame", *heads[0].metrics]
    rows = [titles]
    for one in heads:
        agrees = "-" if one.agreement is None else f"{one.agreement:.3f}"
        numbers = [f"{one.metrics[name]:.3f}" for name in heads[0].metrics]
        rows.append([one.head, agrees, f"{one.milliseconds:.2f}", *numbers])
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
    return "\n".join(lines)


def _line(log: EpochLog) -> str:
    return f"{log.stage} epoch {log.epoch}: loss {log.loss:.4f}, held out {log.held_out_loss:.4f}"
