"""What the head learns from, against SciPy and planted objects."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")
linalg = pytest.importorskip("scipy.linalg", reason="needs scipy, an oracle")
metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, an oracle")

from patchcut_export.training.gnn import cosine_affinity
from patchcut_export.training.pseudo_masks import REFINE_SIZE, border_prior, ncut_bipartition, orient, refine


def planted(seed: int, n: int = 36, d: int = 16, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, d] float32 and the side of each row."""
    rng = np.random.default_rng(seed)
    sides = np.zeros(n, bool)
    sides[rng.choice(n, rng.integers(8, 18), replace=False)] = True
    centres = rng.standard_normal((2, d)) + 0.3
    features = centres[sides.astype(int)] + noise * rng.standard_normal((n, d))
    return features.astype(np.float32), sides


def eigenvector_sides(features: np.ndarray, threshold: float) -> np.ndarray:
    """The generalised problem (D - W) y = λ D y as Shi and Malik state it, in float64."""
    rows = features / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    cosine = rows @ rows.T
    weights = np.where(cosine > threshold, cosine, 0)
    degrees = np.diag(weights.sum(1))
    values, vectors = linalg.eigh(degrees - weights, degrees)
    assert values[2] - values[1] > 1e-3, "the second eigenvalue is not single"
    return vectors[:, 1] > vectors[:, 1].mean()


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_bipartition_is_the_second_eigenvector(threshold: float) -> None:
    examples = [planted(seed) for seed in range(5)]
    batch = torch.from_numpy(np.stack([features for features, _ in examples]))
    got = ncut_bipartition(batch, threshold).numpy()
    for row, (features, sides) in zip(got, examples, strict=True):
        expected = eigenvector_sides(features, threshold)
        assert metrics.adjusted_rand_score(row, expected) == 1.0
        assert metrics.adjusted_rand_score(row, sides) == 1.0


def test_bipartition_minds_the_degrees() -> None:
    differs = 0
    for seed in range(8):
        features, _ = planted(seed, noise=1.0)
        affinity = cosine_affinity(torch.from_numpy(features)[None], 0.2)[0].double().numpy()
        degrees = np.diag(affinity.sum(1))
        _, vectors = linalg.eigh(degrees - affinity, degrees)
        root = vectors[:, 1] * np.sqrt(np.diag(degrees))  # what the symmetric problem alone would split
        expected, without = vectors[:, 1] > vectors[:, 1].mean(), root > root.mean()
        got = ncut_bipartition(torch.from_numpy(features)[None], 0.2)[0].numpy()
        assert metrics.adjusted_rand_score(got, expected) == 1.0
        differs += metrics.adjusted_rand_score(expected, without) < 1
    assert differs, "the degrees make no difference here"


def test_permuted_patches_give_permuted_sides() -> None:
    features, _ = planted(3)
    order = np.random.default_rng(0).permutation(len(features))
    straight, permuted = (
        ncut_bipartition(torch.from_numpy(f)[None])[0].numpy() for f in (features, features[order])
    )
    assert metrics.adjusted_rand_score(straight[order], permuted) == 1.0


def test_orient_turns_only_rows_that_disagree() -> None:
    _, first = planted(0)
    _, second = planted(1)
    truth = torch.from_numpy(np.stack([first, second, first, second]))
    sides = truth.clone()
    sides[1], sides[2] = ~sides[1], ~sides[2]
    unsure = 0.5 + 0.1 * (truth.float() - 0.5) + 0.3 * torch.tensor([[0.0], [1.0], [-1.0], [0.0]])
    assert torch.equal(orient(sides, unsure), truth)
    assert torch.equal(orient(truth, unsure), truth)


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A bright disc before a dark ground, [160, 160, 3] uint8, and its mask."""
    rng = np.random.default_rng(0)
    mask = np.zeros((REFINE_SIZE, REFINE_SIZE), np.uint8)
    cv2.circle(mask, (85, 75), 38, 1, -1)
    image = rng.integers(0, 60, (REFINE_SIZE, REFINE_SIZE, 3), np.uint8)
    image[mask > 0] = rng.integers(170, 230, (int(mask.sum()), 3), np.uint8)
    return image, mask


def shares_of(mask: np.ndarray, side: int = 10) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def test_refine_moves_a_rough_mask_onto_the_object(disc: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = disc
    shares = shares_of(mask)
    rough = np.roll(shares, 1, axis=1) * 0.8 + 0.1  # unsure: what the head is sure of stays
    refined = refine(image, rough.astype(np.float32))
    assert refined.shape == (10, 10)
    assert refined.dtype == np.float32
    assert np.abs(rough - shares).mean() > 0.05, "the input is no worse than the truth"
    assert np.abs(refined - shares).mean() < 0.01
    np.testing.assert_array_equal(refine(image, rough.astype(np.float32)), refined)


def test_refine_keeps_an_object_that_is_right(disc: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = disc
    shares = shares_of(mask)
    assert np.abs(refine(image, shares) - shares).mean() < 0.01


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_refine_without_both_sides_is_the_threshold(
    disc: tuple[np.ndarray, np.ndarray], level: float
) -> None:
    np.testing.assert_array_equal(
        refine(disc[0], np.full((6, 8), level, np.float32)), np.full((6, 8), level > 0.5)
    )


@pytest.mark.parametrize("grid_hw", [(6, 6), (5, 8)])
def test_the_column_inside_wins(grid_hw: tuple[int, int]) -> None:
    inside = torch.zeros(grid_hw)
    inside[1:-1, 2:-1] = 1
    foreground = 0.1 + 0.8 * inside.flatten()
    assignment = torch.stack([1 - foreground, foreground], dim=-1).expand(3, -1, -1)
    prior = border_prior(assignment, grid_hw)
    assert prior.shape == (2,)
    assert prior.argmax() == 1
    torch.testing.assert_close(prior[0], -prior[1])
    assert border_prior(assignment.flip(-1), grid_hw).argmax() == 0
