from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import patchcut
import pytest
from patchcut import Segmenter
from patchcut.cli.demo import SAMPLES


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that opens at once."""
    pytest.importorskip("onnx", reason="the toy bundle is made with onnx")
    from tests.runtime import toy_bundle

    return toy_bundle.write(tmp_path_factory.mktemp("ros") / "toy.patchcut")


@pytest.fixture(scope="session")
def seg(toy: Path) -> Segmenter:
    return patchcut.load(toy, device="cpu", threads=1)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """[120, 160, 3] uint8, BGR."""
    found = cv2.imread(str(SAMPLES / "astronaut.jpg"))
    assert found is not None
    return cv2.resize(found, (160, 120), interpolation=cv2.INTER_AREA)
