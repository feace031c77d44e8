"""An index made on a Ray cluster of two workers, one of which is killed half-way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut.bundle import Bundle, open_bundle
from patchcut.settings import Settings
from patchcut.stages import Extractor
from patchcut_export.progress import StepBar
from patchcut_export.retrieval import embedding
from patchcut_export.retrieval.indexing import IndexRequest, IndexUpdate, update_index
from patchcut_export.training.extraction import Extraction, PhotoFeatures
from patchcut_export.training.ray_extraction import RayExtraction
from tests.export.deadly import DeadlyPath, arm

Update = Callable[..., IndexUpdate]


class DeadlyExtraction(RayExtraction):
    """Who looks at the fourth photo comes."""

    def run(
        self, bundle: Bundle, extractor: Extractor, photos: Mapping[str, Path], sets: Sequence[str]
    ) -> Generator[PhotoFeatures, None, None]:
        name = list(photos)[3]
        return super().run(bundle, extractor, {**photos, name: DeadlyPath(photos[name])}, sets)


@pytest.fixture
def update(
    small_clips: Callable[[str], Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Update:
    """update(out, extraction): an index of the photos, of which one cannot be read."""
    (photos / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr(embedding, "_BATCH", 1)  # as workers do: in a batch sums are rounded otherwise

    def run(out: str, extraction: Extraction | None) -> IndexUpdate:
        settings = Settings(device="cpu", engine="onnxruntime", threads=1)
        with open_bundle(small_clips("vit")) as bundle, StepBar() as bar:
            request = IndexRequest([photos], bundle, tmp_path / out, settings, extraction=extraction)
            return update_index(request, bar)

    return run


@pytest.mark.parametrize("kind", [RayExtraction, DeadlyExtraction])
def test_it_is_that_of_one_machine(ray: Any, update: Update, kind: type[RayExtraction]) -> None:
    alone, flag = update("alone", None), arm(1)
    made = update("made", kind(shard=2, dtype="float32"))
    if kind is DeadlyExtraction:
        assert not flag.exists(), "no worker was killed"
    flag.unlink(missing_ok=True)
    assert made.index.images == alone.index.images and made.added == alone.added > 3
    assert made.problems == alone.problems and "bad.png" in made.problems[0]
    assert np.ptp(np.asarray(alone.index.embeddings, np.float32), axis=0).max() > 0.01, "all look the same"
    np.testing.assert_array_equal(made.index.embeddings, alone.index.embeddings)
    assert update("made", None).added == 0, "it is all there"


def test_a_cluster_that_is_not_there_is_told(
    run_cli: Callable[..., int],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ray = pytest.importorskip("ray", reason="needs patchcut[scale]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    out = tmp_path / "index"
    assert run_cli("export", "index", photos, "--clip", "x.patchcut", "--out", out, "--engine", "ray") == 1
    assert "[engine] no Ray cluster at 127.0.0.1:9" in capfd.readouterr().err
    assert not out.exists()
