from __future__ import annotations

from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut.bundle import EMBEDDED
from sklearn.datasets import load_sample_image

from tests.runtime import toy_bundle as toy


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a small bundle with two sizes, int8 and fp32, and three labels."""
    return toy.write(tmp_path_factory.mktemp("bundle") / "toy.patchcut")


@pytest.fixture(scope="session")
def toy_segmenter(toy_bundle: Path) -> patchcut.Segmenter:
    return patchcut.load(toy_bundle)


@pytest.fixture(scope="session")
def embedded_bundle() -> Path:
    """Path of the bundle that ships with the package."""
    assert EMBEDDED.is_file(), f"the embedded bundle is missing: {EMBEDDED}"
    return EMBEDDED


@pytest.fixture(scope="session")
def embedded_segmenter(embedded_bundle: Path) -> patchcut.Segmenter:
    return patchcut.load(embedded_bundle)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """[427, 640, 3] uint8 BGR: a flower before leaves."""
    return np.ascontiguousarray(load_sample_image("flower.jpg")[..., ::-1])


@pytest.fixture(scope="session")
def second_photo() -> np.ndarray:
    """[427, 640, 3] uint8 BGR: a temple under a sky."""
    return np.ascontiguousarray(load_sample_image("china.jpg")[..., ::-1])
