"""Columns trained once over a collection, beside k-means fitted to the very images that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import patchcut
import patchcut_kernels as kernels
from patchcut.heads import FittedHead
from patchcut.sources.photos import read_photo
from patchcut.stages import Canvas

from bench import subjects
from bench.cases import BenchError, Options, Target
from bench.rows import Outcome

TITLE = "columns and classes of the foreground's pixels in voc2007-dev: NMI, trained beside k-means"
CASES = ("voc2007-dev columns",)
REPEATS = 1
TARGETS = (
    Target(
        CASES[0],
        "nmi_over_kmeans",
        ">=",
        1.0,
        "",
        "NMI of trained columns and classes over that of k-means of the same patches",
    ),
)
_FOLDER, _SIZE = "voc2007-dev", 224
_SEEDS = 5

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Image:
    """One image of the set.

    Attributes:
        canvas: where its patches lie.
        features: [n, d].
        assignment: [n, k], to the trained columns.
        wanted: [n], the patches that k-means clusters.
        classes: [H, W], 0 is background.
        foreground: [H, W], pixels of a known class.
    """

    canvas: Canvas
    features: Array
    assignment: Array
    wanted: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    foreground: npt.NDArray[np.bool_]


def run(options: Options) -> Iterator[Outcome]:
    """The bundle's parts, or its head of more than two columns, and k-means with as many clusters.

    k-means has what training had not: the images that are measured. Of parts both see the patches that the
    bundle's head calls foreground; every pixel of a class counts, whether it was found or not.
    """
    images = _read(options)
    ours = _agreement(images, [image.assignment for image in images])
    count = images[0].assignment.shape[1]
    theirs = [_agreement(images, _clusters(images, count, seed)) for seed in range(_SEEDS)]
    kmeans = {name: float(np.mean([one[name] for one in theirs])) for name in ours}
    inside = f"no clock; {len(images)} images, {count} columns"
    metrics = {"nmi_over_kmeans": ours["NMI"] / kmeans["NMI"]}
    yield Outcome(CASES[0], "patchcut", inside, quality=ours, metrics=metrics, bundle=options.bundle)
    yield Outcome(
        CASES[0],
        "k-means",
        f"{inside}, by cosine, mean of {_SEEDS} seeds",
        quality=kmeans,
        bundle=options.bundle,
    )


def _read(options: Options) -> list[_Image]:
    folder = options.dataset("parts", _FOLDER, "masks")
    from patchcut_export.measuring.datasets import open_dataset
    from patchcut_export.measuring.truth import read_truth

    segmenter = patchcut.load(settings=replace(options.settings, size=_SIZE, mode="parts"))
    assert segmenter.parts is not None
    head, columns, extractor = segmenter.head, segmenter.parts.head, segmenter.extractor
    if isinstance(columns, FittedHead):
        columns = head
    if len(columns.labels) <= 2:
        raise BenchError("parts needs --bundle with parts or columns: `patchcut export train --parts -k 16`")
    images = []
    for example in open_dataset("classes", folder).examples:
        photo = read_photo(example.image, upright=example.upright)
        features = subjects.features(extractor, photo)
        rows = subjects.first(features.of(columns.needs))
        wanted = np.ones(len(rows), bool)
        if columns is not head:
            wanted = subjects.of_patches(head(features), features).argmax(axis=1) > 0
        frame_hw = (photo.shape[0], photo.shape[1])
        truth = read_truth(example, frame_hw)
        assert truth.classes is not None
        assignment = subjects.first(columns(features))
        canvas = Canvas.of(frame_hw, extractor.backbone, extractor.graph)
        images.append(_Image(canvas, rows, assignment, wanted, truth.classes, truth.foreground))
    return images


def _clusters(images: list[_Image], count: int, seed: int) -> list[Array]:
    """k-means' assignment [n, k] of each image, of clusters of the wanted patches of all of them."""
    wanted = np.concatenate([image.features[image.wanted] for image in images])
    found = kernels.kmeans(wanted, count, metric="cosine", restarts=4, seed=seed)
    labels = [kernels.assign(image.features, found.centroids).labels for image in images]
    return [np.eye(count, dtype=np.float32)[one] for one in labels]


def _agreement(images: list[_Image], assignments: list[Array]) -> dict[str, float]:
    """NMI and ARI of columns and classes, over the pixels of a class of all images."""
    from patchcut_export.measuring.metrics import (
        add_contingencies,
        adjusted_rand_index,
        contingency,
        normalized_mutual_information,
    )

    tables = []
    for image, assignment in zip(images, assignments, strict=True):
        labels, _ = image.canvas.upsample(assignment)
        tables.append(contingency(labels[image.foreground], image.classes[image.foreground]))
    table = add_contingencies(tables)
    return {"NMI": normalized_mutual_information(table), "ARI": adjusted_rand_index(table)}
