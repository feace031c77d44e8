"""What commands take to load a segmenter reaches `patchcut.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import patchcut
import pytest
from patchcut.cli.load_options import LoadOptions
from patchcut.heads import CcHead, KMeansHead

GIVEN: dict[str, Any] = {
    "bundle": Path("x.patchcut"),
    "engine": "mine",
    "device": "cuda",
    "precision": "fp16",
    "size": 448,
    "mode": "scene",
    "refine": "bilateral",
    "min_score": 0.25,
    "nothing_below": 0.5,
    "single": True,
    "threads": 3,
}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `patchcut.load` was called with last."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(patchcut, "load", lambda bundle, **options: given.update(bundle=bundle, **options))
    return given


def test_every_option_reaches_the_segmenter(loaded: dict[str, Any]) -> None:
    settings = {"alpha": 5.0, "seed": None}
    LoadOptions(**GIVEN, head="cc", head_settings=settings, parts="kmeans", parts_k=6).load()
    assert loaded == {**GIVEN, "head": CcHead(alpha=5.0), "parts": KMeansHead(k=6)}


def test_a_number_of_parts_alone_is_of_kmeans(loaded: dict[str, Any]) -> None:
    LoadOptions(parts_k=3).load()
    assert (loaded["head"], loaded["parts"]) == ("auto", KMeansHead(k=3))


def test_nothing_given_is_the_segmenters_own(loaded: dict[str, Any]) -> None:
    LoadOptions().load()
    assert (loaded["bundle"], loaded["head"], loaded["parts"]) == (None, "auto", "auto")
