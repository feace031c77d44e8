"""The multilevel clustering framework: three levels beside each alone, kinds beside k-means, and its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut
import patchcut_kernels as kernels
from patchcut import Features, Segmenter
from patchcut.bundle import HeadSpec
from patchcut.features import to_host
from patchcut.frames import as_frame
from patchcut.heads import Head, KMeansHead
from patchcut.heads.levels import LEVELS, Centres, LevelsHead
from patchcut.heads.prototypes import Prototypes, PrototypesHead
from patchcut.sources.photos import read_photo
from patchcut_export.measuring.datasets import Dataset, open_dataset
from patchcut_export.measuring.metrics import mask_iou
from patchcut_export.measuring.semantic import count_labels, measure_labels
from patchcut_export.measuring.truth import read_truth

from bench.cases import BenchError, Options, Target
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = (
    "the head levels at 224: three levels beside each alone, kinds beside k-means over all patches; its time"
)
SIZE, CLASSES = 224, 21
QUALITY, GRIDS = "levels voc2007-dev 224", (16, 32)
CASES = (QUALITY, *(f"levels {grid * grid}" for grid in GRIDS))
REPEATS = 15
THREE, PER_IMAGE, PER_PATCH = "patchcut", "k-means of each image", "k-means of all patches"
TARGETS = (
    Target(QUALITY, "gained_over_levels", ">=", 0.02, "", "foreground IoU, three levels over the best alone"),
    Target(
        QUALITY, "gained_over_kmeans", ">=", 0.08, "", "foreground IoU, three levels over an image's k-means"
    ),
    Target(QUALITY, "miou_over_kmeans", ">=", 0.06, "", "mIoU of 21 matched classes over k-means of patches"),
    Target(QUALITY, "accuracy_over_kmeans", ">=", 0.0, "", "pixel accuracy of the same"),
    Target("levels 256", "median_ms", "<=", 3, " ms", "the head levels on 256 patches"),
    Target("levels 1024", "median_ms", "<=", 10, " ms", "the head levels on 1,024 patches"),
)


def run(options: Options) -> Iterator[Outcome]:
    """Quality needs `--bundle` with a head `levels`, and voc2007-dev; times are of made features."""
    yield from _times(options)
    yield from _quality(options)


def _quality(options: Options) -> Iterator[Outcome]:
    root = options.dataset("levels", "voc2007-dev", "masks")
    segmenter = _open(options)
    head = segmenter.head
    assert isinstance(head, LevelsHead)
    dataset = open_dataset("semantic", root)
    if dataset.classes is None or len(dataset.classes.names) != CLASSES:
        raise BenchError(f"levels needs masks of {CLASSES} classes in {root}")
    heads: dict[str, Head] = {
        THREE: head,
        **_alone(head),
        PER_IMAGE: KMeansHead(k=2),
        PER_PATCH: _clusters_of_patches(segmenter, head, dataset),
    }
    found = {name: _measure(segmenter, one, dataset) for name, one in heads.items()}
    best_alone = max(found[name]["foreground IoU"] for name in LEVELS)
    ours = found[THREE]
    ours |= {
        "gained_over_levels": ours["foreground IoU"] - best_alone,
        "gained_over_kmeans": ours["foreground IoU"] - found[PER_IMAGE]["foreground IoU"],
        "miou_over_kmeans": ours["mIoU"] - found[PER_PATCH]["mIoU"],
        "accuracy_over_kmeans": ours["pixel accuracy"] - found[PER_PATCH]["pixel accuracy"],
    }
    for name, metrics in found.items():
        yield Outcome(
            QUALITY,
            name,
            f"no clock; {len(dataset.examples)} images with masks",
            dtype=segmenter.describe().precision,
            quality=metrics,
            bundle=options.bundle,
        )


def _open(options: Options) -> Segmenter:
    segmenter = patchcut.load(
        settings=replace(options.settings, size=SIZE, head="levels", refine="none", nothing_below=0.0)
    )
    if not isinstance(segmenter.head, LevelsHead):
        raise BenchError("levels needs --bundle with a head of that kind: `patchcut export levels` makes one")
    return segmenter


def _alone(head: LevelsHead) -> dict[str, Head]:
    """Each level by itself, as it votes; and each, and all three, with and without agreeing neighbours."""
    heads: dict[str, Head] = {"three levels, no neighbours": _other(head, threshold=1.0)}
    for i, level in enumerate(LEVELS):
        voters = np.arange(len(LEVELS)) == i
        heads[level] = _other(head, voters=voters, threshold=1.0)
        heads[f"{level}, neighbours"] = _other(head, voters=voters)
    return heads


def _other(head: LevelsHead, **changes: Any) -> LevelsHead:
    return LevelsHead(head.spec, replace(head.centres, **changes))


def _measure(segmenter: Segmenter, head: Head, dataset: Dataset) -> dict[str, float]:
    """The numbers of one head over all images, each of whose masks has the set's classes."""
    segmenter.head = head
    assert dataset.classes is not None
    ious, counts = [], []
    for example in dataset.examples:
        result = segmenter(read_photo(example.image))
        truth = read_truth(example, result.label_map.shape)
        ious.append(mask_iou(result.foreground[truth.known], truth.foreground[truth.known]))
        counts.append(count_labels(result, truth, CLASSES, example.name))
    found = measure_labels(counts, head.labels, dataset.classes, "hungarian").metrics
    return {
        "foreground IoU": float(np.mean(ious)),
        "mIoU": found["mIoU"],
        "pixel accuracy": found["pixel accuracy (set)"],
    }


def _clusters_of_patches(segmenter: Segmenter, head: LevelsHead, dataset: Dataset) -> PrototypesHead:
    """k-means of all images' patches, by the features for names, with as many clusters as classes."""
    name = head.sets[2]
    images = (as_frame(read_photo(example.image)) for example in dataset.examples)
    rows = np.concatenate([np.array(to_host(segmenter.extractor([image])[name])[0]) for image in images])
    mean = rows.mean(axis=0)
    found = kernels.kmeans(rows - mean, CLASSES, metric="cosine", restarts=4, seed=0)
    changed = {"features": (name,), "labels": tuple(f"cluster {k}" for k in range(CLASSES))}
    return PrototypesHead(head.spec.model_copy(update=changed), Prototypes.of_clusters(found.centroids, mean))


def _times(options: Options) -> Iterator[Outcome]:
    for grid in GRIDS:
        head, features = _made(grid)
        (times,) = interleave(
            [Contender("patchcut", partial(head, features))], options.repeats or REPEATS, warmup=3
        ).values()
        yield Outcome(
            f"levels {grid * grid}",
            "patchcut",
            "features to assignment: 3 levels of 2 clusters, 12 categories, 20 names",
            times,
            {"features": (grid * grid, 384)},
            "fp32",
        )


def _made(grid: int, clusters: int = 2, categories: int = 12, names: int = 20) -> tuple[LevelsHead, Features]:
    """A head of random centres, and features in which an object stands before a background."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    sides, rows = normal(clusters, 384), normal(grid, grid, 384)
    rows += 2 * sides[0]
    middle = slice(grid // 4, 3 * grid // 4)
    rows[middle, middle] += 2 * (sides[1] - sides[0])
    centres = Centres(
        dataset=sides,
        foreground=np.arange(clusters) == 1,
        categories=normal(categories, 384),
        token_mean=np.zeros(384, np.float32),
        category=np.stack([sides] * categories),
        names=normal(names, 384),
        name_mean=np.zeros(384, np.float32),
        voters=np.ones(len(LEVELS), bool),
        temperature=0.2,
        threshold=0.6,
    )
    labels = ("background", *(f"thing {i + 1}" for i in range(names)))
    fields = {"name": "levels", "kind": "levels", "role": "names", "backbone": "made", "labels": labels}
    spec = HeadSpec.model_validate(
        {**fields, "features": ("key", "cls", "semantic"), "files": {"weights": "levels"}}
    )
    sets = {
        "key": rows.reshape(1, -1, 384),
        "cls": normal(1, 1, 384),
        "semantic": normal(1, grid * grid, 384),
    }
    return LevelsHead(spec, centres), Features(sets, (grid, grid))
