"""From a folder of images and a backbone to a bundle with a trained head."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.engines import EngineOptions, check_threads, open_engine
from patchcut.errors import OptionError
from patchcut.heads import open_head
from patchcut.sources import open_source
from patchcut.sources.photos import read_photo

from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.builder import gnn_head, rewrite_bundle, with_head
from patchcut_export.errors import ExportError
from patchcut_export.measuring.datasets import Example, open_dataset
from patchcut_export.measuring.metrics import mask_iou
from patchcut_export.measuring.truth import read_truth
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar
from patchcut_export.training.columns import ColumnPlan, TrainedColumns, check_columns, train_columns
from patchcut_export.training.feature_cache import CachedFeatures, cache_features, features_of
from patchcut_export.training.foreground import ForegroundPlan, check_foreground, predict, train_foreground
from patchcut_export.training.gnn import GraphHead
from patchcut_export.training.loop import EpochLog, Hooks
from patchcut_export.training.torch_device import open_device

BACKGROUND, FOREGROUND = "background", "foreground"


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `patchcut export train` was asked for.

    Attributes:
        images: folder of unlabelled images.
        backbone: bundle whose backbone makes the features, and whose head says what is foreground where its
            parts are trained; None is the embedded one.
        engine: size, precision, threads and device of the backbone; the head learns on the same device.
        bundle: the file to write.
        work: folder for features, checkpoints and log.
        dev: folder with images/ and masks/ to watch, or None.
        name: the new bundle's.
        trained_on: what the card says about the images.
        labels: names of the columns without the background's, or None.
    """

    images: Path
    backbone: Path | None
    engine: EngineOptions
    bundle: Path
    work: Path
    dev: Path | None
    name: str
    trained_on: str
    labels: tuple[str, ...] | None = None


def train_bundle(request: TrainRequest, plan: ForegroundPlan | ColumnPlan, bar: StepBar) -> None:
    """Caches features, trains the head, writes the bundle; goes on where an earlier run was stopped.

    Raises:
        PatchcutError: naming what is wrong with the request, before any work is done where that is possible.
    """
    _check_request(request, plan)
    open_source(request.images).close()  # an empty folder is told before the images of --dev are run
    if request.engine.threads is not None:
        torch.set_num_threads(request.engine.threads)
    examples = open_dataset("masks", request.dev).examples if request.dev else []
    with open_bundle(request.backbone) as backbone:
        if isinstance(plan, ColumnPlan):
            _train_columns(request, backbone, plan, bar)
        else:
            _train_foreground(request, backbone, plan, examples, bar)
    bar.say(f"wrote {request.bundle}")


def _check_request(request: TrainRequest, plan: ForegroundPlan | ColumnPlan) -> None:
    if isinstance(plan, ForegroundPlan):
        check_foreground(plan)
    else:
        check_columns(plan)
        if request.dev is not None:
            remedy = "measure the bundle with `patchcut export eval`"
            raise OptionError("dev", "watches a foreground, columns have none while they are trained", remedy)
    name_columns(plan, request.labels)
    open_device(request.engine.device)
    check_threads(request.engine.threads)
    check_output_file(request.bundle)


def name_columns(plan: ForegroundPlan | ColumnPlan, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The labels of a head's columns, background first where it has that.

    Args:
        names: of all others, None for "foreground", or "part-1" and so on.
    Raises:
        OptionError: these are too few, too many, empty or not different.
    """
    parts = isinstance(plan, ColumnPlan) and plan.parts
    count = 1 if isinstance(plan, ForegroundPlan) else plan.columns - (not parts)
    if names is None:
        names = (FOREGROUND,) if count == 1 else tuple(f"part-{i + 1}" for i in range(count))
    if len(names) != count:
        beside = "" if parts else " beside the background"
        raise OptionError("labels", f"must be {count}, one for each column{beside}, got {len(names)}")
    labels = names if parts else (BACKGROUND, *names)
    if not all(labels) or len(set(labels)) != len(labels):
        raise OptionError("labels", f"must differ, and none be empty, got {', '.join(labels)}")
    return labels


def _cache(request: TrainRequest, backbone: Bundle, bar: StepBar) -> CachedFeatures:
    cached = cache_features(
        request.images,
        backbone,
        request.engine,
        request.work / "features",
        lambda done, total: bar.step("features", done, total),
    )
    for problem in cached.problems:
        bar.say(f"skipped {problem}")
    if cached.problems:
        bar.say(f"skipped {len(cached.problems)} of {len(cached.images) + len(cached.problems)} images")
    return cached


def _train_foreground(
    request: TrainRequest, backbone: Bundle, plan: ForegroundPlan, examples: list[Example], bar: StepBar
) -> None:
    """Two columns by the stages of `training`."""
    dev = DevImages(backbone, request.engine, examples, plan.threshold, bar) if examples else None
    cached = _cache(request, backbone, bar)
    started = time.monotonic()
    hooks = Hooks(bar.step, lambda log: bar.say(_epoch_line(log)), dev.mean_iou if dev else None)
    engine = open_engine(backbone, request.engine)

    def extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.array(features_of(image, "bgr", backbone.spec.backbone, engine))

    device = open_device(request.engine.device)
    head = train_foreground(cached, request.images, extract, request.work / "head", plan, hooks, device)
    bar.say(_trained_line(cached, started, device))
    emptiness = f"crops of background and blank pictures (weight {plan.empty_weight:g}) as empty scenes"
    made = gnn_head(
        backbone.spec,
        "objects",
        affinity=AffinitySpec(threshold=plan.threshold),
        labels=name_columns(plan, request.labels),
        trained_on=_trained_on(request, len(cached.images)),
        method=(
            f"DeepCut's NCut loss over all images ({plan.ncut_epochs} pass), then normalised cuts of single "
            f"images, then its own GrabCut-refined masks ({plan.rounds} x) and {emptiness}; "
            f"{plan.epochs} passes each, seed {plan.seed}"
        ),
    )
    description = f"Foreground: {backbone.spec.backbone.model}, a GNN trained without labels"
    spec = with_head(backbone.spec, made).model_copy(
        update={"name": request.name, "description": description}
    )
    rewrite_bundle(backbone, request.bundle, spec, {made.files["weights"]: safetensors_bytes(head.tensors())})


def _train_columns(request: TrainRequest, backbone: Bundle, plan: ColumnPlan, bar: StepBar) -> None:
    """k columns of all patches, or of those that the bundle's head says are foreground."""
    if plan.parts:
        plan = _with_affinity(plan, backbone)
    cached = _cache(request, backbone, bar)
    check_columns(plan, cached.features.shape[1])
    chosen = np.ones(cached.features.shape[:2], bool)
    if plan.parts:
        chosen = foreground_patches(backbone, cached, bar)
        if empty := int((~chosen.any(1)).sum()):
            bar.say(f"left out {empty} of {len(chosen)} images in which there is no foreground")
    started = time.monotonic()
    hooks = Hooks(bar.step, lambda log: bar.say(_epoch_line(log)))
    folder, device = request.work / ("parts" if plan.parts else "columns"), open_device(request.engine.device)
    trained = train_columns(cached, chosen, folder, plan, hooks, device)
    bar.say(_trained_line(cached, started, device))
    used = sum(share > 0 for share in trained.shares)
    bar.say(f"{used} of {plan.columns} columns are used; the weights are those after pass {trained.passes}")
    made = _columns_spec(request, backbone, plan, trained, len(cached.images))
    update = {"name": request.name}
    if not plan.parts:
        model = backbone.spec.backbone.model
        update["description"] = f"{plan.columns} columns: {model}, a GNN trained without labels"
    spec = with_head(backbone.spec, made).model_copy(update=update)
    rewrite_bundle(
        backbone, request.bundle, spec, {made.files["weights"]: safetensors_bytes(trained.head.tensors())}
    )


def _with_affinity(plan: ColumnPlan, bundle: Bundle) -> ColumnPlan:
    """The plan with the affinity of the bundle's head, which its parts share.

    Raises:
        ExportError: there is no head, or its affinity is not one that a GNN is trained on.
    """
    head = bundle.spec.head()
    if head is None:
        raise ExportError("bundle", f"{bundle.path} has no head", "name one that finds a foreground")
    affinity = head.affinity
    if (affinity.kind, affinity.mode) != ("cosine", "ncut"):
        problem = f"the affinity of {bundle.path} is {affinity.kind}, {affinity.mode}, not cosine, ncut"
        raise ExportError("bundle", problem, "train its head with `patchcut export train`")
    return replace(plan, threshold=affinity.threshold)


def foreground_patches(bundle: Bundle, cached: CachedFeatures, bar: StepBar) -> npt.NDArray[np.bool_]:
    """[N, n] bool, the patches that the bundle's head does not call background."""
    head = open_head(bundle)
    chosen = np.zeros(cached.features.shape[:2], bool)
    for i in range(len(chosen)):
        assignment = head(cached.take(slice(i, i + 1))[0].astype(np.float32), cached.grid_hw)
        chosen[i] = assignment.argmax(1) != 0
        bar.step("foreground", i + 1, len(chosen))
    return chosen


class DevImages:
    """Images with masks, to watch how training goes; nothing is tuned on them by the program.

    Args:
        backbone, options: what makes their features.
        examples: with masks.
        threshold: of the head's affinity.
    """

    def __init__(
        self,
        backbone: Bundle,
        options: EngineOptions,
        examples: list[Example],
        threshold: float,
        bar: StepBar,
    ) -> None:
        engine = open_engine(backbone, options)
        self.grid_hw = engine.graph.grid_hw
        self.threshold = threshold
        self.features, self.masks = [], []
        for done, example in enumerate(examples, 1):
            image = read_photo(example.image)
            self.features.append(features_of(image, "bgr", backbone.spec.backbone, engine).copy())
            self.masks.append(read_truth(example, image.shape[:2]).foreground)
            bar.step("features of the dev images", done, len(examples))

    def mean_iou(self, head: GraphHead) -> float:
        """Mean foreground IoU of a two-column head."""
        foreground = predict(head, torch.from_numpy(np.stack(self.features)), self.threshold)[..., 1].numpy()
        return float(
            np.mean([self._iou(row, mask) for row, mask in zip(foreground, self.masks, strict=True)])
        )

    def _iou(self, foreground: np.ndarray, mask: np.ndarray) -> float:
        size_wh = (mask.shape[1], mask.shape[0])
        fine = cv2.resize(foreground.reshape(self.grid_hw), size_wh, interpolation=cv2.INTER_LINEAR)
        return mask_iou(np.asarray(fine > 0.5), mask)


def _epoch_line(log: EpochLog) -> str:
    line = f"{log.stage} epoch {log.epoch}: loss {log.loss:.4f}, held out {log.held_out_loss:.4f}"
    return line if log.dev_iou is None else f"{line}, dev IoU {log.dev_iou:.3f}"


def _trained_line(cached: CachedFeatures, started: float, device: torch.device) -> str:
    return f"trained on {len(cached.images)} images in {time.monotonic() - started:.0f} s on {device}"


def _trained_on(request: TrainRequest, count: int) -> str:
    return f"{count:,} images without labels or masks: {request.trained_on}"


def _columns_spec(
    request: TrainRequest, backbone: Bundle, plan: ColumnPlan, trained: TrainedColumns, count: int
) -> HeadSpec:
    loss = {"ncut": "NCut", "cc": f"correlation clustering (alpha {plan.alpha:g})"}[plan.loss]
    held = f", held to k-means over the collection (weight {plan.anchor:g})" if plan.loss == "ncut" else ""
    patches = "the foreground's patches" if plan.parts else "all patches"
    return gnn_head(
        backbone.spec,
        "parts" if plan.parts else "objects",
        affinity=AffinitySpec(threshold=plan.threshold),
        labels=name_columns(plan, request.labels),
        temperature=plan.temperature,
        trained_on=_trained_on(request, count),
        method=(
            f"DeepCut's {loss} loss of {plan.columns} columns over graphs of {patches} of {plan.batch} "
            f"images{held}; {trained.passes} passes, the best by held-out images, seed {plan.seed}"
        ),
    )
