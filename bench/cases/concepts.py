"""Concepts of folders of photographs: what names regions best, "none of these", and the time it takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut import Segmenter
from patchcut.bundle import ConceptsSpec, HeadSpec, open_bundle
from patchcut.concepts.collection import SAMPLES, TEMPERATURE
from patchcut.heads import open_head
from patchcut.heads.naming import RegionNamer
from patchcut.heads.prototypes import Prototypes, PrototypesHead
from patchcut.settings import Settings
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor
from patchcut_export.concepts.archives import Archive, Space, read_archive, unit_rows
from patchcut_export.concepts.reading import Archives
from patchcut_export.concepts.recipe import ConceptsPlan, ConceptsRequest, learn_concepts, make_concepts
from patchcut_export.measuring.datasets import Dataset, open_dataset
from patchcut_export.measuring.datasets.class_tables import voc_classes
from patchcut_export.measuring.truth import read_truth
from patchcut_export.progress import StepBar

from bench.cases import BenchError, Options, Target
from bench.harness import Times
from bench.rows import Outcome

TITLE = "concepts of folders at 224: the default beside other vectors, photographs of other things, the time"
SIZE, PHOTOS, FOLDS = 224, 50, 5
NAMES = (
    "aeroplane",
    "bird",
    "boat",
    "car",
    "chair",
    "dog",
    "motorbike",
    "person",
    "pottedplant",
    "tvmonitor",
)
VOC, UNSEEN, NEW, CACHED = (
    f"concepts voc2007-dev {SIZE}",
    "photographs of other things",
    f"concept of {PHOTOS} photographs",
    f"concept of {PHOTOS} photographs, features cached",
)
CASES = (VOC, UNSEEN, NEW, CACHED)
REPEATS = 3
DEFAULT, PUBLISHED, MEANS, RANDOM, ALL = (
    "patchcut",
    "co-segmentation as published",
    "mean of the foreground's patches, centred",
    "random seeds",
    "mean of all patches",
)
TARGETS = (
    Target(VOC, "mIoU", ">=", 0.26, "", "mIoU of ten concepts and background"),
    Target(VOC, "gained_over_means", ">=", 0.04, "", "the same over the mean of the foreground's patches"),
    Target(VOC, "published_over_random", ">=", 0.0, "", "published co-segmentation over random seeds"),
    Target(
        VOC, "published_over_all", ">=", 0.0, "", "published co-segmentation over the mean of all patches"
    ),
    Target(UNSEEN, "kept", ">=", 0.9, "", "share of the concepts' own photographs, held out, that are named"),
    Target(UNSEEN, "refused", ">=", 0.8, "", "share of photographs of other things without one"),
    Target(NEW, "median_ms", "<=", 20_000, " ms", "a concept of 50 photographs"),
    Target(CACHED, "median_ms", "<=", 1000, " ms", "the same with cached features"),
)

Float32 = npt.NDArray[np.float32]
Recipe = Callable[[Archive], Float32]


def run(options: Options) -> Iterator[Outcome]:
    """All need the folders `concepts` of the data; mIoU also voc2007-dev."""
    folders = options.dataset("concepts", "concepts", NAMES[0])
    settings = replace(options.settings, size=SIZE)
    with tempfile.TemporaryDirectory() as work:
        every, samples = _archives(settings, folders, Path(work))
        own = [every[name] for name in NAMES]
        yield from _named(options, own, samples)
        yield _unseen(options, own, [one for name, one in every.items() if name not in NAMES], samples)
        yield from _times(options, settings, folders / NAMES[0], Path(work))


def _archives(settings: Settings, folders: Path, work: Path) -> tuple[dict[str, Archive], Archive]:
    """Every folder's photographs, and the samples."""
    names = sorted(path.name for path in folders.iterdir() if path.is_dir())
    if missing := set(NAMES) - set(names):
        raise BenchError(f"concepts needs photographs of {', '.join(sorted(missing))} in {folders}")
    with open_bundle(settings.bundle) as bundle:
        foreground = bundle.spec.head("objects")
        if foreground is None:
            raise BenchError("concepts needs a bundle with a head for objects")
        needs = tuple(dict.fromkeys(["semantic", *foreground.features]))
        extractor, head = Extractor.open(bundle, settings, needs=needs), open_head(bundle, foreground)

        def read(name: str, folder: Path) -> Archive:
            return read_archive(
                name,
                folder,
                bundle,
                extractor,
                needs,
                head,
                work / "archives" / name,
                (),
                lambda *_: None,
                lambda _: None,
            )

        return {name: read(name, folders / name) for name in names}, read("samples", SAMPLES)


def _named(options: Options, own: Sequence[Archive], samples: Archive) -> Iterator[Outcome]:
    dataset = open_dataset("semantic", options.dataset("concepts", "voc2007-dev", "masks"))
    settings = replace(options.settings, size=SIZE, head="concepts", refine="none", nothing_below=0.0)
    segmenter = patchcut.load(settings=settings)
    heads = _heads(options, _contenders(own, samples))
    found = {name: _measure(segmenter, head, dataset) for name, head in heads.items()}
    ours, published = found[DEFAULT], found[PUBLISHED]["mIoU"]
    ours |= {
        "gained_over_means": ours["mIoU"] - found[MEANS]["mIoU"],
        "published_over_random": published - found[RANDOM]["mIoU"],
        "published_over_all": published - found[ALL]["mIoU"],
    }
    for name, quality in found.items():
        inside = f"no clock; {len(dataset.examples)} images with masks, the other ten classes left out"
        yield Outcome(VOC, name, inside, quality=quality, bundle=options.bundle)


def _contenders(own: Sequence[Archive], samples: Archive) -> dict[str, Prototypes]:
    """Prototypes by each recipe; none but the default has thresholds."""
    default = learn_concepts(Archives(list(own), samples=[samples]), ConceptsPlan()).prototypes
    nothing = np.zeros_like(default.mean)
    mean = Space.of(list(own)).mean
    rng = np.random.default_rng(0)

    def of(recipe: Recipe, common: Float32) -> Prototypes:
        vectors = unit_rows(np.stack([recipe(_less(one, common)) for one in own]))
        return Prototypes(vectors, common, np.arange(1, len(own) + 1, dtype=np.int32))

    def random(archive: Archive) -> Float32:
        m, n = archive.sides.shape
        seeds = unit_rows(archive.rows[np.arange(m), rng.integers(0, n, m)].astype(np.float32))
        mean: Float32 = seeds.mean(axis=0)
        return mean

    return {
        DEFAULT: default,
        f"{DEFAULT}, thresholds alone": replace(default, presence=None),
        f"{DEFAULT}, no thresholds": replace(default, thresholds=None, presence=None),
        PUBLISHED: learn_concepts(Archives(list(own)), ConceptsPlan(recipe="published")).prototypes,
        f"{PUBLISHED}, centred, seeds of the foreground": of(_seeds_of_foreground, mean),
        MEANS: of(_mean_of_foreground, mean),
        RANDOM: of(random, nothing),
        ALL: of(lambda one: unit_rows(one.rows.astype(np.float32)).mean(axis=(0, 1)), nothing),
    }


def _less(archive: Archive, mean: Float32) -> Archive:
    return replace(archive, rows=(archive.rows.astype(np.float32) - mean).astype(np.float16))


def _mean_of_foreground(archive: Archive) -> Float32:
    mean: Float32 = unit_rows(archive.rows.astype(np.float32))[archive.sides > 0.5].mean(axis=0)
    return mean


def _seeds_of_foreground(archive: Archive) -> Float32:
    import patchcut_kernels as kernels

    weights = np.where(archive.sides > 0.5, archive.sides, 0).astype(np.float32)
    embedding: Float32 = kernels.cosegment(
        unit_rows(archive.rows.astype(np.float32)), weights=weights
    ).embedding
    return embedding


def _heads(options: Options, contenders: dict[str, Prototypes]) -> dict[str, PrototypesHead]:
    """A head of each contender's prototypes, with the foreground of the bundle's head for objects."""
    with open_bundle(options.bundle) as bundle:
        objects = bundle.spec.head("objects")
        assert objects is not None
        spec = HeadSpec(
            name="concepts",
            kind="prototypes",
            role="names",
            backbone=objects.backbone,
            features=tuple(dict.fromkeys(["semantic", *objects.features])),
            labels=("background", *NAMES),
            temperature=TEMPERATURE,
            concepts=ConceptsSpec(foreground=objects.name),
            files={"weights": "concepts.safetensors"},
        )
        foreground = open_head(bundle, objects)
    return {name: PrototypesHead(spec, one, foreground) for name, one in contenders.items()}


def _measure(segmenter: Segmenter, head: PrototypesHead, dataset: Dataset) -> dict[str, float]:
    """mIoU of the ten classes and background; pixels of other classes are left out."""
    segmenter.head = head
    names = voc_classes().names
    pairs = {0: 0} | {names.index(name): i + 1 for i, name in enumerate(NAMES)}
    counts = np.zeros((len(pairs), len(pairs)), np.int64)
    for example in dataset.examples:
        result = segmenter(read_photo(example.image))
        truth = read_truth(example, result.label_map.shape)
        assert truth.classes is not None
        true = np.full(256, -1)
        true[list(pairs)] = list(pairs.values())
        told = true[truth.classes]
        kept = told >= 0
        flat = told[kept] * len(pairs) + result.label_map[kept]
        counts += np.bincount(flat, minlength=len(pairs) ** 2).reshape(counts.shape)
    right = np.diag(counts)
    ious = right / np.maximum(counts.sum(axis=0) + counts.sum(axis=1) - right, 1)
    named = counts[1:, 1:]
    return {"mIoU": float(ious.mean()), "class right": float(np.diag(named).sum() / max(named.sum(), 1))}


def _unseen(options: Options, own: Sequence[Archive], others: Sequence[Archive], samples: Archive) -> Outcome:
    """Photographs that nothing was made of: a fifth of each concept's, five times, and those of others."""
    kept, refused = [], []
    for fold in range(FOLDS):
        parts = [np.arange(len(one.images)) % FOLDS == fold for one in own]
        left = [_some(one, ~part) for one, part in zip(own, parts, strict=True)]
        made = learn_concepts(Archives(left, samples=[samples]), ConceptsPlan()).prototypes
        held = [_some(one, part) for one, part in zip(own, parts, strict=True)]
        kept += [(column in found) for column, one in enumerate(held, 1) for found in _found(one, made)]
        refused += [not found for one in others for found in _found(one, made)]
    inside = (
        f"no clock; {len(own)} concepts, a fifth of their photographs held out; {len(others)} other things"
    )
    quality = {"kept": float(np.mean(kept)), "refused": float(np.mean(refused))}
    return Outcome(UNSEEN, DEFAULT, inside, quality=quality, bundle=options.bundle)


def _some(archive: Archive, images: npt.NDArray[np.bool_]) -> Archive:
    names = tuple(name for name, kept in zip(archive.images, images, strict=True) if kept)
    return replace(archive, images=names, rows=archive.rows[images], sides=archive.sides[images])


def _found(archive: Archive, prototypes: Prototypes) -> Iterator[set[int]]:
    """The columns of the regions of each image, as the head of a bundle names them."""
    namer = RegionNamer(
        unit_rows(prototypes.vectors), prototypes.owners, prototypes.thresholds, prototypes.presence
    )
    nothing = np.zeros_like(prototypes.mean)
    for rows, side in zip(archive.rows, archive.sides, strict=True):
        columns = namer(rows.astype(np.float32) - prototypes.mean, nothing, side > 0.5, archive.grid_hw)
        yield set(np.unique(columns[columns > 0]).tolist())


def _times(options: Options, settings: Settings, folder: Path, work: Path) -> Iterator[Outcome]:
    """From a folder to a bundle, in this process; then again with the features that are there."""
    new: list[float] = []
    cached: list[float] = []
    with StepBar() as bar:
        for i in range(options.repeats or REPEATS):
            request = ConceptsRequest(
                archives={folder.name: folder},
                settings=settings,
                bundle=work / "made.patchcut",
                work=work / str(i),
                name="made",
            )
            for times in (new, cached):
                started = time.perf_counter()
                make_concepts(request, ConceptsPlan(), bar)
                times.append(1e3 * (time.perf_counter() - started))
    for case, times, inside in (
        (NEW, new, "a folder of photographs to a bundle and its picture"),
        (CACHED, cached, "the same with features that are there already"),
    ):
        yield Outcome(case, DEFAULT, inside, Times(tuple(times)), bundle=options.bundle)
