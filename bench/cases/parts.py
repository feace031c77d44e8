"""Columns trained once over a collection, beside k-means fitted to the very images that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import Bundle, open_bundle
from patchcut.engines import EngineOptions, open_engine
from patchcut.heads.gnn import open_head
from patchcut.sources.photos import read_photo

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
        features: [n, d].
        assignment: [n, k], to the trained columns.
        wanted: [n], the patches that k-means clusters.
        classes: [H, W], 0 is background.
        foreground: [H, W], pixels of a known class.
    """

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
    if options.data is None or not (options.data / _FOLDER / "masks").is_dir():
        raise BenchError(f"parts needs --data (or PATCHCUT_DATA): a folder that holds {_FOLDER} with masks")
    with open_bundle(options.bundle) as bundle:
        images, grid_hw = _read(options, bundle), bundle.spec.backbone.grid_hw((_SIZE, _SIZE))
    ours = _agreement(images, [image.assignment for image in images], grid_hw)
    count = images[0].assignment.shape[1]
    theirs = [_agreement(images, _clusters(images, count, seed), grid_hw) for seed in range(_SEEDS)]
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


def _read(options: Options, bundle: Bundle) -> list[_Image]:
    from patchcut_export.measuring.datasets import open_dataset
    from patchcut_export.measuring.truth import read_truth
    from patchcut_export.training.feature_cache import features_of

    objects, parts = bundle.spec.head(), bundle.spec.head("parts")
    spec = parts or objects
    if spec is None or len(spec.labels) <= 2:
        raise BenchError("parts needs --bundle with parts or columns: `patchcut export train --parts -k 16`")
    columns = open_head(bundle, spec)
    head = None if parts is None or objects is None else open_head(bundle, objects)
    engine = open_engine(bundle, EngineOptions("cpu", size=_SIZE, threads=options.threads))
    assert options.data is not None
    images = []
    for example in open_dataset("classes", options.data / _FOLDER).examples:
        photo = read_photo(example.image, upright=example.upright)
        features = np.array(features_of(photo, "bgr", bundle.spec.backbone, engine))
        wanted = np.ones(len(features), bool)
        if head is not None:
            wanted = head(features, engine.graph.grid_hw).argmax(axis=1) > 0
        truth = read_truth(example, photo.shape[:2])
        assert truth.classes is not None
        assignment = columns(features, engine.graph.grid_hw)
        images.append(_Image(features, assignment, wanted, truth.classes, truth.foreground))
    return images


def _clusters(images: list[_Image], count: int, seed: int) -> list[Array]:
    """k-means' assignment [n, k] of each image, of clusters of the wanted patches of all of them."""
    wanted = np.concatenate([image.features[image.wanted] for image in images])
    found = kernels.kmeans(wanted, count, metric="cosine", restarts=4, seed=seed)
    labels = [kernels.assign(image.features, found.centroids).labels for image in images]
    return [np.eye(count, dtype=np.float32)[one] for one in labels]


def _agreement(images: list[_Image], assignments: list[Array], grid_hw: tuple[int, int]) -> dict[str, float]:
    """NMI and ARI of columns and classes, over the pixels of a class of all images."""
    from patchcut_export.measuring.metrics import (
        add_contingencies,
        adjusted_rand_index,
        contingency,
        normalized_mutual_information,
    )

    tables = []
    for image, assignment in zip(images, assignments, strict=True):
        size_hw = (image.classes.shape[0], image.classes.shape[1])
        labels = kernels.upsample_argmax(assignment, grid_hw, size_hw)
        tables.append(contingency(labels[image.foreground], image.classes[image.foreground]))
    table = add_contingencies(tables)
    return {"NMI": normalized_mutual_information(table), "ARI": adjusted_rand_index(table)}
