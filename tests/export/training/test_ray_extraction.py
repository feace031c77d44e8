"""Features of photos on a Ray cluster of two workers, one of which is killed half-way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import Bundle, open_bundle
from patchcut.errors import OptionError
from patchcut.settings import Settings
from patchcut.stages import Extractor
from patchcut_export.errors import ExportError
from patchcut_export.training import feature_cache
from patchcut_export.training.extraction import Extraction, LocalExtraction, PhotoFeatures
from patchcut_export.training.extractions import open_extraction
from patchcut_export.training.feature_cache import CachedFeatures, cache_features
from patchcut_export.training.ray_extraction import RayExtraction
from tests.export.deadly import DeadlyPath, arm
from tests.runtime import toy_bundle as toy

SETS = ("key", "token", "cls")
Cache = Callable[..., CachedFeatures]


class DeadlyExtraction(RayExtraction):
    """Who looks at one of the photos comes."""

    def run(
        self, bundle: Bundle, extractor: Extractor, photos: Mapping[str, Path], sets: Sequence[str]
    ) -> Generator[PhotoFeatures, None, None]:
        deadly = {**photos, "07.png": DeadlyPath(photos["07.png"])}
        return super().run(bundle, extractor, deadly, sets)


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    files = toy.members(tokens=True)
    return toy.write(tmp_path / "toy.patchcut", files, toy.manifest(files, tokens=True))


@pytest.fixture
def images(tmp_path: Path, paint: Callable[..., Any]) -> Path:
    """Thirteen photos of some sizes, and one that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(13):
        image, _ = paint(seed)
        assert cv2.imwrite(str(folder / f"{seed:02d}.png"), image[: 60 + seed])
    (folder / "05b.png").write_bytes(b"no picture")
    return folder


def renamed(graph: bytes) -> bytes:
    """The same graph in other bytes."""
    model = onnx.load_from_string(graph)
    model.doc_string = "another"
    return model.SerializeToString()


@pytest.fixture
def cache(backbone: Path, images: Path, tmp_path: Path) -> Cache:
    def make(
        extraction: Extraction | None,
        folder: str = "features",
        advance: Callable[[int, int], None] = lambda done, total: None,
        settings: Settings | None = None,
    ) -> CachedFeatures:
        with open_bundle(backbone) as bundle:
            extractor = Extractor.open(bundle, settings or Settings(device="cpu", threads=1), needs=SETS)
            return cache_features(
                images, bundle, extractor, tmp_path / folder, advance, SETS, extraction=extraction
            )

    return make


def assert_same(made: CachedFeatures, alone: CachedFeatures) -> None:
    assert (made.images, made.contents, made.problems) == (alone.images, alone.contents, alone.problems)
    for name in SETS:
        assert np.ptp(alone.sets[name].astype(np.float32), axis=0).max() > 0.1, "all photos look the same"
        np.testing.assert_array_equal(made.sets[name], alone.sets[name])


@pytest.mark.parametrize("shard", [1, 8, 100])
def test_the_features_are_those_of_one_machine(ray: Any, cache: Cache, shard: int) -> None:
    alone = cache(None, "alone")
    seen: list[tuple[int, int]] = []
    with RayExtraction(shard=shard) as extraction:
        made = cache(extraction, advance=lambda done, total: seen.append((done, total)))
    assert_same(made, alone)
    assert len(made.problems) == 1 and "05b.png" in made.problems[0]
    assert seen == [(i, 14) for i in range(1, 14)]
    assert ray.is_initialized(), "the cluster was there before"


def test_the_size_and_precision_of_the_extractor_are_the_workers(ray: Any, cache: Cache) -> None:
    settings = Settings(device="cpu", size=168, precision="int8", threads=1)
    made = cache(RayExtraction(), settings=settings)
    assert_same(made, cache(LocalExtraction(), "alone", settings=settings))
    assert made.sets["key"].shape == (13, 144, toy.DIM)


def test_a_shard_whose_worker_is_killed_is_done_again(ray: Any, cache: Cache) -> None:
    alone = cache(None, "alone")
    flag = arm(1)
    made = cache(DeadlyExtraction(shard=2))
    assert not flag.exists(), "no worker was killed"
    assert_same(made, alone)


def test_what_is_done_is_kept(ray: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = cache(None, "alone")
    monkeypatch.setattr(feature_cache, "_FLUSH_EVERY", 2)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache(RayExtraction(shard=2), advance=stop)
    seen: list[int] = []
    made = cache(RayExtraction(shard=2), advance=lambda done, total: seen.append(done))
    assert seen == list(range(5, 14))
    assert_same(made, alone)
    cache(None, advance=lambda done, total: pytest.fail("it is all there"))


def test_what_a_machine_lacks_is_told(ray: Any, backbone: Path, images: Path) -> None:
    whole = backbone.read_bytes()
    with open_bundle(backbone) as bundle:
        extractor = Extractor.open(bundle, Settings(device="cpu"), needs=SETS)
        files = toy.members(tokens=True)
        files |= {name: renamed(graph) for name, graph in files.items() if name.endswith(".onnx")}
        toy.write(backbone, files, toy.manifest(files, tokens=True))
        photos = {"00.png": images / "00.png", "x.png": images / "x.png"}
        with pytest.raises(ExportError, match=r"\[bundle\] .*toy.patchcut is another file here; put the"):
            list(RayExtraction().run(bundle, extractor, photos, SETS))
        backbone.write_bytes(whole)
        with pytest.raises(ExportError, match=r"\[images\] .*x.png cannot be read here; put it where every"):
            list(RayExtraction().run(bundle, extractor, photos, SETS))


def test_where_photos_are_looked_at_has_a_name() -> None:
    with open_extraction("local") as extraction:
        assert isinstance(extraction, LocalExtraction)
    with pytest.raises(OptionError, match=r"\[engine\] must be one of"), open_extraction("spark"):
        pass
    with pytest.raises(OptionError, match=r"\[shard\] must be a whole number from 1"):
        RayExtraction(shard=0)
