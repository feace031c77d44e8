"""Features of photos on the machines of a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import patchcut_kernels as kernels
from patchcut.bundle import Bundle, embedded_bundles, open_bundle
from patchcut.checks import check_choice, check_whole
from patchcut.settings import Device, Settings
from patchcut.stages import Extractor

from patchcut_export.errors import ExportError
from patchcut_export.ray_cluster import OnRay
from patchcut_export.training.extraction import PhotoFeatures, extract_photo

# Shards that are given out for each task that can run: one runs, one waits for it.
_GIVEN = 2


class RayExtraction(OnRay):
    """Shards of photos as tasks of a Ray cluster; each worker opens the backbone once and keeps it.

    Workers run the graph that the extractor runs, by the same engine, on one CPU, or on a GPU where the
    extractor has one. The features are those of an extractor with one thread, bit by bit where the machines
    are of one kind; more threads add up in another order. A shard whose worker or machine is lost is done
    again elsewhere. Photos and the bundle are read by their paths, which have to be there on every machine;
    an embedded bundle is the machine's own, and has to be the same.

    Args:
        address: the cluster's, as `ray.init` takes it; None for the one that this process is connected to,
            else for RAY_ADDRESS, else for one on this machine.
        shard: photos of a task.
        dtype: of the features, "float16" or "float32".
    Raises:
        OptionError: a shard is out of range.
        EngineError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, *, address: str | None = None, shard: int = 8, dtype: str = "float16") -> None:
        check_whole("shard", shard, 1, 1_000_000)
        check_choice("dtype", dtype, ("float16", "float32"))
        super().__init__(address=address)
        self._shard, self._dtype = shard, dtype

    def run(
        self, bundle: Bundle, extractor: Extractor, photos: Mapping[str, Path], sets: Sequence[str]
    ) -> Generator[PhotoFeatures, None, None]:
        """As in `Extraction`, of the type that was asked for.

        Raises:
            ExportError: a machine lacks a photo or has another bundle.
            EngineError: the cluster lacks the device.
        """
        backbone = _Backbone.of(bundle, extractor, tuple(sets), self._dtype)
        most = _GIVEN * self._places(backbone.settings.device)
        task = self._task(_extract_shard, backbone.settings.device)
        left = iter([(name, path.absolute()) for name, path in photos.items()])
        waiting: deque[Any] = deque()
        try:
            with self._errors_told():
                while True:
                    while len(waiting) < most and (shard := list(islice(left, self._shard))):
                        waiting.append(task.remote(backbone, shard))
                    if not waiting:
                        return
                    made = self._ray.get(waiting[0])
                    waiting.popleft()
                    yield from made
        finally:
            for one in waiting:
                self._ray.cancel(one)


@dataclass(frozen=True)
class _Backbone:
    """What a worker opens.

    Attributes:
        settings: choose the engine, the graph and the device of the extractor.
        name: the backbone's, in the bundle.
        sets: feature sets that are wanted.
        sha256: of the graph and of the weights.
        dtype: of the features that are given back.
    """

    settings: Settings
    name: str
    sets: tuple[str, ...]
    sha256: tuple[str, ...]
    dtype: str

    @classmethod
    def of(cls, bundle: Bundle, extractor: Extractor, sets: tuple[str, ...], dtype: str) -> _Backbone:
        facts, path = extractor.engine.facts, bundle.path.absolute()
        named = [name for name, one in embedded_bundles().items() if one == path]
        settings = Settings(
            bundle=named[0] if named else path,
            engine=facts.name,
            device=cast("Device", facts.device),
            precision=facts.precision,
            size=facts.graph.size_hw[0],
            threads=1,
        )
        own = extractor.backbone.graphs
        name = next(name for name, one in bundle.spec.backbones.items() if one.graphs == own)
        return cls(settings, name, sets, _sha256(bundle, extractor), dtype)

    def open(self) -> Extractor:
        """The extractor.

        Raises:
            ExportError: "[bundle] /data/mine.patchcut is another file here; put the same on every machine".
        """
        kernels.set_threads(1)
        with open_bundle(self.settings.bundle) as bundle:
            extractor = Extractor.open(bundle, self.settings, backbone=self.name, needs=self.sets)
            if _sha256(bundle, extractor) != self.sha256:
                raise ExportError(
                    "bundle", f"{bundle.path} is another file here", "put the same on every machine"
                )
        return extractor


def _sha256(bundle: Bundle, extractor: Extractor) -> tuple[str, ...]:
    members = (extractor.graph.file, extractor.backbone.weights)
    return tuple(bundle.spec.files[member].sha256 for member in members if member)


@lru_cache(maxsize=1)
def _opened(backbone: _Backbone) -> Extractor:
    return backbone.open()


def _extract_shard(backbone: _Backbone, photos: Sequence[tuple[str, Path]]) -> list[PhotoFeatures]:
    """What a worker does: the features of its photos."""
    extractor, made = _opened(backbone), []
    for name, path in photos:
        if not path.is_file():
            remedy = "put it where every machine has it under that path"
            raise ExportError("images", f"{path} cannot be read here", remedy)
        found = extract_photo(extractor, name, path, backbone.sets)
        sets = {one: np.array(rows, backbone.dtype) for one, rows in found.sets.items()}
        made.append(PhotoFeatures(found.name, found.content, sets, found.problem))
    return made
