"""Correlation clustering of photographs: is the better objective found, and what is the number worth?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.heads import CcHead
from patchcut.sources.photos import read_photo

from bench import subjects
from bench.cases import Options, Target
from bench.cases.head import BY_NETWORK, clustering_quality
from bench.rows import Outcome

TITLE = "clusters found in coco128, beside the number of its labelled objects and beside the GNN's loss"
CASES = ("coco128 clusters",)
REPEATS = 1
TARGETS = (
    Target(
        CASES[0], "rank_correlation", ">=", 0.0, "", "clusters found and objects labelled: rank correlation"
    ),
    Target(CASES[0], "share_not_worse", ">=", 1.0, "", "images on which moves find the better objective"),
)
_FOLDER, _SIZE = "coco128", 224


def run(options: Options) -> Iterator[Outcome]:
    """Both solvers on the same features and affinity; one object more is the background."""
    images = _objects(options.dataset("found-k", _FOLDER, "instances.json"))
    extractor = subjects.open_extractor(replace(options.settings, size=_SIZE))
    found: dict[str, list[dict[str, float]]] = {"patchcut": [], BY_NETWORK: []}
    solvers = {"patchcut": CcHead(), BY_NETWORK: CcHead(solver="gnn")}
    for path in images:
        features = subjects.first(subjects.features(extractor, read_photo(path)).default)
        for name, head in solvers.items():
            found[name].append(clustering_quality(head.cluster(features), features, head))
    labelled = np.array(list(images.values())) + 1
    ours, theirs = (np.array([one["objective"] for one in found[name]]) for name in solvers)
    for name in solvers:
        clusters = np.array([one["clusters"] for one in found[name]])
        metrics = {
            "rank_correlation": rank_correlation(clusters, labelled),
            "clusters": float(clusters.mean()),
        }
        if name == "patchcut":
            metrics["share_not_worse"] = float((ours >= theirs).mean())
        yield Outcome(
            CASES[0], name, f"no clock; {len(images)} images", metrics=metrics, bundle=options.bundle
        )


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.int64]) -> float:
    """Spearman's, of two series of one length; ties have their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _objects(folder: Path) -> dict[Path, int]:
    """How many objects are labelled on each image that is there; crowds do not count."""
    listed = json.loads((folder / "instances.json").read_text("utf-8"))
    counts = Counter(one["image_id"] for one in listed["annotations"] if not one.get("iscrowd"))
    paths = {folder / "images" / image["file_name"]: counts[image["id"]] for image in listed["images"]}
    return {path: count for path, count in paths.items() if path.is_file()}
