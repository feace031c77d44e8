from __future__ import annotations

from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import EngineError, Frame
from patchcut.stages import Extractor


@pytest.fixture(scope="module")
def extractor(toy_bundle: Path) -> Extractor:
    return patchcut.load(toy_bundle).extractor


def test_features_of_a_frame(extractor: Extractor) -> None:
    features = extractor([Frame(np.zeros((40, 60, 3), np.uint8))])
    n = features.grid_hw[0] * features.grid_hw[1]
    assert features.default.shape[:2] == (1, n)


@pytest.mark.parametrize("count", ["none", "too many"])
def test_the_number_of_frames_is_checked(extractor: Extractor, count: str) -> None:
    largest = extractor.engine.facts.max_batch
    frames = [Frame(np.zeros((4, 6, 3), np.uint8))] * (0 if count == "none" else largest + 1)
    with pytest.raises(
        EngineError, match=rf"\[extractor\] takes 1 to {largest} frames at once, got {len(frames)}"
    ):
        extractor(frames)
