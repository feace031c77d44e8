"""`patchcut export features`: runs backbones over a folder, and says which of their features come apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import Bundle, FeatureSetSpec, open_bundle
from patchcut.checks import check_whole
from patchcut.errors import OptionError
from patchcut.output.whole_files import check_writable, write_whole
from patchcut.settings import Settings
from patchcut.stages import Extractor

from patchcut_export.errors import ExportError
from patchcut_export.measuring.datasets import Example
from patchcut_export.measuring.metrics import contingency, normalized_mutual_information, roc_auc
from patchcut_export.measuring.separability.patches import PatchTruth, pair_masks, read_patch_truth
from patchcut_export.measuring.separability.plot import write_plots
from patchcut_export.measuring.separability.report import SeparabilityReport, SeparabilityRow
from patchcut_export.measuring.separability.scores import (
    Float32,
    Float64,
    Labels,
    Probe,
    Spread,
    fit_probe,
    nearest,
    silhouette,
)
from patchcut_export.progress import StepBar
from patchcut_export.training.feature_cache import CachedFeatures, cache_features

MAX_CLUSTERS = 256
_CLUSTERED = 20_000  # patches that k-means sees, and those that the probe is fitted to
_COMPARED = 2_000  # patches whose distances the silhouette is of
_BATCH = 32  # images whose features are in memory at once
_RESTARTS, _ITERATIONS = 3, 50
_REGION = 4  # patches that a region has at least


@dataclass(frozen=True, kw_only=True)
class SeparabilityRequest:
    """What `patchcut export features` was asked for.

    Attributes:
        images: folder of images.
        masks: folder of their masks, or None.
        classes: whether masks have a class a pixel; None: where they have a palette.
        bundles: names or files.
        sets: names of feature sets; none: every set of patches that a bundle has.
        k: clusters.
        seed: of what is drawn, and of k-means.
        settings: how the backbones run.
        work, out: folders for features, and for the report and its picture.
    """

    images: Path
    settings: Settings
    masks: Path | None = None
    classes: bool | None = None
    bundles: tuple[str, ...] = ("default",)
    sets: tuple[str, ...] = ()
    k: int = 8
    seed: int = 0
    work: Path
    out: Path


def compare_features(request: SeparabilityRequest, bar: StepBar) -> SeparabilityReport:
    """The numbers of every set of every bundle; writes features.json, features.png and features.svg.

    Raises:
        OptionError: an option has a value that is not allowed, or a set is of no bundle.
        ExportError: a bundle has no set of patches, there are too few images, or features are not finite.
        PatchcutError: bundles, images or masks cannot be read, or a file cannot be written.
    """
    check_whole("k", request.k, 2, MAX_CLUSTERS)
    examples = None
    if request.masks is not None:
        examples = pair_masks(request.images, request.masks, classes=request.classes)
    elif request.classes is not None:
        raise OptionError("classes", "must come with --masks", "name the folder of masks")
    wanted = [_sets_of(bundle, request.sets) for bundle in request.bundles]
    for name in request.sets:
        if not any(name in sets for sets in wanted):
            what = f"{', '.join(request.bundles)} has no set {name!r}"
            raise OptionError("sets", what, "see `patchcut info --bundle FILE`")
    check_writable(request.out)
    rows: list[SeparabilityRow] = []
    images = 0
    for bundle, sets in zip(request.bundles, wanted, strict=True):
        if sets:
            its_rows, images = _compare_bundle(request, bundle, sets, examples, bar)
            rows += its_rows
    report = SeparabilityReport(
        images=images,
        data="/".join(request.images.resolve().parts[-2:]),
        masks=request.masks is not None,
        classes=examples is not None and examples[0].mask_kind == "index",
        k=request.k,
        seed=request.seed,
        rows=tuple(rows),
    )
    write_whole(request.out / "features.json", f"{report.to_json()}\n".encode())
    write_plots(request.out / "features", report)
    return report


def _sets_of(path: str, names: Sequence[str]) -> list[str]:
    """The sets of patches of a bundle's first backbone: those of `names`, all where none is named."""
    with open_bundle(path) as bundle:
        features = bundle.spec.backbone.features
    there = [name for name, one in features.items() if one.of_patches]
    if not there:
        problem = f"{path} has no features of patches, only {', '.join(features)}"
        raise ExportError(
            "features", problem, "export its backbone with key, query, value, token or attention"
        )
    for name in names:
        if name in features and name not in there:
            why = "has one row an image" if features[name].of_image else "is an assignment, and no features"
            what = f"{name} of {path} {why}"
            raise OptionError("sets", what, f"choose among {', '.join(there)}")
    return [name for name in dict.fromkeys(names) if name in there] if names else there


def _compare_bundle(
    request: SeparabilityRequest,
    path: str,
    sets: Sequence[str],
    examples: list[Example] | None,
    bar: StepBar,
) -> tuple[list[SeparabilityRow], int]:
    """A row for each set of a bundle, and how many images they are of."""
    with open_bundle(path) as bundle:
        settings = replace(request.settings, bundle=path)
        extractor = Extractor.open(bundle, settings, needs=tuple(sets))
        name, graph, backbone = bundle.spec.name, extractor.graph, extractor.backbone
        cached = cache_features(
            request.images,
            bundle,
            extractor,
            request.work / _folder(bundle, extractor, sets, examples),
            partial(bar.step, f"features of {name}"),
            sets,
            None if examples is None else [example.image.name for example in examples],
        )
    for problem in cached.problems:
        bar.say(f"skipped {problem}")
    if len(cached.images) < 2:
        problem = f"{request.images} has {len(cached.images)} image that can be used, at least 2 are needed"
        raise ExportError("features", problem, "name a larger folder")
    truth = None
    if examples is not None:
        by_name = {example.image.name: example for example in examples}
        there = [by_name[name] for name in cached.images]
        truth = read_patch_truth(there, backbone, graph, partial(bar.step, f"masks on the grid of {name}"))
    rows = []
    bar.step(f"sets of {name}", 0, len(sets))
    for done, one in enumerate(sets, 1):
        spec = backbone.features[one]
        found = _Separation(cached, one, spec, truth, request).measure()
        about = backbone.features_text(one).removesuffix(" a patch")
        row = SeparabilityRow(
            bundle=name,
            set=one,
            about=about,
            dim=spec.dim,
            size=graph.size_hw[0],
            precision=graph.precision,
            **found,
        )
        rows.append(row)
        bar.step(f"sets of {name}", done, len(sets))
    return rows, len(cached.images)


def _folder(bundle: Bundle, extractor: Extractor, sets: Sequence[str], examples: list[Example] | None) -> str:
    """The name of the folder of a bundle's features; other sets or other chosen images have another one."""
    graph = extractor.graph
    chosen = None if examples is None else [example.image.name for example in examples]
    key = repr((bundle.spec.files[graph.file].sha256, list(sets), chosen))
    stem = quote(bundle.spec.name[:40], safe="")
    return f"{stem}-{graph.size_hw[0]}-{graph.precision}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


class _Separation:
    """The numbers of one feature set."""

    def __init__(
        self,
        cached: CachedFeatures,
        name: str,
        spec: FeatureSetSpec,
        truth: PatchTruth | None,
        request: SeparabilityRequest,
    ) -> None:
        self.cached = cached
        self.name = name
        self.truth = truth
        self.request = request
        self.unit = any(one.facet != "attention" for one in spec.components)
        shape = cached.sets[name].shape[:2]
        self.known = np.ones(shape, bool) if truth is None else truth.known

    def measure(self) -> dict[str, float | None]:
        """The fields of a `SeparabilityRow` that are numbers.

        Raises:
            OptionError: k is above the number of patches.
            ExportError: features are not finite.
        """
        k, rng = self.request.k, np.random.default_rng(self.request.seed)
        chosen = self._draw(rng, self.known, _CLUSTERED)
        if k > len(chosen):
            raise OptionError("k", f"must be at most the {len(chosen)} patches there are, got {k}")
        centroids = self._cluster(self._gather(chosen), k)
        probes = self._fit_probes(rng)
        spread = Spread(k, centroids.shape[1])
        labels = np.zeros(self.known.shape, np.int32)
        likely = np.zeros(self.known.shape)
        for rows, points in self._batches():
            flat = points.reshape(-1, points.shape[-1])
            labels[rows] = nearest(flat, centroids).reshape(points.shape[:2])
            spread.add(points[self.known[rows]], labels[rows][self.known[rows]])
            for probe, measured in probes:
                mine = np.flatnonzero(measured[rows])
                if mine.size:
                    likely[rows.start + mine] = probe(points[mine])
        compared = self._draw(rng, self.known, _COMPARED)
        found: dict[str, float | None] = {
            "silhouette": silhouette(self._gather(compared), labels.ravel()[compared]),
            "variance_ratio": spread.ratio(),
        }
        if self.truth is not None:
            found |= self._against_masks(self.truth, labels)
            found["probe_auc"] = self._probe_auc(self.truth, likely, [measured for _, measured in probes])
            found |= self._meaning(self.truth, rng)
        return {name: None if value is None else round(value, 6) for name, value in found.items()}

    def _against_masks(self, truth: PatchTruth, labels: Labels) -> dict[str, float | None]:
        """How well clusters, and the best of them alone, rank patches by whether they are foreground."""
        mine, foreground = labels[self.known], truth.foreground[self.known]
        table = np.zeros((self.request.k, 2))
        found = contingency(mine, foreground.astype(np.int64))
        table[: len(found), : found.shape[1]] = found
        share = table[:, 1] / np.maximum(table.sum(1), 1)
        hits, alarms = table[:, 1] / table[:, 1].sum(), table[:, 0] / table[:, 0].sum()
        return {
            "clusters_auc": roc_auc(share[mine], foreground),
            "best_cluster_auc": float((1 + hits - alarms).max() / 2),
        }

    def _fit_probes(self, rng: np.random.Generator) -> list[tuple[Probe, npt.NDArray[np.bool_]]]:
        """A probe fitted to each half of the images, and which images it is measured on: the other half."""
        if self.truth is None:
            return []
        images = len(self.known)
        first = np.zeros(images, bool)
        first[rng.permutation(images)[: images // 2]] = True
        probes = []
        for fitted in (first, ~first):
            rows = self._draw(rng, self.known & fitted[:, None], _CLUSTERED)
            truth = self.truth.foreground.ravel()[rows]
            if truth.any() and not truth.all():
                probes.append((fit_probe(self._gather(rows), truth), ~fitted))
        return probes

    def _probe_auc(
        self, truth: PatchTruth, likely: Float64, halves: Sequence[npt.NDArray[np.bool_]]
    ) -> float | None:
        """Mean over the halves that can be measured; None where neither can."""
        found = []
        for half in halves:
            rows = self.known & half[:, None]
            mine = truth.foreground[rows]
            if mine.any() and not mine.all():
                found.append(roc_auc(likely[rows], mine))
        return float(np.mean(found)) if found else None

    def _meaning(self, truth: PatchTruth, rng: np.random.Generator) -> dict[str, float | None]:
        """NMI of the classes of foreground with as many clusters, of its patches and of its regions."""
        if truth.classes is None:
            return {}
        things = np.where(self.known & truth.foreground, truth.classes, 0)
        rows = self._draw(rng, things > 0, _CLUSTERED)
        patches = self._agreement(self._gather(rows), things.ravel()[rows])
        return {"nmi": patches, "region_nmi": self._agreement(*self._regions(things))}

    def _regions(self, things: npt.NDArray[np.uint8]) -> tuple[Float32, npt.NDArray[np.uint8]]:
        """[r, d] the mean point of each class's patches in each image, and its class [r].

        Args:
            things: [N, n] classes, 0 where there is none. A class with few patches in an image is left out.
        """
        means, classes = [np.zeros((0, self.cached.sets[self.name].shape[2]), np.float32)], []
        for rows, points in self._batches():
            for here, mine in zip(points, things[rows], strict=True):
                for one in np.flatnonzero(np.bincount(mine) >= _REGION):
                    if one > 0:
                        means.append(self._scaled(here[mine == one].mean(0, keepdims=True)))
                        classes.append(one)
        return np.concatenate(means), np.array(classes, np.uint8)

    def _agreement(self, points: Float32, classes: npt.NDArray[np.uint8]) -> float | None:
        """NMI of classes with as many clusters of k-means; None without two, or two points each."""
        names, numbers = np.unique(classes, return_inverse=True)
        if len(names) < 2 or len(points) < 2 * len(names):
            return None
        labels = nearest(points, self._cluster(points, len(names)))
        return normalized_mutual_information(contingency(labels, numbers))

    def _cluster(self, points: Float32, k: int) -> Float32:
        """[k, d] centroids of k-means."""
        found = kernels.kmeans(points, k, iterations=_ITERATIONS, restarts=_RESTARTS, seed=self.request.seed)
        return np.asarray(found.centroids, np.float32)

    def _draw(
        self, rng: np.random.Generator, allowed: npt.NDArray[np.bool_], count: int
    ) -> npt.NDArray[np.int64]:
        """[m] indices of patches of all images in order, at most `count` of those that are allowed."""
        there = np.flatnonzero(allowed)
        if len(there) > count:
            there = np.sort(rng.permutation(there)[:count])
        return np.asarray(there, np.int64)

    def _gather(self, patches: npt.NDArray[np.int64]) -> Float32:
        """[m, d] float32, points of patches by their indices, which are in order."""
        per_image = self.known.shape[1]
        images = patches // per_image
        parts = []
        for rows, points in self._batches(np.unique(images)):
            mine = (images >= rows.start) & (images < rows.stop)
            parts.append(points.reshape(-1, points.shape[-1])[patches[mine] - rows.start * per_image])
        dim = self.cached.sets[self.name].shape[2]
        return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)

    def _batches(self, images: npt.NDArray[np.int64] | None = None) -> Iterator[tuple[slice, Float32]]:
        """A few images after another, those with some of `images`, and their points [m, n, d] float32."""
        for begin in range(0, len(self.known), _BATCH):
            rows = slice(begin, min(begin + _BATCH, len(self.known)))
            if images is not None and not np.any((images >= rows.start) & (images < rows.stop)):
                continue
            yield rows, self._points(self.cached.take(rows, self.name).astype(np.float32))

    def _points(self, features: Float32) -> Float32:
        """As they are compared: unit rows, as heads compare features by cosine; attention is 1 on average."""
        if not np.isfinite(features).all():
            remedy = "export the backbone in another precision"
            raise ExportError("features", f"{self.name} holds numbers that are not finite", remedy)
        return self._scaled(features) if self.unit else features * np.float32(features.shape[1])

    def _scaled(self, points: Float32) -> Float32:
        """Rows of unit length, but for attention."""
        if not self.unit:
            return points
        lengths = np.linalg.norm(points, axis=-1, keepdims=True)
        return np.asarray(points / np.maximum(lengths, 1e-12), np.float32)
