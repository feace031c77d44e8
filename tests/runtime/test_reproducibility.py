"""What is equal bit by bit, and what only nearly: the claims of docs/reproducibility.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from patchcut import Result
from patchcut.cli.demo import SAMPLES
from patchcut.heads import FITTED
from patchcut.sources.photos import read_photo

from tests.runtime.results import same

CHOICES: list[dict[str, Any]] = [
    {},
    {"refine": "guided"},
    {"refine": "bilateral"},
    {"mode": "parts"},
    {"mode": "scene"},
    *({"head": head} for head in FITTED),
]


@pytest.fixture(autouse=True)
def kernels_are_restored() -> Iterator[None]:
    threads, isa = kernels.get_threads(), kernels.get_isa()
    yield
    kernels.set_threads(threads)
    kernels.set_isa(isa)


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return read_photo(SAMPLES / "chelsea.jpg")


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_threads_of_the_kernels_do_not_change_a_bit(
    embedded_bundle: Path, cat: np.ndarray, choice: dict[str, Any]
) -> None:
    segmenter = patchcut.load(embedded_bundle, **choice)
    kernels.set_threads(1)
    alone = segmenter(cat)
    for threads in (2, 3, 5, 8):
        kernels.set_threads(threads)
        same(segmenter(cat), alone)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_same_frame_gives_the_same_bits_again(
    embedded_bundle: Path, cat: np.ndarray, choice: dict[str, Any]
) -> None:
    first, second = (patchcut.load(embedded_bundle, **choice) for _ in range(2))
    found = first(cat)
    first(np.ascontiguousarray(cat[::-1, ::2]))
    same(first(cat), found)
    same(second(cat), found)


def agreement(a: Result, b: Result) -> float:
    """Share of the pixels whose column has the same name."""
    return float((np.array(a.labels)[a.label_map] == np.array(b.labels)[b.label_map]).mean())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_instruction_sets_nearly_agree(
    embedded_bundle: Path, cat: np.ndarray, choice: dict[str, Any]
) -> None:
    segmenter = patchcut.load(embedded_bundle, precision="int8", **choice)
    results = []
    for isa in kernels.available_isas():
        kernels.set_isa(isa)
        results.append(segmenter(cat))
    assert len(results[0])
    for result in results[1:]:
        assert agreement(result, results[0]) > 0.999
        np.testing.assert_allclose(result.scores, results[0].scores, atol=1e-3)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(224, 224), (448, 448), (97, 33)])
def test_instruction_sets_give_the_backbone_the_same_bits(
    cat: np.ndarray, fit: Literal["stretch", "letterbox"], size: tuple[int, int]
) -> None:
    """An 8-bit backbone would round otherwise from the first difference on."""
    images = []
    for isa in kernels.available_isas():
        kernels.set_isa(isa)
        mean_std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        images.append(kernels.preprocess(cat, size, *mean_std, fit=fit))
    assert np.ptp(images[0]) > 1
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_threads_of_the_engine_change_little(embedded_bundle: Path, cat: np.ndarray, precision: str) -> None:
    """On the machines that were looked at nothing at all; that is ONNX Runtime's to say."""
    alone = patchcut.load(embedded_bundle, precision=precision, threads=1)(cat)
    for threads in (2, 3, 8):
        result = patchcut.load(embedded_bundle, precision=precision, threads=threads)(cat)
        assert agreement(result, alone) > (0.95 if precision == "int8" else 0.9999)


def test_one_grey_level_changes_little(embedded_bundle: Path, cat: np.ndarray) -> None:
    other = cat.copy()
    other[150, 200, 1] ^= 1
    for precision, least in (("int8", 0.95), ("fp32", 0.9999)):
        segmenter = patchcut.load(embedded_bundle, precision=precision)
        assert agreement(segmenter(cat), segmenter(other)) > least


def test_a_seed_is_all_that_is_random(embedded_bundle: Path, cat: np.ndarray) -> None:
    heads = {seed: f"kmeans:k=7,restarts=1,seed={seed}" for seed in (0, 1)}
    found = {seed: patchcut.load(embedded_bundle, head=head)(cat) for seed, head in heads.items()}
    same(patchcut.load(embedded_bundle, head=heads[0])(cat), found[0])
    assert not np.array_equal(found[0].assignment, found[1].assignment)
