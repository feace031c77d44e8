"""Concepts of road scenes from boxes: what the exporter learns of them, beside the mean of their patches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import open_bundle
from patchcut.concepts.collection import TEMPERATURE
from patchcut.frames import as_frame
from patchcut.heads.naming import unit
from patchcut.sources.photos import read_photo
from patchcut.stages import Canvas, Extractor, Masks, Rules
from patchcut_export.concepts.archives import Archive
from patchcut_export.concepts.boxes import Box, inside_box
from patchcut_export.concepts.reading import Archives
from patchcut_export.concepts.recipe import ConceptsPlan, learn_concepts, semantic_set
from patchcut_export.measuring.datasets import open_dataset
from patchcut_export.measuring.truth import read_truth
from patchcut_export.training.feature_cache import cache_features

from bench.cases import BenchError, Options, Target
from bench.rows import Outcome

TITLE = "concepts from boxes of road scenes at 224: the exporter's recipe and the nearest mean"
SIZE, BOXES, EVERY = 224, 20, 3
CASE = f"boxes camvid-dev {SIZE}"
CASES = (CASE,)
REPEATS = 1
OURS, PUBLISHED, MEANS = (
    "patchcut",
    "co-segmentation as published, of the boxes' patches",
    "mean of the boxes' patches, centred",
)
TARGETS = (
    Target(CASE, "mIoU_over_means", ">=", 0.0, "", "mIoU of 11 concepts from boxes over the nearest mean"),
)

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Scene:
    """An image, its features [n, d], the true class [H, W] of its pixels, and where it lies."""

    path: Path
    rows: npt.NDArray[np.float16]
    classes: npt.NDArray[np.uint8]
    canvas: Canvas


def run(options: Options) -> Iterator[Outcome]:
    """Of every third image the boxes are taken, of the others the numbers: all their pixels have a class."""
    root = options.dataset("boxes", "camvid-dev", "masks")
    dataset = open_dataset("semantic", root)
    if dataset.classes is None:
        raise BenchError("boxes needs masks of classes")
    count = len(dataset.classes.names)
    settings = replace(options.settings, size=SIZE)
    with tempfile.TemporaryDirectory() as work, open_bundle(settings.bundle) as bundle:
        name = semantic_set(bundle, None)
        extractor = Extractor.open(bundle, settings, needs=(name,))
        cached = cache_features(root / "images", bundle, extractor, Path(work), lambda done, total: None)
        examples = {example.image.name: example for example in dataset.examples}
        scenes = []
        for image, rows in zip(cached.images, cached.features, strict=True):
            size = read_photo(examples[image].image).shape[:2]
            canvas = Canvas.of(size, extractor.backbone, extractor.graph)
            truth = read_truth(examples[image], size).classes
            assert truth is not None
            scenes.append(_Scene(examples[image].image, np.array(rows), truth, canvas))
        shown, measured = scenes[::EVERY], [one for i, one in enumerate(scenes) if i % EVERY]
        archives = [_archive(shown, c, cached.grid_hw) for c in range(count)]
        found = {
            who: _measure(measured, vectors, mean, count)
            for who, (vectors, mean) in _contenders(archives).items()
        }
    found[OURS]["mIoU_over_means"] = found[OURS]["mIoU"] - found[MEANS]["mIoU"]
    inside = f"no clock; {len(measured)} images, {BOXES} boxes a class of {len(shown)} others, no thresholds"
    for who, quality in found.items():
        yield Outcome(CASE, who, inside, quality=quality, bundle=options.bundle)


def _archive(scenes: Sequence[_Scene], number: int, grid_hw: tuple[int, int]) -> Archive:
    """The images that show most of a class in one piece; what is inside the piece's box is the thing."""
    boxes = [(_largest_box(one.classes == number), one) for one in scenes]
    shown = sorted((pair for pair in boxes if pair[0][1] > 0), key=lambda pair: -pair[0][1])[:BOXES]
    if len(shown) < 2:
        raise BenchError(f"boxes needs two images of class {number} at least")
    return Archive(
        f"class {number}",
        shown[0][1].path.parent,
        tuple(one.path.name for _, one in shown),
        np.stack([one.rows for _, one in shown]),
        np.stack([inside_box(box, one.canvas) for (box, _), one in shown]),
        grid_hw,
        boxed=len(shown),
    )


def _largest_box(mask: Mask) -> tuple[Box, int]:
    """x0, y0, x1, y1 of the largest piece of a mask [H, W], and its pixels."""
    pieces, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if pieces < 2:
        return (0, 0, 0, 0), 0
    x, y, width, height, pixels = (int(value) for value in max(stats[1:], key=lambda one: one[4]))
    return (x, y, x + width, y + height), pixels


def _contenders(archives: Sequence[Archive]) -> dict[str, tuple[Float32, Float32]]:
    """Vectors [C, d] and what features are less, [d], by each way; a column for each class."""
    made = learn_concepts(Archives(list(archives)), ConceptsPlan()).prototypes
    published = learn_concepts(Archives(list(archives)), ConceptsPlan(recipe="published")).prototypes
    rows = [unit(one.rows.astype(np.float32) - made.mean) for one in archives]
    means = [each[one.sides > 0.5].mean(axis=0) for each, one in zip(rows, archives, strict=True)]
    return {
        OURS: (made.vectors, made.mean),
        PUBLISHED: (published.vectors, published.mean),
        MEANS: (unit(np.stack(means)), made.mean),
    }


def _measure(scenes: Sequence[_Scene], vectors: Float32, mean: Float32, count: int) -> dict[str, float]:
    masks, table = Masks(0.5, Rules(), "none"), np.zeros((count, count), np.int64)
    for one in scenes:
        rows = unit(one.rows.astype(np.float32) - mean)
        shares = kernels.assign(rows, vectors, temperature=TEMPERATURE).assignment
        assert shares is not None
        told = masks(as_frame(read_photo(one.path)), shares, one.canvas).label_map
        known = one.classes < count
        table += np.bincount(
            one.classes[known].astype(np.int64) * count + told[known], minlength=count**2
        ).reshape(table.shape)
    right = np.diag(table)
    ious = right / np.maximum(table.sum(axis=0) + table.sum(axis=1) - right, 1)
    return {"mIoU": float(ious.mean()), "pixel accuracy": float(right.sum() / table.sum())}
