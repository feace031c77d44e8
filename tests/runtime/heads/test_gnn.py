from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from patchcut import BundleError, EngineError, OptionError, open_bundle
from patchcut.heads import HEADS, Head, choose_head, open_head
from patchcut_kernels import reference

from tests.runtime import toy_bundle as toy
from tests.runtime.patches import features_of
from tests.runtime.toy_bundle import toy_weights


@pytest.fixture
def head(toy_bundle: Path) -> Head:
    with open_bundle(toy_bundle) as bundle:
        return open_head(bundle, choose_head(bundle, "auto"))


def features(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, toy.DIM)).astype(np.float32)


@pytest.mark.parametrize("grid_hw", [(8, 8), (12, 12), (1, 1), (1, 7)])
def test_the_gnn_is_the_reference_with_the_bundles_weights(head: Head, grid_hw: tuple[int, int]) -> None:
    rows = features(grid_hw[0] * grid_hw[1])
    expected = reference.gcn_forward(rows, reference.affinity(rows), toy_weights())
    assert len(rows) == 1 or expected.std(axis=0).max() > 0.05
    np.testing.assert_allclose(head(features_of(rows, grid_hw))[0], expected, atol=2e-5)


def test_rows_lie_on_the_simplex(head: Head) -> None:
    assignment = head(features_of(features(64), (8, 8)))[0]
    assert assignment.shape == (64, 3) and assignment.min() >= 0
    np.testing.assert_allclose(assignment.sum(axis=1), 1, atol=1e-5)


def test_permuted_patches_give_permuted_rows(head: Head) -> None:
    rows, order = features(64), np.random.default_rng(1).permutation(64)
    np.testing.assert_allclose(
        head(features_of(rows[order], (8, 8)))[0], head(features_of(rows, (8, 8)))[0][order], atol=1e-5
    )


def test_edges_matter(toy_bundle: Path, tmp_path: Path) -> None:
    """The affinity's settings reach the kernel."""
    files = toy.members()
    spec = toy.manifest(files)
    spec["heads"][0]["affinity"]["threshold"] = 0.9
    with (
        open_bundle(toy_bundle) as soft,
        open_bundle(toy.write(tmp_path / "x.patchcut", files, spec)) as hard,
    ):
        rows = features(64)
        soft_rows, hard_rows = (
            open_head(bundle, choose_head(bundle, "auto"))(features_of(rows, (8, 8)))[0]
            for bundle in (soft, hard)
        )
    expected = reference.gcn_forward(rows, reference.affinity(rows, threshold=0.9), toy_weights())
    np.testing.assert_allclose(hard_rows, expected, atol=2e-5)
    assert np.abs(hard_rows - soft_rows).max() > 0.05


def test_an_assignment_outlives_the_next_frame(head: Head) -> None:
    first = head(features_of(features(64), (8, 8)))[0]
    kept = first.copy()
    head(features_of(features(64, seed=1), (8, 8)))[0]
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_told(head: Head, value: float) -> None:
    rows = features(64)
    rows[3, 1] = value
    with pytest.raises(EngineError, match=r"\[head\] cannot use the features: .*; .*precision"):
        head(features_of(rows, (8, 8)))[0]


def test_only_features_that_are_not_finite_blame_the_precision(head: Head) -> None:
    with pytest.raises(EngineError, match=r"\[head\] cannot use the features: .*; export the bundle again"):
        head(features_of(features(64)[:, :-1], (8, 8)))[0]


def test_a_gnn_takes_no_signed_affinity(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    spec["heads"][0]["affinity"]["mode"] = "cc"
    with (
        open_bundle(toy.write(tmp_path / "x.patchcut", files, spec)) as bundle,
        pytest.raises(BundleError, match=r'a "gnn" head needs an affinity of mode "ncut", it has "cc"'),
    ):
        open_head(bundle, choose_head(bundle, "auto"))


def test_labels_are_the_bundles(head: Head) -> None:
    assert head.labels == toy.LABELS and head.name == "gnn" and "gnn" in HEADS


@pytest.mark.parametrize(
    ("head", "command"),
    [
        ("levels", "patchcut export levels"),
        ("clusters", "patchcut export levels --dataset-only"),
        ("prototypes", "patchcut export levels --dataset-only"),
    ],
)
def test_a_bundle_without_a_known_head_says_what_makes_one(tmp_path: Path, head: str, command: str) -> None:
    with open_bundle(toy.write(tmp_path / "toy.patchcut")) as bundle, pytest.raises(OptionError) as told:
        choose_head(bundle, head)
    assert str(told.value) == f'[head] {bundle.path} holds "gnn", got "{head}"; `{command}` makes one'


def test_a_backbone_alone_says_what_makes_the_head_that_was_asked_for(tmp_path: Path) -> None:
    files = toy.members()
    path = toy.write(tmp_path / "toy.patchcut", files, {**toy.manifest(files), "heads": []})
    with open_bundle(path) as bundle:
        for head, remedy in (
            ("gnn", "`patchcut export train` makes one"),
            ("auto", "which need no training"),
        ):
            with pytest.raises(BundleError, match=f"holds a backbone and no head; .*{remedy}"):
                choose_head(bundle, head)
