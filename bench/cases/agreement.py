"""Cuts of real frames beside those of a dense eigensolver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk
from patchcut.bundle import open_bundle
from patchcut.engines import EngineOptions, open_engine
from patchcut.sources import open_source

from bench.cases import BenchError, Options, Target
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
    if options.data is None or not (options.data / _FOLDER).is_dir():
        raise BenchError(f"agreement needs --data (or PATCHCUT_DATA): a folder that holds {_FOLDER}")
    for case, size in _SIZES.items():
        indices = np.array([_agreement(features) for features in _features(options, size)])
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


def _features(options: Options, size: int) -> Iterator[npt.NDArray[np.float32]]:
    """[n, d] of each image; overwritten by the next one."""
    from patchcut_export.training.feature_cache import features_of

    assert options.data is not None
    images: Path = options.data / _FOLDER / "images"
    with open_bundle(options.bundle) as bundle, open_source(images) as frames:
        engine = open_engine(bundle, EngineOptions("cpu", size=size, threads=options.threads))
        for frame in frames:
            yield features_of(frame.image, frame.color, bundle.spec.backbone, engine)


def _agreement(features: npt.NDArray[np.float32]) -> float:
    """Adjusted Rand index of both sides' bipartitions."""
    from sklearn.metrics import adjusted_rand_score

    from bench.competitors.tokencut import second_vector

    theirs = second_vector(pk.reference.cut_graph(features))
    ours = pk.ncut(features).vectors[:, 0]
    return float(adjusted_rand_score(ours > ours.mean(), theirs > theirs.mean()))
