"""Points around planted means, and passes that are watched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut_export.clustering.collection import CollectionClustering
from patchcut_export.clustering.points import Points
from patchcut_export.clustering.steps import LocalSteps, Pass, PassSums


class Interruption(Exception):
    """Stops a run."""


def plant(count: int, k: int, dim: int, *, seed: int = 0, apart: float = 4.0) -> npt.NDArray[np.float16]:
    """[count, dim] float16 points around k means, and all a little off the origin."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(k, dim)) * apart + 1
    return (means[random.integers(k, size=count)] + random.normal(size=(count, dim))).astype(np.float16)


def same_bits(a: CollectionClustering, b: CollectionClustering) -> bool:
    return (
        np.array_equal(a.centroids.view(np.int32), b.centroids.view(np.int32))
        and np.array_equal(a.sizes, b.sizes)
        and (a.inertia, a.iterations, a.history) == (b.inertia, b.iterations, b.history)
    )


@dataclass
class Watched:
    """Passes on this machine that keep what they were asked for."""

    seen: list[tuple[Pass, PassSums]] = field(default_factory=list)

    def run(self, points: Points, centroids: Any, asked: Pass, advance: Any) -> PassSums:
        made = LocalSteps().run(points, centroids, asked, advance)
        self.seen.append((asked, made))
        return made
