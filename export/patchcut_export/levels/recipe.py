"""From a folder of images and a backbone to a bundle whose head `levels` finds and names what they show.

No network is trained: "A Lightweight Clustering Framework for Unsupervised Semantic Segmentation"
(2311.18628). What every stage has found is kept in the folder of work, and taken from there by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.errors import OptionError
from patchcut.heads.levels import LEVELS, Centres, LevelsHead
from patchcut.heads.naming import unit
from patchcut.sources import open_source
from patchcut.stages import Extractor

from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.rewriting import rewrite_bundle, with_head
from patchcut_export.clustering.collection import kmeans_collection, labels_of
from patchcut_export.clustering.points import Points
from patchcut_export.errors import ExportError
from patchcut_export.levels.choosing import cluster_rows
from patchcut_export.levels.concepts import KnownConcepts
from patchcut_export.levels.naming import Naming
from patchcut_export.levels.plan import LevelsPlan, LevelsRequest, attention_sets, feature_sets
from patchcut_export.levels.regions import FoundRegions, RegionFinder
from patchcut_export.levels.sheets import write_cluster_sheet
from patchcut_export.levels.sides import find_cues, overruled
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar
from patchcut_export.training.feature_cache import CachedFeatures, cache_features

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

CATEGORY_COUNTS = (4, 6, 8, 12, 16, 24, 32)
_MEAN_IMAGES = 512  # whose features make the mean that all have in common


def make_levels(request: LevelsRequest, plan: LevelsPlan, bar: StepBar) -> None:
    """Caches features, clusters them level by level, writes the bundle; goes on where a run was stopped.

    Raises:
        PatchcutError: naming what is wrong with the request, before any work is done where that is possible.
    """
    check_output_file(request.bundle)
    _check_concepts(request, plan)
    open_source(request.images).close()
    with open_bundle(request.settings.bundle) as bundle:
        sets = feature_sets(bundle, request.sets, dataset_only=plan.dataset_only)
        known = None
        if request.concepts is not None:
            known = KnownConcepts.read(request.concepts, bundle, sets[-1])
        needs = dict.fromkeys([*sets, *attention_sets(bundle)])
        extractor = Extractor.open(bundle, request.settings, needs=list(needs))
        _Recipe(request, plan, bundle, extractor, sets, bar, known).run()
    bar.say(f"wrote {request.bundle}")


def _check_concepts(request: LevelsRequest, plan: LevelsPlan) -> None:
    """Checks that concepts are the only ones to name kinds.

    Raises:
        OptionError: there are other names, or no kinds.
    """
    if request.concepts is None:
        return
    if plan.dataset_only:
        raise OptionError(
            "concepts", "names kinds of regions, of which --dataset-only has none", "leave one out"
        )
    if request.labels is not None or request.examples is not None:
        other = "labels" if request.labels is not None else "examples"
        raise OptionError("concepts", f"must be the only names, got --{other} too", "leave one out")


class _Recipe:
    """The stages, one after the other."""

    def __init__(
        self,
        request: LevelsRequest,
        plan: LevelsPlan,
        bundle: Bundle,
        extractor: Extractor,
        sets: tuple[str, ...],
        bar: StepBar,
        concepts: KnownConcepts | None = None,
    ) -> None:
        self.request = request
        self.plan = plan
        self.bundle = bundle
        self.extractor = extractor
        self.sets = sets
        self.bar = bar
        self.concepts = concepts

    def run(self) -> None:
        cached = self.cache()
        started = time.monotonic()
        if self.plan.dataset_only:
            self.write(*self.clusters_alone(cached))
        else:
            self.write(*self.three_levels(cached))
        self.bar.say(f"clustered {len(cached.images)} images in {time.monotonic() - started:.0f} s")

    def cache(self) -> CachedFeatures:
        """The features of the images; what had to be skipped is said.

        Raises:
            ExportError: there are fewer than two images.
        """
        request, bar = self.request, self.bar
        cached = self.features_of(request.images, request.work / "features", "features")
        for problem in cached.problems:
            bar.say(f"skipped {problem}")
        if len(cached.images) < 2:
            raise ExportError(
                "images", f"{request.images} has one image that can be read", "name at least two"
            )
        return cached

    def features_of(self, images: Path, folder: Path, title: str) -> CachedFeatures:
        """The features of a folder's images, from the cache in `folder` as far as they are there."""
        return cache_features(
            images,
            self.bundle,
            self.extractor,
            folder,
            partial(self.bar.step, title),
            sets=list(self.extractor.backbone.features),
            extraction=self.request.extraction,
        )

    # ---- the levels

    def three_levels(self, cached: CachedFeatures) -> tuple[HeadSpec, dict[str, Float32]]:
        patches, token, names = self.sets
        dataset, foreground = self.dataset_level(cached, cached.sets[patches])
        tokens = cached.take(slice(None), token)[:, 0].astype(np.float32)
        token_mean = unit(tokens).mean(axis=0)
        rows = unit(unit(tokens) - token_mean)
        categories, groups = cluster_rows(
            rows,
            self.plan.categories,
            CATEGORY_COUNTS,
            seed=self.plan.seed,
            say=self.bar.say,
            what="categories",
            of="images",
        )
        category = self.category_level(cached.sets[patches], groups, len(categories), dataset)
        centres = Centres(
            dataset=dataset,
            foreground=foreground,
            categories=categories,
            token_mean=token_mean,
            category=category,
            names=np.zeros((1, cached.sets[names].shape[2]), np.float32),
            name_mean=self.mean_of(cached, names),
            voters=np.isin(LEVELS, self.plan.levels),
            temperature=self.plan.temperature,
            threshold=self.plan.threshold,
        )
        finder = self.finder(centres, self.request.images)
        found = finder.find(cached, partial(self.bar.step, "regions"))
        self.check_found(found, cached)
        naming = Naming(self.request, self.plan, self.bar, partial(self.regions_of, centres), self.concepts)
        named, labels = naming.run(found, cached.images)
        tensors: dict[str, Any] = {
            "dataset": dataset,
            "foreground": foreground.astype(np.float32),
            "categories": categories,
            "token_mean": token_mean,
            "category": category,
            "names": named,
            "name_mean": centres.name_mean,
            "voters": centres.voters.astype(np.float32),
        }
        return self.head_spec(labels, cached, len(categories)), tensors

    def dataset_level(
        self, cached: CachedFeatures, features: npt.NDArray[np.float16]
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """The centres [K, d] of all patches, and which of them are foreground [K]."""
        plan, bar = self.plan, self.bar
        points = Points(features)
        if plan.clusters > points.count:
            raise OptionError("clusters", f"must be at most the {points.count} patches, got {plan.clusters}")
        found = self.kmeans(points, plan.clusters, "dataset")
        advance = partial(bar.step, "dataset: sides")
        labels = labels_of(
            points, found, metric="cosine", advance=lambda _, done, total: advance(done, total)
        )
        labels = labels.reshape(features.shape[:2])
        if len(np.unique(labels)) < 2:
            raise ExportError(
                "images", "all patches are alike: there are no two clusters", "name other images"
            )
        attention = [cached.sets[name] for name in attention_sets(self.bundle)]
        paid = attention[0].mean(axis=2, dtype=np.float32) if attention else None
        cues = find_cues(labels, plan.clusters, cached.grid_hw, paid)
        side = cues.foreground if plan.foreground is None else overruled(plan.clusters, plan.foreground)
        lines = cues.lines(side)
        for line in lines:
            bar.say(line)
        sheet = self.request.work / "clusters.jpg"
        write_cluster_sheet(sheet, self.request.images, cached.images, labels, cached.grid_hw, lines)
        bar.say(f"drew {sheet}; --foreground overrules what is foreground")
        return found, side

    def category_level(
        self, features: npt.NDArray[np.float16], groups: Int32, count: int, dataset: Float32
    ) -> Float32:
        """[G, K, d] float32, the centres of each category's patches, from those of the dataset."""
        made = []
        for group in range(count):
            own = np.zeros(features.shape[:2], bool)
            own[groups == group] = True
            points = Points(features, selected=own)
            work = self.request.work / f"categories-{count}-of-{len(dataset)}" / f"{group:04d}"
            found = kmeans_collection(
                points, len(dataset), init=dataset, seed=self.plan.seed, work=work, engine=self.request.steps
            )
            made.append(found.centroids)
            self.bar.step("categories", group + 1, count)
        return np.stack(made)

    def clusters_alone(self, cached: CachedFeatures) -> tuple[HeadSpec, dict[str, Float32]]:
        """The dataset level by itself: a column for each cluster, the one most at the borders first."""
        (name,) = self.sets
        mean = self.take_some(cached, name).mean(axis=(0, 1))
        points = Points(cached.sets[name], centre=mean)
        centres = self.kmeans(points, self.plan.clusters, "dataset")
        labels = labels_of(points, centres, metric="cosine")
        cues = find_cues(labels.reshape(cached.sets[name].shape[:2]), self.plan.clusters, cached.grid_hw)
        first = int(cues.border.argmax())
        order = [first, *(k for k in range(self.plan.clusters) if k != first)]
        given = self.request.labels
        if given is not None and len(given) != self.plan.clusters:
            raise OptionError("labels", f"must be {self.plan.clusters}, one a cluster, got {len(given)}")
        names = given or tuple(f"cluster {k + 1}" for k in range(self.plan.clusters))
        if given is None:
            arranged = labels.reshape(cached.sets[name].shape[:2])
            rank = np.argsort(order).astype(np.int32)
            sheet = self.request.work / "clusters.jpg"
            write_cluster_sheet(
                sheet, self.request.images, cached.images, rank[arranged], cached.grid_hw, names
            )
            self.bar.say(f"drew {sheet}; --labels names them")
        spec = self.head_spec(names, cached, 0)
        return spec, {"prototypes": centres[order], "mean": mean}

    # ---- what the stages share

    def kmeans(self, points: Points, count: int, title: str) -> Float32:
        """[count, d] unit centres of a collection; state is kept below the folder of work."""
        found = kmeans_collection(
            points,
            count,
            metric="cosine",
            seed=self.plan.seed,
            work=self.request.work / f"{title}-{count}",
            advance=self.bar.step,
            engine=self.request.steps,
        )
        self.bar.say(f"{title}: {count} clusters of {points.count:,} patches, {found.iterations} steps")
        return found.centroids

    def mean_of(self, cached: CachedFeatures, name: str) -> Float32:
        """[d] float32, the mean of unit features of some hundred images."""
        mean: Float32 = unit(self.take_some(cached, name)).mean(axis=(0, 1))
        return mean

    def take_some(self, cached: CachedFeatures, name: str) -> Float32:
        """[m, n, d] float32, features of images spread over all."""
        count = len(cached.images)
        picked = np.unique(np.linspace(0, count - 1, min(count, _MEAN_IMAGES)).astype(np.int64))
        return cached.take(picked, name).astype(np.float32)

    def finder(self, centres: Centres, images: Path) -> RegionFinder:
        spec = HeadSpec.model_validate(self._fields(("background", "thing")))
        head, graph = LevelsHead(spec, centres), self.extractor.graph
        mean = None if self.concepts is None else self.concepts.prototypes.mean
        return RegionFinder(
            head, self.extractor.backbone, graph, images, self.plan.refine, concepts_mean=mean
        )

    def check_found(self, found: FoundRegions, cached: CachedFeatures) -> None:
        shown = len(np.unique(found.images))
        self.bar.say(f"{len(found.images)} regions in {shown} of {len(cached.images)} images")
        if len(found.images) < 2:
            remedy = "look at clusters.jpg in the folder of work, and say --foreground"
            raise ExportError("images", "there are fewer than two regions of foreground to name", remedy)

    def regions_of(self, centres: Centres, folder: Path) -> FoundRegions:
        """The regions in a folder of examples."""
        work = self.request.work / "examples" / folder.name
        own = self.features_of(folder, work, f"examples of {folder.name}")
        return self.finder(centres, folder).find(own, lambda done, total: None)

    # ---- the bundle

    def head_spec(self, labels: Sequence[str], cached: CachedFeatures, categories: int) -> HeadSpec:
        """What the bundle says about the head."""
        if not all(labels) or len(set(labels)) != len(labels):
            raise OptionError("labels", f"must differ, and none be empty, got {', '.join(labels)}")
        if self.plan.dataset_only:
            method = f"k-means of all patches into {len(labels)} clusters"
        else:
            counts = f"{self.plan.clusters} clusters, {categories} categories, {len(labels) - 1} names"
            voters = f"votes of the levels {', '.join(self.plan.levels)}"
            method = f"multilevel clustering (2311.18628): {counts}; {voters}; refiner {self.plan.refine}"
        images = f"{len(cached.images):,} images without labels or masks"
        return HeadSpec.model_validate(
            {
                **self._fields(labels),
                "trained_on": f"{images}: {self.request.trained_on}",
                "method": f"{method}; seed {self.plan.seed}",
            }
        )

    def _fields(self, labels: Sequence[str]) -> dict[str, Any]:
        alone = self.plan.dataset_only
        name = "clusters" if alone else "levels"
        return {
            "name": name,
            "kind": "prototypes" if alone else "levels",
            "role": "names",
            "backbone": next(iter(self.bundle.spec.backbones)),
            "features": tuple(dict.fromkeys(self.sets)),
            "affinity": AffinitySpec(threshold=self.plan.threshold),
            "labels": tuple(labels),
            "temperature": self.plan.temperature,
            "files": {"weights": f"{name}.safetensors"},
        }

    def write(self, made: HeadSpec, tensors: Mapping[str, Float32]) -> None:
        """Writes the bundle with the head."""
        spec = with_head(self.bundle.spec, made).model_copy(update={"name": self.request.name})
        whole = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
        members = {made.files["weights"]: safetensors_bytes(whole)}
        rewrite_bundle(self.bundle, self.request.bundle, spec, members)
