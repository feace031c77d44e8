"""From a folder of images and a backbone to a bundle with a trained head."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.cells import patch_means
from patchcut.errors import OptionError
from patchcut.features import Features, to_host
from patchcut.frames import Frame
from patchcut.heads import open_head
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor

from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.rewriting import gnn_head, rewrite_bundle, with_head
from patchcut_export.errors import ExportError, TrainingError
from patchcut_export.measuring.datasets import Example, open_dataset
from patchcut_export.measuring.metrics import mask_iou
from patchcut_export.measuring.truth import read_truth
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar
from patchcut_export.training.columns import ColumnPlan, train_columns
from patchcut_export.training.feature_cache import CachedFeatures, cache_features
from patchcut_export.training.foreground import Extract, ForegroundPlan, predict, train_foreground
from patchcut_export.training.gnn import GraphHead
from patchcut_export.training.loop import EpochLog, Hooks
from patchcut_export.training.torch_device import open_device

BACKGROUND, FOREGROUND = "background", "foreground"


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `patchcut export train` was asked for.

    Attributes:
        images: folder of unlabelled images.
        settings: the bundle whose backbone makes the features, and whose head says what is foreground where
            its parts are trained; how the backbone runs, and where: the head learns on the same device.
        bundle: the file to write.
        work: folder for features, checkpoints and log.
        dev: folder with images/ and masks/ to watch, or None.
        name: the new bundle's.
        trained_on: what the card says about the images.
        labels: names of the columns without the background's, or None.
    """

    images: Path
    settings: Settings
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
    if request.settings.threads is not None:
        torch.set_num_threads(request.settings.threads)
    examples = open_dataset("masks", request.dev).examples if request.dev else []
    with open_bundle(request.settings.bundle) as bundle:
        extractor = Extractor.open(bundle, request.settings, needs=_sets_needed(bundle, plan))
        recipe = _Recipe(request, bundle, extractor, bar)
        if isinstance(plan, ColumnPlan):
            recipe.train_columns(plan)
        else:
            recipe.train_foreground(plan, examples)
    bar.say(f"wrote {request.bundle}")


def _sets_needed(bundle: Bundle, plan: ForegroundPlan | ColumnPlan) -> tuple[str, ...]:
    """Feature sets that are cached: those of a decoder whose foreground gets parts; else the first, as ()."""
    head = bundle.spec.head() if isinstance(plan, ColumnPlan) and plan.parts else None
    return head.features if head is not None and head.kind == "decoder" else ()


def _check_request(request: TrainRequest, plan: ForegroundPlan | ColumnPlan) -> None:
    if isinstance(plan, ColumnPlan) and request.dev is not None:
        remedy = "measure the bundle with `patchcut export eval`"
        raise OptionError("dev", "watches a foreground, columns have none while they are trained", remedy)
    name_columns(plan, request.labels)
    open_device(request.settings.device)
    check_output_file(request.bundle)


def name_columns(plan: ForegroundPlan | ColumnPlan, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The labels of a head's columns, background first where it has that.

    Args:
        names: all others, None for "foreground", or "part-1" and so on.
    Raises:
        OptionError: these are too few, too many, empty or the same.
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


class _Recipe:
    """What both ways to a head have in common: the features, and writing the bundle."""

    def __init__(self, request: TrainRequest, bundle: Bundle, extractor: Extractor, bar: StepBar) -> None:
        self.request = request
        self.bundle = bundle
        self.extractor = extractor
        self.bar = bar
        self.device = open_device(request.settings.device)
        self.model = extractor.backbone.model

    def train_foreground(self, plan: ForegroundPlan, examples: list[Example]) -> None:
        """Two columns by the stages of `training.foreground`."""
        grid_hw = self.extractor.graph.grid_hw
        dev = DevImages(self.extract, grid_hw, examples, plan.threshold, self.bar) if examples else None
        cached = self.cache()
        started = time.monotonic()
        hooks = self.hooks(dev.mean_iou if dev else None)
        images, folder = self.request.images, self.request.work / "head"
        head = train_foreground(cached, images, self.extract, folder, plan, hooks, self.device)
        self.say_trained(cached, started)
        emptiness = f"crops of background and blank pictures (weight {plan.empty_weight:g}) as empty scenes"
        made = self.head_spec(
            plan,
            cached,
            method=(
                f"DeepCut's NCut loss over all images ({plan.ncut_epochs} pass), then normalised cuts of "
                f"single images, then its own GrabCut-refined masks ({plan.rounds} x) and {emptiness}; "
                f"{plan.epochs} passes each, seed {plan.seed}"
            ),
        )
        self.write(made, head, description=f"Foreground: {self.model}, a GNN trained without labels")

    def train_columns(self, plan: ColumnPlan) -> None:
        """k columns of all patches, or of those that the bundle's head says are foreground."""
        if plan.parts:
            plan = replace(plan, threshold=self.own_head().affinity.threshold)
        cached = self.cache()
        chosen = np.ones(cached.features.shape[:2], bool)
        if plan.parts:
            chosen = self.foreground_patches(cached)
            if empty := int((~chosen.any(1)).sum()):
                self.bar.say(f"left out {empty} of {len(chosen)} images in which there is no foreground")
        started = time.monotonic()
        folder = self.request.work / ("parts" if plan.parts else "columns")
        trained = train_columns(cached, chosen, folder, plan, self.hooks(), self.device)
        self.say_trained(cached, started)
        used = sum(share > 0 for share in trained.shares)
        passes = f"the weights are those after pass {trained.passes}"
        self.bar.say(f"{used} of {plan.columns} columns are used; {passes}")
        made = self.head_spec(
            plan, cached, temperature=plan.temperature, method=_columns_method(plan, trained.passes)
        )
        description = f"{plan.columns} columns: {self.model}, a GNN trained without labels"
        self.write(made, trained.head, description=None if plan.parts else description)

    def extract(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[n, d] float32, features of an image [H, W, 3] uint8 BGR; overwritten by the next call."""
        features: npt.NDArray[np.float32] = to_host(self.extractor([Frame(image)]).default)[0]
        return features

    def cache(self) -> CachedFeatures:
        """The features of the images; what had to be skipped is said."""
        request, bar = self.request, self.bar
        advance = partial(bar.step, "features")
        folder = request.work / "features"
        sets = list(self.extractor.backbone.features)
        cached = cache_features(request.images, self.bundle, self.extractor, folder, advance, sets)
        for problem in cached.problems:
            bar.say(f"skipped {problem}")
        if cached.problems:
            total = len(cached.images) + len(cached.problems)
            bar.say(f"skipped {len(cached.problems)} of {total} images")
        return cached

    def hooks(self, dev_iou: Callable[[GraphHead], float] | None = None) -> Hooks:
        return Hooks(self.bar.step, lambda log: self.bar.say(_epoch_line(log)), dev_iou)

    def say_trained(self, cached: CachedFeatures, started: float) -> None:
        seconds = time.monotonic() - started
        self.bar.say(f"trained on {len(cached.images)} images in {seconds:.0f} s on {self.device}")

    def own_head(self) -> HeadSpec:
        """The bundle's head, whose affinity and features its parts share.

        Raises:
            ExportError: there is none, or a GNN for parts cannot share its affinity or features.
        """
        spec, path = self.bundle.spec, self.bundle.path
        head = spec.head()
        if head is None:
            raise ExportError("bundle", f"{path} has no head", "name one that finds a foreground")
        if (head.affinity.kind, head.affinity.mode) != ("cosine", "ncut"):
            found = f"{head.affinity.kind}, {head.affinity.mode}"
            problem = f"the affinity of {path} is {found}, not cosine, ncut"
            raise ExportError("bundle", problem, "train its head with `patchcut export train`")
        first = next(iter(spec.backbones)), next(iter(spec.backbone.features))
        read = head.features == tuple(self.extractor.backbone.features)
        if (head.backbone, head.features[0]) != first or not read:
            problem = f"the head of {path} does not read the first features of its first backbone"
            raise ExportError("bundle", problem, "train its head with `patchcut export train`")
        return head

    def foreground_patches(self, cached: CachedFeatures) -> npt.NDArray[np.bool_]:
        """[N, n] bool, the patches that the bundle's head does not call background."""
        head = open_head(self.bundle, self.own_head())
        chosen = np.zeros(cached.features.shape[:2], bool)
        for i in range(len(chosen)):
            rows = {name: cached.take(slice(i, i + 1), name).astype(np.float32) for name in head.needs}
            assignment = to_host(head(Features(rows, cached.grid_hw)))[0]
            chosen[i] = patch_means(assignment, cached.grid_hw).argmax(1) != 0
            self.bar.step("foreground", i + 1, len(chosen))
        return chosen

    def head_spec(self, plan: ForegroundPlan | ColumnPlan, cached: CachedFeatures, **fields: Any) -> HeadSpec:
        """What the bundle says about the trained head."""
        return gnn_head(
            self.bundle.spec,
            "parts" if isinstance(plan, ColumnPlan) and plan.parts else "objects",
            affinity=AffinitySpec(threshold=plan.threshold),
            labels=name_columns(plan, self.request.labels),
            trained_on=f"{len(cached.images):,} images without labels or masks: {self.request.trained_on}",
            **fields,
        )

    def write(self, made: HeadSpec, head: GraphHead, description: str | None) -> None:
        """Writes the bundle with a new head; None keeps the description."""
        update = {"name": self.request.name} | ({"description": description} if description else {})
        spec = with_head(self.bundle.spec, made).model_copy(update=update)
        tensors = head.tensors()
        if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
            raise TrainingError("train", f"the head's {broken[0]} is not finite", "lower the learning rate")
        weights = {made.files["weights"]: safetensors_bytes(tensors)}
        rewrite_bundle(self.bundle, self.request.bundle, spec, weights)


class DevImages:
    """Images with masks, to watch how training goes; nothing is tuned on them by the program.

    Args:
        extract: makes their features, on a patch grid `grid_hw`.
        examples: the images and masks.
        threshold: cosines not above it are no edge of the head's affinity.
    """

    def __init__(
        self,
        extract: Extract,
        grid_hw: tuple[int, int],
        examples: list[Example],
        threshold: float,
        bar: StepBar,
    ) -> None:
        self.grid_hw = grid_hw
        self.threshold = threshold
        self.features, self.masks = [], []
        for done, example in enumerate(examples, 1):
            image = read_photo(example.image)
            self.features.append(extract(image).copy())
            self.masks.append(read_truth(example, image.shape[:2]).foreground)
            bar.step("features of the dev images", done, len(examples))

    def mean_iou(self, head: GraphHead) -> float:
        """Mean foreground IoU of a two-column head."""
        features = torch.from_numpy(np.stack(self.features))
        foreground = predict(head, features, self.threshold)[..., 1].numpy()
        pairs = zip(foreground, self.masks, strict=True)
        return float(np.mean([self._iou(row, mask) for row, mask in pairs]))

    def _iou(self, foreground: np.ndarray, mask: np.ndarray) -> float:
        size_wh = (mask.shape[1], mask.shape[0])
        fine = cv2.resize(foreground.reshape(self.grid_hw), size_wh, interpolation=cv2.INTER_LINEAR)
        return mask_iou(np.asarray(fine > 0.5), mask)


def _epoch_line(log: EpochLog) -> str:
    line = f"{log.stage} epoch {log.epoch}: loss {log.loss:.4f}, held out {log.held_out_loss:.4f}"
    return line if log.dev_iou is None else f"{line}, dev IoU {log.dev_iou:.3f}"


def _columns_method(plan: ColumnPlan, passes: int) -> str:
    loss = {"ncut": "NCut", "cc": f"correlation clustering (alpha {plan.alpha:g})"}[plan.loss]
    held = f", held to k-means over the collection (weight {plan.anchor:g})" if plan.loss == "ncut" else ""
    patches = "the foreground's patches" if plan.parts else "all patches"
    return (
        f"DeepCut's {loss} loss of {plan.columns} columns over graphs of {patches} of {plan.batch} "
        f"images{held}; {passes} passes, the best by held-out images, seed {plan.seed}"
    )
