"""From a folder of images and a backbone to a bundle whose head `levels` finds and names what they show.

No network is trained: "A Lightweight Clustering Framework for Unsupervised Semantic Segmentation"
(2311.18628). What every stage has found is kept in the folder of work, and taken from there by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import AffinitySpec, Bundle, HeadSpec, open_bundle
from patchcut.checks import check_choice, check_number, check_whole
from patchcut.errors import OptionError
from patchcut.heads.base import MAX_COLUMNS, MAX_SEED
from patchcut.heads.levels import LEVELS, Centres, LevelsHead
from patchcut.heads.naming import unit
from patchcut.settings import Settings
from patchcut.sources import open_source
from patchcut.stages import Extractor

from patchcut_export.bundles.archive import safetensors_bytes
from patchcut_export.bundles.rewriting import rewrite_bundle, with_head
from patchcut_export.clustering.collection import kmeans_collection, labels_of
from patchcut_export.clustering.points import Points
from patchcut_export.clustering.steps import Steps
from patchcut_export.errors import ExportError
from patchcut_export.levels.choosing import choose_count
from patchcut_export.levels.regions import FoundRegions, RegionFinder
from patchcut_export.levels.sheets import write_cluster_sheet, write_name_sheet
from patchcut_export.levels.sides import find_cues, overruled
from patchcut_export.outputs import check_output_file
from patchcut_export.progress import StepBar
from patchcut_export.training.feature_cache import CachedFeatures, cache_features

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

CATEGORY_COUNTS = (4, 6, 8, 12, 16, 24, 32)
NAME_COUNTS = (5, 10, 15, 20, 25, 30, 40)
_RESTARTS = 16  # of small k-means, of class tokens and of regions
_MEAN_IMAGES = 512  # whose features make the mean that all have in common


@dataclass(frozen=True, kw_only=True)
class LevelsPlan:
    """How the levels are made.

    Attributes:
        clusters: K of each level.
        foreground: which of the K are foreground; None to decide it without labels.
        categories: groups of images; None to choose their number by silhouette.
        names: C; None to choose it by silhouette.
        levels: those that vote.
        dataset_only: the K clusters of all patches alone, each of which is a name.
        temperature: of the votes.
        threshold: cosines at or below it do not average the votes of patches.
        refine: moves borders before regions are named.
        seed: of all draws.
    """

    clusters: int = 2
    foreground: tuple[int, ...] | None = None
    categories: int | None = None
    names: int | None = None
    levels: tuple[str, ...] = LEVELS
    dataset_only: bool = False
    temperature: float = 0.2
    threshold: float = 0.6
    refine: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("clusters", self.clusters, 2, MAX_COLUMNS)
        if self.categories is not None:
            check_whole("categories", self.categories, 1, 10_000)
        if self.names is not None:
            check_whole("names", self.names, 1, MAX_COLUMNS - 1)
        if not self.levels:
            raise OptionError("levels", f"must be some of {', '.join(LEVELS)}")
        for level in self.levels:
            check_choice("levels", level, LEVELS)
        check_number("temperature", self.temperature, 1e-3, 10)
        check_number("threshold", self.threshold, 0, 1)
        check_whole("seed", self.seed, 0, MAX_SEED)
        if self.foreground is not None:
            overruled(self.clusters, self.foreground)


@dataclass(frozen=True, kw_only=True)
class LevelsRequest:
    """What `patchcut export levels` was asked for.

    Attributes:
        images: folder of unlabelled images.
        settings: the bundle whose backbone makes the features, and how it runs.
        bundle: the file to write.
        work: folder for features, clusters and contact sheets.
        sets: names of the feature sets for the foreground, of the class token, and for names; None for what
            the bundle has.
        labels: names of the C names in order, or None.
        examples: a folder with a folder of images for each name, or None.
        name: the new bundle's.
        trained_on: what the card says about the images.
        engine: where the passes of k-means run; None for this machine.
    """

    images: Path
    settings: Settings
    bundle: Path
    work: Path
    sets: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    examples: Path | None = None
    name: str
    trained_on: str
    engine: Steps | None = None


def make_levels(request: LevelsRequest, plan: LevelsPlan, bar: StepBar) -> None:
    """Caches features, clusters them level by level, writes the bundle; goes on where a run was stopped.

    Raises:
        PatchcutError: naming what is wrong with the request, before any work is done where that is possible.
    """
    check_output_file(request.bundle)
    open_source(request.images).close()
    with open_bundle(request.settings.bundle) as bundle:
        sets = feature_sets(bundle, request.sets, dataset_only=plan.dataset_only)
        needs = dict.fromkeys([*sets, *_attention(bundle)])
        extractor = Extractor.open(bundle, request.settings, needs=list(needs))
        _Recipe(request, plan, bundle, extractor, sets, bar).run()
    bar.say(f"wrote {request.bundle}")


def feature_sets(bundle: Bundle, asked: Sequence[str] | None, *, dataset_only: bool) -> tuple[str, ...]:
    """The feature sets for the foreground, of the class token, and for names.

    Args:
        asked: their names; None for the first of patches, the first of the image, and "semantic", or the
            first of patches where there is none.
        dataset_only: there is one, for names; asked for, or as above.
    Raises:
        OptionError: one that was asked for is not there, or is of the other kind.
        ExportError: the backbone has no class token.
    """
    known = bundle.spec.backbone.features
    patches = [name for name, one in known.items() if not one.of_image]
    tokens = [name for name, one in known.items() if one.of_image]
    make = "make it with `patchcut export backbone --features key,semantic=token@8,cls`"
    if asked is None:
        if not patches:
            raise ExportError("features", f"{bundle.path} has no features of patches", make)
        names = "semantic" if "semantic" in patches else patches[0]
        if dataset_only:
            return (names,)
        if not tokens:
            raise ExportError(
                "features", f"{bundle.path} has no class token, by which images are grouped", make
            )
        return patches[0], tokens[0], names
    wanted = 1 if dataset_only else 3
    kinds = (patches,) if dataset_only else (patches, tokens, patches)
    if len(asked) != wanted:
        what = (
            "one set of patches"
            if dataset_only
            else "a set of patches, one of the class token, one of patches"
        )
        raise OptionError("features", f"must be {what}, got {', '.join(asked)}")
    for name, kind in zip(asked, kinds, strict=True):
        if name not in kind:
            of = "the class token" if kind is tokens else "patches"
            raise OptionError(
                "features", f"must be of {of}: {', '.join(kind) or 'none is'}, got {name}", make
            )
    return tuple(asked)


def _attention(bundle: Bundle) -> list[str]:
    """The first set that is the class token's attention, if there is one."""
    sets = bundle.spec.backbone.features.items()
    return [name for name, one in sets if all(part.facet == "attention" for part in one.components)][:1]


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
    ) -> None:
        self.request = request
        self.plan = plan
        self.bundle = bundle
        self.extractor = extractor
        self.sets = sets
        self.bar = bar

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
        names = list(self.extractor.backbone.features)
        cached = cache_features(
            request.images,
            self.bundle,
            self.extractor,
            request.work / "features",
            partial(bar.step, "features"),
            sets=names,
        )
        for problem in cached.problems:
            bar.say(f"skipped {problem}")
        if len(cached.images) < 2:
            raise ExportError(
                "images", f"{request.images} has one image that can be read", "name at least two"
            )
        return cached

    # ---- the levels

    def three_levels(self, cached: CachedFeatures) -> tuple[HeadSpec, dict[str, Float32]]:
        patches, token, names = self.sets
        dataset, foreground = self.dataset_level(cached, cached.sets[patches])
        tokens = cached.take(slice(None), token)[:, 0].astype(np.float32)
        token_mean = unit(tokens).mean(axis=0)
        rows = unit(unit(tokens) - token_mean)
        categories, groups = self.group(rows)
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
        finder = self.finder(centres)
        found = finder.find(cached, partial(self.bar.step, "regions"))
        self.check_found(found, cached)
        named, own = self.name_regions(found)
        labels = self.labels(named, centres)
        self.write_names(cached, found, own, named, labels)
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
        attention = [cached.sets[name] for name in _attention(self.bundle)]
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

    def group(self, rows: Float32) -> tuple[Float32, Int32]:
        """The centres [G, e] of class tokens [N, e], and the category [N] of each image."""
        count = self.plan.categories
        if count is None:
            count = choose_count(rows, CATEGORY_COUNTS, self.plan.seed, self.bar.say, "categories")
        if count > len(rows):
            raise OptionError("categories", f"must be at most the {len(rows)} images, got {count}")
        return self.small_kmeans(rows, count)

    def category_level(
        self, features: npt.NDArray[np.float16], groups: Int32, count: int, dataset: Float32
    ) -> Float32:
        """[G, K, d] float32, the centres of each category's patches, from those of the dataset."""
        made = []
        for group in range(count):
            own = np.zeros(features.shape[:2], bool)
            own[groups == group] = True
            points = Points(features, selected=own)
            work = self.request.work / "categories" / f"{group:04d}"
            found = kmeans_collection(
                points, len(dataset), init=dataset, seed=self.plan.seed, work=work, engine=self.request.engine
            )
            made.append(found.centroids)
            self.bar.step("categories", group + 1, count)
        return np.stack(made)

    def name_regions(self, found: FoundRegions) -> tuple[Float32, Int32]:
        """The centres [C, s] of regions, and the name [R] of each."""
        count = self.request_names()
        if count is None:
            count = choose_count(found.means, NAME_COUNTS, self.plan.seed, self.bar.say, "names")
        if count > len(found.means):
            what = f"must be at most the {len(found.means)} regions that were found, got {count}"
            raise OptionError("names", what)
        return self.small_kmeans(found.means, count)

    def request_names(self) -> int | None:
        """C as it was asked for, by a number or by labels.

        Raises:
            OptionError: both, and they differ.
        """
        labels, count = self.request.labels, self.plan.names
        if labels is not None and count is not None and len(labels) != count:
            raise OptionError("labels", f"must be {count}, as --names says, got {len(labels)}")
        return count if labels is None else len(labels)

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
            engine=self.request.engine,
        )
        self.bar.say(f"{title}: {count} clusters of {points.count:,} patches, {found.iterations} steps")
        return found.centroids

    def small_kmeans(self, rows: Float32, count: int) -> tuple[Float32, Int32]:
        """Unit centres [count, d] of unit rows [m, d] that fit in memory, and each row's."""
        import patchcut_kernels as kernels

        found = kernels.kmeans(rows, count, metric="cosine", restarts=_RESTARTS, seed=self.plan.seed)
        return found.centroids, found.labels

    def mean_of(self, cached: CachedFeatures, name: str) -> Float32:
        """[d] float32, the mean of unit features of some hundred images."""
        mean: Float32 = unit(self.take_some(cached, name)).mean(axis=(0, 1))
        return mean

    def take_some(self, cached: CachedFeatures, name: str) -> Float32:
        """[m, n, d] float32, features of images spread over all."""
        count = len(cached.images)
        picked = np.unique(np.linspace(0, count - 1, min(count, _MEAN_IMAGES)).astype(np.int64))
        return cached.take(picked, name).astype(np.float32)

    def finder(self, centres: Centres) -> RegionFinder:
        spec = HeadSpec.model_validate(self._fields(("background", "thing")))
        head, graph = LevelsHead(spec, centres), self.extractor.graph
        return RegionFinder(head, self.extractor.backbone, graph, self.request.images, self.plan.refine)

    def check_found(self, found: FoundRegions, cached: CachedFeatures) -> None:
        shown = len(np.unique(found.images))
        self.bar.say(f"{len(found.images)} regions in {shown} of {len(cached.images)} images")
        if len(found.images) < 2:
            remedy = "look at clusters.jpg in the folder of work, and say --foreground"
            raise ExportError("images", "there are fewer than two regions of foreground to name", remedy)

    def labels(self, named: Float32, centres: Centres) -> tuple[str, ...]:
        """Background, and the C names: given, or those of the examples that are nearest, or numbers."""
        if self.request.labels is not None:
            return ("background", *self.request.labels)
        names = [f"thing {c + 1}" for c in range(len(named))]
        if self.request.examples is not None:
            names = self.names_of_examples(self.request.examples, named, centres, names)
        return ("background", *names)

    def names_of_examples(
        self, folder: Path, named: Float32, centres: Centres, numbered: list[str]
    ) -> list[str]:
        """The C names by examples: each centre is called as the examples most of which are nearest to it.

        Raises:
            ExportError: the folder has no folders of images.
        """
        folders = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
        if not folders:
            raise ExportError("examples", f"{folder} has no folder for each name", "make DIR/NAME/*.jpg")
        shares = np.zeros((len(folders), len(named)))
        for row, one in enumerate(folders):
            own = cache_features(
                one,
                self.bundle,
                self.extractor,
                self.request.work / "examples" / one.name,
                partial(self.bar.step, f"examples of {one.name}"),
                sets=list(self.extractor.backbone.features),
            )
            finder = self.finder(centres)
            found = finder.find(own, lambda done, total: None)
            if len(found.means):
                nearest = (found.means @ named.T).argmax(axis=1)
                shares[row] = np.bincount(nearest, minlength=len(named)) / len(nearest)
        best = shares.argmax(axis=0)
        names = list(numbered)
        used: dict[str, int] = {}
        for c in np.argsort(-shares.max(axis=0), kind="stable"):
            if shares[best[c], c] > 0:
                name = folders[best[c]].name
                used[name] = used.get(name, 0) + 1
                names[c] = name if used[name] == 1 else f"{name} {used[name]}"
        return names

    def write_names(
        self, cached: CachedFeatures, found: FoundRegions, own: Int32, named: Float32, labels: tuple[str, ...]
    ) -> None:
        sheet = self.request.work / "names.jpg"
        write_name_sheet(sheet, self.request.images, cached.images, found, own, named, labels[1:])
        self.bar.say(f"drew {sheet}; --labels calls the names otherwise")

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
