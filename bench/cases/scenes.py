"""Clusters of all patches of road scenes, as `--dataset-only` makes them, beside scikit-learn's k-means."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import BackboneSpec, GraphSpec, open_bundle
from patchcut.frames import as_frame
from patchcut.heads.naming import unit
from patchcut.sources.photos import read_photo
from patchcut.stages import Canvas, Extractor, Masks, Rules
from patchcut_export.clustering.collection import kmeans_collection
from patchcut_export.clustering.points import Points
from patchcut_export.levels.plan import feature_sets
from patchcut_export.measuring.datasets import Dataset, open_dataset
from patchcut_export.measuring.semantic import LabelCounts, count_labels, measure_labels
from patchcut_export.measuring.truth import read_truth
from patchcut_export.training.feature_cache import CachedFeatures, cache_features

from bench.cases import BenchError, Options, Target
from bench.rows import Outcome

TITLE = "k-means of all patches of road scenes at 224: patchcut's and scikit-learn's of the same features"
SIZE, COUNTS, SEEDS = 224, (11, 27), tuple(range(10))
CASES = tuple(f"scenes camvid-dev {SIZE}, k {k}" for k in COUNTS)
REPEATS = 1
OURS, THEIRS = "patchcut", "scikit-learn KMeans"
# From one seed to the next k-means ends elsewhere, and its mIoU differs by 0.004 to 0.016: worse is what
# Wilcoxon's signed-rank test of the seeds' differences says is worse, at this level.
_CHANCE = 0.05
_COMPARED = {"mIoU": "miou", "pixel accuracy": "accuracy", "mean distance": "distance"}
TARGETS = tuple(
    Target(case, f"{metric}_worse_p", ">=", _CHANCE, "", f"{case}: chance that {title} is no worse")
    for case in CASES
    for metric, title in (("miou", "matched mIoU"), ("accuracy", "pixel accuracy"))
)
_TEMPERATURE = 0.2

Float32 = npt.NDArray[np.float32]
Clusters = Callable[[int, int], Float32]


@dataclass(frozen=True, eq=False)
class _Labelled:
    labels: tuple[str, ...]
    label_map: npt.NDArray[np.int32]


def run(options: Options) -> Iterator[Outcome]:
    """Both cluster the features that the bundle's backbone has for names; classes are matched one to one."""
    root = options.dataset("scenes", "camvid-dev", "masks")
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise BenchError("scenes needs scikit-learn: pip install -e '.[dev]'") from error
    dataset = open_dataset("semantic", root)
    settings = replace(options.settings, size=SIZE)
    with tempfile.TemporaryDirectory() as work, open_bundle(settings.bundle) as bundle:
        (name,) = feature_sets(bundle, None, dataset_only=True)
        extractor = Extractor.open(bundle, settings, needs=(name,))
        cached = cache_features(root / "images", bundle, extractor, Path(work), lambda done, total: None)
        scenes = _Scenes(dataset, cached, extractor.backbone, extractor.graph)
        rows = unit(scenes.centred).reshape(-1, scenes.centred.shape[-1])
        precision = extractor.engine.facts.precision

        def ours(k: int, seed: int) -> Float32:
            points = Points(cached.features, centre=scenes.mean)
            return kmeans_collection(points, k, metric="cosine", seed=seed).centroids

        def theirs(k: int, seed: int) -> Float32:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found: Any = KMeans(k, n_init=4, random_state=seed).fit(rows)
            return unit(found.cluster_centers_.astype(np.float32))

        for case, k in zip(CASES, COUNTS, strict=True):
            found = {who: scenes.measure(make, k) for who, make in ((OURS, ours), (THEIRS, theirs))}
            compared = _compared(found[OURS], found[THEIRS])
            for who, metrics in found.items():
                yield Outcome(
                    case,
                    who,
                    f"no clock; mean and deviation of {len(SEEDS)} seeds, {len(dataset.examples)} images",
                    shapes={"points": rows.shape, "centroids": (k, rows.shape[1])},
                    dtype=precision,
                    quality=_summary(metrics) | (compared if who == OURS else {}),
                    bundle=options.bundle,
                )


def _summary(metrics: dict[str, list[float]]) -> dict[str, float]:
    """The mean of each number over seeds, and its deviation."""
    means = {name: float(np.mean(values)) for name, values in metrics.items()}
    return means | {f"{name} deviation": float(np.std(values, ddof=1)) for name, values in metrics.items()}


def _compared(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, float]:
    """Mean differences over seeds; and the p of Wilcoxon's one-sided test that ours is no worse."""
    from scipy.stats import wilcoxon

    found = {}
    for name, short in _COMPARED.items():
        more = np.subtract(ours[name], theirs[name])
        found[f"{short}_over_kmeans"] = float(more.mean())
        worse = "greater" if name == "mean distance" else "less"
        found[f"{short}_worse_p"] = float(wilcoxon(more, alternative=worse).pvalue)
    return found


class _Scenes:
    """Images, their features, and which class each pixel is of."""

    def __init__(
        self, dataset: Dataset, cached: CachedFeatures, backbone: BackboneSpec, graph: GraphSpec
    ) -> None:
        if dataset.classes is None:
            raise BenchError("scenes needs masks of classes")
        self._examples = {example.image.name: example for example in dataset.examples}
        self._classes = dataset.classes
        self._images = cached.images
        self._backbone, self._graph = backbone, graph
        self._masks = Masks(0.5, Rules(), "none")
        features = cached.features.astype(np.float32)
        self.mean: Float32 = features.mean(axis=(0, 1))
        self.centred: Float32 = features - self.mean

    def measure(self, clusters: Clusters, k: int) -> dict[str, list[float]]:
        """The numbers of k clusters, for each seed."""
        found = [self._measure(clusters(k, seed)) for seed in SEEDS]
        return {name: [one[name] for one in found] for name in found[0]}

    def _measure(self, centres: Float32) -> dict[str, float]:
        labels = tuple(f"cluster {i + 1}" for i in range(len(centres)))
        counts, cosines = [], 0.0
        for name, rows in zip(self._images, self.centred, strict=True):
            cosines += float((unit(rows) @ centres.T).max(axis=1).sum())
            counts.append(self._count(name, rows, centres, labels))
        metrics = measure_labels(counts, labels, self._classes, "hungarian").metrics
        return {
            "mIoU": metrics["mIoU"],
            "pixel accuracy": metrics["pixel accuracy (set)"],
            "mean distance": 1 - cosines / self.centred[..., 0].size,
        }

    def _count(self, name: str, rows: Float32, centres: Float32, labels: tuple[str, ...]) -> LabelCounts:
        example = self._examples[name]
        frame = as_frame(read_photo(example.image))
        shares = kernels.assign(rows, centres, temperature=_TEMPERATURE).assignment
        assert shares is not None
        canvas = Canvas.of(frame.image.shape[:2], self._backbone, self._graph)
        found = _Labelled(labels, self._masks(frame, shares, canvas).label_map)
        truth = read_truth(example, found.label_map.shape)
        return count_labels(found, truth, len(self._classes.names), name)
