"""From a folder of images and a backbone to a bundle with a trained head."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.engines import EngineOptions, check_threads, open_engine
from patchcut.sources import open_source
from patchcut.sources.photos import read_photo

from patchcut_export.archive import safetensors_bytes
from patchcut_export.builder import HEAD, rewrite_bundle
from patchcut_export.datasets import Example, open_dataset
from patchcut_export.feature_cache import cache_features, features_of
from patchcut_export.gnn import GraphHead
from patchcut_export.metrics import mask_iou
from patchcut_export.places import check_place
from patchcut_export.progress import StepBar
from patchcut_export.training import EpochLog, Hooks, TrainPlan, check_plan, predict, train
from patchcut_export.truth import read_truth

LABELS = ("background", "foreground")


@dataclass(frozen=True)
class TrainRequest:
    """What `patchcut export train` was asked for.

    Attributes:
        images: folder of unlabelled images.
        backbone: bundle whose backbone makes the features.
        bundle: the file to write.
        work: folder for features, checkpoints and log.
        dev: folder with images/ and masks/ to watch, or None.
        size, precision, threads: how the backbone is run.
        name: of the new bundle.
        trained_on: what the card says of the images.
    """

    images: Path
    backbone: Path
    bundle: Path
    work: Path
    dev: Path | None
    size: int | None
    precision: str
    threads: int | None
    name: str
    trained_on: str


def train_bundle(request: TrainRequest, plan: TrainPlan, bar: StepBar) -> None:
    """Caches features, trains the head, writes the bundle; goes on where an earlier run was stopped.

    Raises:
        PatchcutError: naming what of the request cannot be, most of it before any work is done.
    """
    check_plan(plan)
    check_threads(request.threads)
    check_place(request.bundle)
    open_source(request.images).close()  # an empty folder is told before the images of --dev are run
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    options = EngineOptions(precision=request.precision, size=request.size, threads=request.threads)  # type: ignore[arg-type]
    examples = open_dataset("masks", request.dev).examples if request.dev else []
    with open_bundle(request.backbone) as backbone:
        dev = DevImages(backbone, options, examples, plan.threshold, bar) if examples else None
        cached = cache_features(
            request.images,
            backbone,
            options,
            request.work / "features",
            lambda done, total: bar.step("features", done, total),
        )
        for problem in cached.problems:
            bar.say(f"skipped {problem}")
        started = time.monotonic()
        hooks = Hooks(bar.step, lambda log: bar.say(_epoch_line(log)), dev.mean_iou if dev else None)
        engine = open_engine(backbone, options)

        def extract(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return np.array(features_of(image, "bgr", backbone.spec.backbone, engine))

        head = train(cached, request.images, extract, request.work / "head", plan, hooks)
        bar.say(f"trained on {len(cached.images)} images in {time.monotonic() - started:.0f} s")
        spec = _head_spec(len(cached.images), request, plan)
        rewrite_bundle(
            backbone,
            request.bundle,
            head=(spec, safetensors_bytes(head.tensors())),
            affinity=AffinitySpec(threshold=plan.threshold),
            name=request.name,
            description=f"Foreground: {backbone.spec.backbone.name}, a GNN trained without labels",
        )
    bar.say(f"wrote {request.bundle}")


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


def _head_spec(count: int, request: TrainRequest, plan: TrainPlan) -> HeadSpec:
    emptiness = f"crops of background and blank pictures (weight {plan.empty_weight:g}) as empty scenes"
    return HeadSpec(
        kind="gnn",
        file=HEAD,
        labels=LABELS,
        normalize=True,
        trained_on=f"{count:,} images without labels or masks: {request.trained_on}",
        method=(
            f"DeepCut's NCut loss over all images ({plan.ncut_epochs} pass), then normalised cuts of single "
            f"images, then its own GrabCut-refined masks ({plan.rounds} x) and {emptiness}; "
            f"{plan.epochs} passes each, seed {plan.seed}"
        ),
    )
