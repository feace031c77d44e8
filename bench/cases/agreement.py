"""Cuts of real frames beside those of a dense eigensolver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk
from patchcut.sources import open_source

from bench import subjects
from bench.cases import Options, Target
from bench.rows import Outcome

TITLE = "bipartitions of development images beside those of scipy's eigh"
REPEATS = 1
_FOLDER = "ecssd-dev"
_SIZES = {f"{_FOLDER} {size} ncut": size for size in (224, 448)}
CASES = tuple(_SIZES)
TARGETS = tuple(
    Target(case, "adjusted_rand_index", ">=", 0.98, "", f"ncut, {_FOLDER} at {size}, agreement with eigh")
    for case, size in _SIZES.items()
)


def run(options: Options) -> Iterator[Outcome]:
    """A row a size: thresholded cosine, one vector, its mean parts the patches."""
    images = options.dataset("agreement", _FOLDER, "images") / "images"
    for case, size in _SIZES.items():
        extractor = subjects.open_extractor(replace(options.settings, size=size))
        with open_source(images) as frames:
            found = (subjects.first(subjects.features(extractor, frame).default) for frame in frames)
            indices = np.array([_agreement(features) for features in found])
        quality = {
            "least adjusted Rand index": float(indices.min()),
            "share of equal bipartitions": float((indices == 1).mean()),
        }
        yield Outcome(
            case,
            "patchcut",
            f"no clock; {len(indices)} images",
            quality=quality,
            metrics={"adjusted_rand_index": float(indices.mean())},
            bundle=options.bundle,
        )


def _agreement(features: npt.NDArray[np.float32]) -> float:
    """Adjusted Rand index of both sides' bipartitions."""
    from sklearn.metrics import adjusted_rand_score

    from bench.competitors.tokencut import second_vector

    theirs = second_vector(pk.reference.cut_graph(features))
    ours = pk.ncut(features).vectors[:, 0]
    return float(adjusted_rand_score(ours > ours.mean(), theirs > theirs.mean()))
