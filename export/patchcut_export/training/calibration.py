"""Turns the scores of a bundle's own head into probabilities, and says below which there is nothing.

No labels are used. A photograph's best region is an object: photographs are taken of something. What the head
finds in a part of a photograph where it had found nothing before, or in a blank picture, is none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import CalibrationSpec, open_bundle
from patchcut.cells import patch_means
from patchcut.errors import BundleError, OptionError
from patchcut.features import to_host
from patchcut.frames import Frame
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.stages import Canvas
from patchcut.stages.regions import calibrated_scores

from patchcut_export.bundles.rewriting import rewrite_bundle, with_head
from patchcut_export.errors import TrainingError
from patchcut_export.measuring.empty_scenes import background_crop, blank_images
from patchcut_export.outputs import check_output_file

_logger = logging.getLogger("patchcut")

Image = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]
Step = Callable[[str, int, int], None]

# Of the squared weights, so that classes which can be told apart do not send them to infinity.
_RIDGE = 1e-2
_NEWTON_STEPS = 50
_LARGEST = 1e6  # a bundle's weights are no larger


@dataclass(frozen=True, kw_only=True)
class CalibrationPlan:
    """How a bundle is calibrated.

    Attributes:
        images: folder of photographs that show something each, such as those that the head was trained on.
        limit: how many of them are looked at, spread evenly.
        blanks: how many blank pictures are.
        keep: share of the photographs in which something must still be found.
        seed: decides the blank pictures.
        threads: the backbone's.
    """

    images: Path
    limit: int = 1000
    blanks: int = 120
    keep: float = 0.95
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """What was found at one size.

    Attributes:
        objects: [p, 4] float64, features of the best region of each photograph in which there is one.
        others: [q, 4] float64, features of each region where nothing is shown.
        photographs: how many were looked at.
    """

    objects: Float64
    others: Float64
    photographs: int


def calibrate_bundle(path: Path, out: Path, plan: CalibrationPlan, step: Step) -> CalibrationSpec:
    """The calibration of a bundle's own head, which a copy of the bundle at `out` then has.

    Args:
        path: the bundle; may be `out`.
        step: called with (title, done, total).
    Raises:
        OptionError: `keep` is not between 0 and 1.
        TrainingError: the photographs have no regions, or none were found where nothing is shown.
        PatchcutError: the images or the bundle cannot be read, or `out` cannot be written.
    """
    if not 0 < plan.keep < 1:
        raise OptionError("keep", f"must be between 0 and 1, got {plan.keep}")
    check_output_file(out)
    settings = Settings(bundle=path, threads=plan.threads)
    with open_bundle(path) as bundle:
        if (head := bundle.spec.head()) is None:
            raise BundleError("head", f"{path} holds a backbone and no head", "train one first")
        sizes = list(dict.fromkeys(graph.size_hw[0] for graph in bundle.spec.backbones[head.backbone].graphs))
        segmenters = [Segmenter.open(replace(settings, size=size)) for size in sizes]
        samples = _collect([partial(find_regions, segmenter) for segmenter in segmenters], plan, step)
        calibration = fit_calibration(samples, plan.keep, _fitted_on(samples, plan, sizes))
        calibrated = with_head(bundle.spec, head.model_copy(update={"calibration": calibration}))
        rewrite_bundle(bundle, out, calibrated)
    return calibration


def fit_calibration(samples: list[Sample], keep: float, fitted_on: str = "") -> CalibrationSpec:
    """Logistic regression between two kinds of regions that count for as much, whatever their numbers.

    `nothing_below` is the score that a share `keep` of the photographs of each sample reaches; one without a
    region scores 0.

    Args:
        samples: one for each size of the backbone's input.
    Raises:
        TrainingError: there are no regions of one of the kinds, or no weights tell them apart.
    """
    objects = np.concatenate([sample.objects for sample in samples])
    others = np.concatenate([sample.others for sample in samples])
    if not len(objects) or not len(others):
        problem = f"needs regions of both kinds, got {len(objects)} and {len(others)}"
        raise TrainingError("calibrate", problem, "name a folder with more images")
    rows = np.concatenate([objects, others])
    truth = np.repeat([1.0, 0.0], [len(objects), len(others)])
    counts = np.where(truth > 0, 0.5 / len(objects), 0.5 / len(others)) * len(rows)
    *weights, bias = fitted = fit_logistic(rows, truth, counts)
    if not np.abs(fitted).max() <= _LARGEST:  # and where one is not a number
        problem = f"the regression gave no usable weights: {fitted.round(3).tolist()}"
        raise TrainingError("calibrate", problem, "name a folder with more images")
    fields = {"weights": weights, "bias": bias, "nothing_below": 0, "fitted_on": fitted_on}
    draft = CalibrationSpec.model_validate(fields)
    limit = min(_score_kept(sample, draft, keep) for sample in samples)
    return draft.model_copy(update={"nothing_below": limit})


def _score_kept(sample: Sample, calibration: CalibrationSpec, keep: float) -> float:
    scores = np.zeros(sample.photographs)
    scores[: len(sample.objects)] = calibrated_scores(sample.objects, calibration)
    # rounded down, so that no share is lost to the rounding
    return math.floor(float(np.quantile(scores, 1 - keep)) * 1e4) / 1e4


def fit_logistic(rows: Float64, truth: Float64, counts: Float64) -> Float64:
    """[f + 1] weights and bias that make `truth` most likely, by Newton's method with a small ridge.

    Args:
        rows: [m, f] float64.
        truth: [m] float64, 0 or 1.
        counts: [m] float64, how often each row counts.
    """
    columns = np.column_stack([rows, np.ones(len(rows))])
    ridge = _RIDGE * np.diag([*[1.0] * rows.shape[1], 0.0])
    solution = np.zeros(columns.shape[1])
    for _ in range(_NEWTON_STEPS):
        likely = 1 / (1 + np.exp(-np.clip(columns @ solution, -80, 80)))
        gradient = columns.T @ (counts * (likely - truth)) + ridge @ solution
        curvature = (columns * (counts * likely * (1 - likely))[:, None]).T @ columns + ridge
        solution = solution - np.linalg.solve(curvature + 1e-9 * np.eye(len(curvature)), gradient)
    return solution


@dataclass(frozen=True, eq=False)
class Found:
    """What a segmenter finds in an image.

    Attributes:
        features: [m, 4] float64, of all regions.
        best: selects the row of the best region, if there is one.
        foreground: [h, w] float32 in [0, 1], on the patch grid.
    """

    features: Float64
    best: slice
    foreground: npt.NDArray[np.float32]


def find_regions(segmenter: Segmenter, image: Image) -> Found:
    """The regions that a segmenter scores in an image [H, W, 3] uint8 BGR."""
    frame, extractor = Frame(image), segmenter.extractor
    assignment = to_host(segmenter.head(extractor([frame])))[0]
    height, width = image.shape[:2]
    canvas = Canvas.of((height, width), extractor.backbone, extractor.graph)
    components = segmenter.masks.components(frame, assignment, canvas)
    scores = components.plain_scores
    first = int(scores.argmax()) if len(scores) else 0
    foreground = 1 - patch_means(assignment, canvas.grid_hw)[:, 0].reshape(canvas.grid_hw)
    return Found(components.features, slice(first, first + 1), foreground)


def _collect(finders: list[Callable[[Image], Found]], plan: CalibrationPlan, step: Step) -> list[Sample]:
    """What each finds in photographs, in their background and in blank pictures."""
    objects: list[list[Float64]] = [[] for _ in finders]
    others: list[list[Float64]] = [[] for _ in finders]
    photographs = 0
    for image in _photographs(plan, lambda done, total: step("photographs", done, total)):
        photographs += 1
        for i, find in enumerate(finders):
            found = find(image)
            objects[i].append(found.features[found.best])
            crop = background_crop(image, found.foreground)
            if crop is not None:
                others[i].append(find(crop).features)
    for blank in blank_images(plan.blanks, plan.seed):
        for i, find in enumerate(finders):
            others[i].append(find(blank).features)
    return [Sample(_rows(objects[i]), _rows(others[i]), photographs) for i in range(len(finders))]


def _photographs(plan: CalibrationPlan, advance: Callable[[int, int], None]) -> Iterator[Image]:
    """Images [H, W, 3] uint8 BGR of a folder, evenly spread; unreadable ones are left out and named."""
    with open_source(plan.images) as source:
        total = source.total or plan.limit
    every = max(1, math.ceil(total / plan.limit))
    with open_source(plan.images, every=every) as source:
        for done, frame in enumerate(source, 1):
            advance(done, math.ceil(total / every))
            yield frame.image
        for problem in source.problems:
            _logger.warning("%s", problem)


def _rows(features: list[Float64]) -> Float64:
    return np.concatenate(features) if features else np.zeros((0, 4))


def _fitted_on(samples: list[Sample], plan: CalibrationPlan, sizes: list[int]) -> str:
    at, others = " and ".join(map(str, sizes)), sum(len(sample.others) for sample in samples)
    return (
        f"{samples[0].photographs} photographs of {plan.images.name} at {at}, of which {plan.keep:.0%} keep "
        f"their best region, and {others} regions found in their backgrounds and in blank pictures"
    )
