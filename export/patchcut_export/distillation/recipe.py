"""From a teacher, a folder of images and the name of a student to a bundle."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from patchcut.bundle import BackboneSpec, Bundle, HeadSpec, open_bundle
from patchcut.errors import OptionError
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor

from patchcut_export.backbones.weights import Provenance, StateDict
from patchcut_export.bundles.builder import BackbonePlan, Content, heads_of, write_extractors
from patchcut_export.distillation.averaging import average_runs, check_runs
from patchcut_export.distillation.frozen import FrozenStudent, frozen_student
from patchcut_export.distillation.log import StepLog
from patchcut_export.distillation.start import prepare
from patchcut_export.distillation.student import MASK, Decoding, Student, StudentSpec
from patchcut_export.distillation.targets import Ensemble, cache_masks
from patchcut_export.distillation.training import Distillation, DistillHooks, DistillPlan
from patchcut_export.distillation.views import View, Views
from patchcut_export.measuring.datasets import Example, open_dataset
from patchcut_export.measuring.metrics import mask_iou
from patchcut_export.measuring.truth import read_truth
from patchcut_export.outputs import check_output_file
from patchcut_export.precision.pictures import read_photos
from patchcut_export.progress import StepBar
from patchcut_export.training.calibration import CalibrationPlan, calibrate_bundle
from patchcut_export.training.feature_cache import cache_features
from patchcut_export.training.torch_device import open_device

HEAD = "decoder"
_FEATURES, _MASKS = _CACHES = "features", "masks"  # folders of `work`, beside those of runs
_RUN = re.compile(r"[\w-]+", re.ASCII)
_STARTED_ON = 256  # images that projections are fitted on, and by which units are kept


@dataclass(frozen=True, kw_only=True)
class DistillRequest:
    """What `patchcut export distill` was asked for.

    Attributes:
        images: folder of unlabelled images.
        settings: the teacher's bundle, and how its backbone runs; the student learns on the same device.
        student: what is trained.
        start: weights that its trunk starts from, and where they are from; None for random ones.
        freeze: whether the teacher's backbone stays as it is, made of `start`, and the decoder learns alone.
        sizes: sides of the student's inputs in pixels; it is trained at the first.
        precisions: of its graphs.
        bundle: the file to write.
        work: folder for the teacher's features and masks, and for runs.
        run: name of this run, the folder in `work` that holds its checkpoint, log and curve.
        average: names of finished runs, with whose weights this one's are averaged.
        dev: folder with images/ and masks/ to watch, or None.
        name: the new bundle's.
        trained_on: what the card says about the images.
        calibrate: photographs that the scores are calibrated on; 0 for none.
    """

    images: Path
    settings: Settings
    student: StudentSpec
    start: tuple[StateDict, Provenance] | None
    freeze: bool = False
    sizes: tuple[int, ...]
    precisions: tuple[Any, ...]
    bundle: Path
    work: Path
    run: str = "student"
    average: tuple[str, ...] = ()
    dev: Path | None
    name: str
    trained_on: str
    calibrate: int = 1000


def check_run(option: str, name: str) -> str:
    """The name of a run, if it can be a folder of its own.

    Raises:
        OptionError: it cannot.
    Examples:
        >>> from patchcut_export.distillation.recipe import check_run
        >>> check_run("run", "second")
        'second'
    """
    if not _RUN.fullmatch(name) or name in _CACHES:
        problem = f"must be a name of letters, digits, - and _, but not {' or '.join(_CACHES)}, got {name!r}"
        raise OptionError(option, problem, "try student")
    return name


def distill_bundle(request: DistillRequest, plan: DistillPlan, bar: StepBar) -> None:
    """Caches what the teacher says, trains the student, writes and calibrates its bundle.

    Goes on where an earlier run was stopped.

    Raises:
        PatchcutError: naming what is wrong with the request, before any work is done where that is possible.
    """
    check_output_file(request.bundle)
    open_source(request.images).close()
    device = open_device(request.settings.device)
    if request.settings.threads is not None:
        torch.set_num_threads(request.settings.threads)
    examples = open_dataset("masks", request.dev).examples if request.dev else []
    with open_bundle(request.settings.bundle) as teacher:
        backbone = teacher_backbone(teacher)
        torch.manual_seed(plan.seed)
        student = _student(request, teacher, backbone)
        for size in request.sizes[1:]:
            student.at_size(size)  # a size that does not fit is told before the work
        start = {
            "student": str(request.student),
            "size": request.sizes[0],
            "start": request.start[1].sha256 if request.start else "",
            **({"frozen": True} if request.freeze else {}),
        }
        if len({request.run, *request.average}) <= len(request.average):
            problem = f"names a run twice: {', '.join((request.run, *request.average))}"
            raise OptionError("average", problem, "name other runs than this one")
        others = [request.work / name for name in request.average]
        check_runs(others, student, {**asdict(plan), **start})
        views = _views(request, teacher, backbone, student, list(student.sets), bar)
        if isinstance(student, Student):
            prepare(student, views.first(_STARTED_ON))
        about = {**start, "masks_sha256": _sha256(views)}
        watch = DevImages(views, examples) if examples else None
        hooks = DistillHooks(bar.step, lambda line: bar.say(_line(line)), watch.mean_iou if watch else None)
        started = time.monotonic()
        loop = Distillation(student, views, request.work / request.run, plan, about, hooks, device)
        made = loop.run().cpu()
        seconds = time.monotonic() - started
        bar.say(f"trained on {len(loop.train)} images in {seconds:.0f} s on {device}")
        if others:
            average_runs(made, others)
            watched = f": IoU {watch.mean_iou(made):.3f}" if watch else ""
            bar.say(f"averaged with {', '.join(request.average)}{watched}")
        _write(request, plan, teacher, backbone, made, len(views.cached.images), bar)
    bar.say(f"wrote {request.bundle}, {request.bundle.stat().st_size / 1e6:.1f} MB")


def _student(request: DistillRequest, teacher: Bundle, backbone: BackboneSpec) -> Decoding:
    """What is to learn, at the first size.

    Raises:
        OptionError: it cannot be.
        ExportError: `start` does not fit it, or is not what a frozen trunk was made of.
    """
    size, weights = request.sizes[0], request.start and request.start[0]
    if request.freeze:
        frozen = frozen_student(request.student, size, backbone, weights)
        _kept_heads(request, teacher, frozen)  # heads of other weights are told before the work
        return frozen
    sets = {name: (one.dim, one.of_image) for name, one in backbone.features.items() if not one.is_assignment}
    return Student(request.student, size, sets, weights)


def _kept_heads(request: DistillRequest, teacher: Bundle, student: Decoding) -> list[HeadSpec]:
    """The heads that go on as they were, on the same features.

    Raises:
        ExportError: the student's are others.
    """
    if not isinstance(student, FrozenStudent) or request.start is None:
        return []
    plan = BackbonePlan(student.kept, request.sizes, request.precisions)
    return heads_of(teacher, plan, request.start[1])


def teacher_backbone(teacher: Bundle) -> BackboneSpec:
    """The backbone of a teacher's head for objects.

    Raises:
        OptionError: its patches overlap, or its images are letterboxed: the student's grid is not theirs.
    """
    head = teacher.spec.head()
    backbone = teacher.spec.backbones[head.backbone] if head else teacher.spec.backbone
    if backbone.stride is not None or backbone.fit != "stretch":
        how = "overlapping patches" if backbone.stride is not None else f"images that are {backbone.fit}ed"
        problem = f"{teacher.path} has {how}, whose grid a student's cannot be matched with"
        raise OptionError("teacher", problem, "name one with plain patches of stretched images")
    return backbone


def _views(
    request: DistillRequest,
    teacher: Bundle,
    backbone: BackboneSpec,
    student: Decoding,
    sets: list[str],
    bar: StepBar,
) -> Views:
    """The teacher's features and masks of the images, from the work folder as far as they are there."""
    extractor = Extractor.open(teacher, request.settings, needs=sets)
    advance = partial(bar.step, "features of the teacher")
    cached = cache_features(request.images, teacher, extractor, request.work / _FEATURES, advance, sets)
    for problem in cached.problems:
        bar.say(f"skipped {problem}")
    ensemble = Ensemble(teacher, request.settings, extractor)
    masks = cache_masks(request.images, cached, ensemble, request.work / _MASKS, bar.step)
    side = student.grid_hw[0]
    mean, std = backbone.mean, backbone.std
    return Views(request.images, cached, masks, request.sizes[0], side, mean, std)


def _sha256(views: Views) -> str:
    """What the masks are, for a folder that is gone on with."""
    digest = hashlib.sha256(views.targets.weights.tobytes())
    for begin in range(0, len(views.targets.masks), 64):
        digest.update(np.ascontiguousarray(views.targets.masks[begin : begin + 64]).tobytes())
    return digest.hexdigest()


class DevImages:
    """Images with masks, to watch how training goes; nothing is tuned on them by the program."""

    def __init__(self, views: Views, examples: list[Example]) -> None:
        self.views = views
        self.examples = examples

    def mean_iou(self, student: Decoding) -> float:
        """Mean foreground IoU of the decoder's masks, unrefined."""
        import cv2

        scores = []
        device = next(student.parameters()).device
        for example in self.examples:
            image = read_photo(example.image)
            with torch.no_grad():
                _, logits, _ = student.learned(self.views.image(image, View())[None].to(device))
            height, width = image.shape[:2]
            fine = cv2.resize(logits[0].sigmoid().cpu().numpy(), (width, height))
            scores.append(mask_iou(fine > 0.5, read_truth(example, (height, width)).foreground))
        return float(np.mean(scores))


def _write(
    request: DistillRequest,
    plan: DistillPlan,
    teacher: Bundle,
    backbone: BackboneSpec,
    student: Decoding,
    images: int,
    bar: StepBar,
) -> None:
    said = _origin(request, teacher, backbone, student, images)
    pack = BackbonePlan(
        student.spec,
        request.sizes,
        request.precisions,
        pictures=read_photos(request.images),
        mean=backbone.mean,
        std=backbone.std,
    )
    passes = f"{plan.epochs} passes, seed {plan.seed}"
    if request.average:
        passes += f"; the mean of the weights of {len(request.average) + 1} runs"
    head = HeadSpec(
        name=HEAD,
        kind="decoder",
        role="objects",
        backbone=str(request.student),
        features=(next(iter(student.sets)), MASK),
        labels=("background", "foreground"),
        trained_on=f"{images:,} images without labels or masks: {request.trained_on}",
        method=(
            f"a mask decoder distilled from {teacher.spec.name}: masks of its head and of ncut at all sizes, "
            f"moved onto edges by GrabCut, beside its features; {passes}"
        ),
        files={},
    )
    extractors = {
        size: student if size == student.image_size else student.at_size(size) for size in request.sizes
    }
    description = f"Foreground: {request.student} distilled from {teacher.spec.name}, without labels"
    with TemporaryDirectory(prefix="patchcut-") as folder:
        # Only what is calibrated too is put in the place of what was there.
        path = request.bundle if not request.calibrate else Path(folder) / request.bundle.name
        kept = _kept_heads(request, teacher, student)
        donor = teacher if kept else None
        content = Content(request.name, description, pack, said, extractors, (head, *kept), donor)
        write_extractors(path, content, bar.say)
        if request.calibrate:
            photographs = CalibrationPlan(
                images=request.images, limit=request.calibrate, threads=request.settings.threads
            )
            calibrate_bundle(path, request.bundle, photographs, bar.step)


def _origin(
    request: DistillRequest, teacher: Bundle, backbone: BackboneSpec, student: Decoding, images: int
) -> Provenance:
    """Where the student's weights come from: its teacher, and what they started from."""
    if isinstance(student, FrozenStudent) and request.start is not None:
        return request.start[1]
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    start = f", started from {request.start[1].source}" if request.start else ", started at random"
    licences = [backbone.licence, request.start[1].licence if request.start else ""]
    pasts = [backbone.trained_on, request.start[1].trained_on if request.start else ""]
    return Provenance(
        source=f"distilled from {teacher.spec.name} by `patchcut export distill`{start}",
        sha256=digest.hexdigest(),
        licence="; ".join(dict.fromkeys(filter(None, licences))),
        trained_on=f"{images:,} images without labels or masks: {request.trained_on}. Its teacher: "
        + "; ".join(dict.fromkeys(filter(None, pasts))),
    )


def _line(log: StepLog) -> str:
    watched = f", IoU {log.dev_iou:.3f}" if log.dev_iou is not None else ""
    held_out = f"held out {log.held_out_mask:.4f} and {log.held_out_features:.4f}"
    return f"step {log.step}: masks {log.mask:.4f}, features {log.features:.4f}; {held_out}{watched}"
