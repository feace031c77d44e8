"""The multilevel clustering framework: three levels beside each alone, kinds beside k-means, and its time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import patchcut
import patchcut_kernels as kernels
from patchcut import Features, Segmenter
from patchcut.bundle import HeadSpec
from patchcut.features import to_host
from patchcut.frames import as_frame
from patchcut.heads import Head, KMeansHead
from patchcut.heads.levels import LEVELS, Centres, LevelsHead, unit
from patchcut.sources.photos import read_photo
from patchcut.stages import Canvas
from patchcut_export.measuring.datasets import Example, open_dataset
from patchcut_export.measuring.metrics import mask_iou
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
THREE, PER_IMAGE, PER_PATCH, SEEDED = "three levels", "k-means of each image", "k-means of all patches", 0
TARGETS = (
    Target(QUALITY, "gained_over_levels", ">=", 0.02, "", "foreground IoU, three levels over the best alone"),
    Target(
        QUALITY, "gained_over_kmeans", ">=", 0.08, "", "foreground IoU, three levels over an image's k-means"
    ),
    Target(QUALITY, "miou_over_kmeans", ">=", 0.06, "", "mIoU of 21 matched classes over k-means of patches"),
    Target(QUALITY, "accuracy_over_kmeans", ">=", 0.0, "", "pixel accuracy of the same"),
    Target("levels 256", "ms", "<=", 3, " ms", "the head levels on 256 patches"),
    Target("levels 1024", "ms", "<=", 10, " ms", "the head levels on 1,024 patches"),
)
LabelMap = npt.NDArray[np.int32]


def run(options: Options) -> Iterator[Outcome]:
    """Quality needs `--bundle` with a head `levels`, and voc2007-dev; times are of made features."""
    yield from _times(options)
    yield from _quality(options)


def _quality(options: Options) -> Iterator[Outcome]:
    root = options.dataset("levels", "voc2007-dev", "masks")
    segmenter = _open(options)
    head = segmenter.head
    assert isinstance(head, LevelsHead)
    examples = [one for one in open_dataset("classes", root).examples if one.mask is not None]
    heads: dict[str, Head] = {THREE: head, **_alone(head), PER_IMAGE: KMeansHead(k=2)}
    found = {name: _measure(segmenter, one, examples) for name, one in heads.items()}
    found[PER_PATCH] = _clusters_of_patches(segmenter, head, examples)
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
            f"{len(examples)} images with masks, unrefined",
            None,
            {},
            segmenter.describe().precision,
            metrics=metrics,
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


def _other(head: LevelsHead, **changes: object) -> LevelsHead:
    return LevelsHead(head.spec, replace(head.centres, **changes))


def _measure(segmenter: Segmenter, head: Head, examples: list[Example]) -> dict[str, float]:
    """The numbers of one head over all images."""
    segmenter.head = head
    maps = {}
    for example in examples:
        maps[example.name] = segmenter(read_photo(example.image)).label_map
    return _numbers(examples, maps)


def _clusters_of_patches(segmenter: Segmenter, head: LevelsHead, examples: list[Example]) -> dict[str, float]:
    """k-means of all images' patches, by the features for names, with as many clusters as classes."""
    extractor, name = segmenter.extractor, head.sets[2]
    rows, sizes = [], []
    for example in examples:
        image = read_photo(example.image)
        rows.append(np.array(to_host(extractor([as_frame(image)])[name])[0]))
        sizes.append(image.shape[:2])
    unit_rows = unit(np.concatenate(rows))
    centred = np.ascontiguousarray(unit_rows - unit_rows.mean(axis=0))
    labels = kernels.kmeans(centred, CLASSES, metric="cosine", restarts=4, seed=SEEDED).labels
    maps = {}
    for i, example in enumerate(examples):
        canvas = Canvas.of(sizes[i], extractor.backbone, extractor.graph)
        n = len(rows[i])
        maps[example.name] = canvas.upsample_labels(labels[i * n : (i + 1) * n], CLASSES)
    return _numbers(examples, maps)


def _numbers(examples: list[Example], maps: Mapping[str, LabelMap]) -> dict[str, float]:
    """Mean foreground IoU, and mIoU and pixel accuracy after clusters were matched with classes."""
    from scipy.optimize import linear_sum_assignment

    ious, most = [], max(int(one.max()) for one in maps.values()) + 1
    table = np.zeros((max(most, CLASSES), CLASSES), np.int64)
    for example in examples:
        found = maps[example.name]
        truth = read_truth(example, found.shape)
        assert truth.classes is not None and truth.known is not None
        known = truth.known
        ious.append(mask_iou(found[known] > 0, truth.foreground[known]))
        pairs = found[known].astype(np.int64) * CLASSES + truth.classes[known]
        table += np.bincount(pairs, minlength=table.size).reshape(table.shape)
    iou = table / np.maximum(table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table, 1)
    clusters, classes = linear_sum_assignment(-iou)
    return {
        "foreground IoU": float(np.mean(ious)),
        "mIoU": float(iou[clusters, classes].sum() / CLASSES),
        "pixel accuracy": float(table[clusters, classes].sum() / table.sum()),
    }


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
            metrics={"ms": times.median_ms},
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
