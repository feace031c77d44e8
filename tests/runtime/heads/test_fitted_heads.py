"""Heads that are fitted to each frame: planted objects are found, and column 0 is the background."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import patchcut
import patchcut_kernels as kernels
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from patchcut import EngineError, Features, OptionError
from patchcut.heads import FITTED, CcHead, FittedHead, GnnFitHead, KMeansHead, NcutHead, parse_head
from patchcut.heads.fitted import background_first
from patchcut_kernels import reference

from tests.runtime import toy_bundle as toy
from tests.runtime.patches import GRID, features_of, planted

SURE_HEADS = [
    GnnFitHead(steps=40, dropout=0.0),
    GnnFitHead(k=6, loss="cc", kind="cosine", steps=40, learning_rate=0.01, dropout=0.0),
    CcHead(),
    NcutHead(),
    NcutHead(rule="seed"),
    NcutHead(threshold=0.0, binary=False),
    KMeansHead(),
    KMeansHead(metric="euclidean"),
]
# DeepCut's ten steps are few for features of so few dimensions.
EVERY_HEAD = [*SURE_HEADS, CcHead(solver="gnn")]


def one_object() -> np.ndarray:
    """[8, 10] of 0 and 1: an object of 4 x 4 patches before a background."""
    regions = np.zeros(GRID, np.int64)
    regions[2:6, 4:8] = 1
    return regions


def noise_rows(n: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, toy.DIM)).astype(np.float32)


@pytest.mark.parametrize("head", SURE_HEADS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_object_is_the_foreground(head: FittedHead, seed: int) -> None:
    regions = one_object()
    assignment = head(features_of(planted(regions, seed), GRID))[0]
    assert assignment.dtype == np.float32 and 2 <= assignment.shape[1] <= len(head.labels)
    np.testing.assert_allclose(assignment.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(assignment.argmax(axis=1) > 0, regions.ravel() == 1)


@pytest.mark.parametrize("head", [CcHead(), KMeansHead(k=3)], ids=str)
def test_each_object_is_a_column_and_larger_ones_come_first(head: FittedHead) -> None:
    regions = np.zeros(GRID, np.int64)
    regions[1:3, 1:4] = 1
    regions[4:7, 3:9] = 2
    labels = head(features_of(planted(regions), GRID))[0].argmax(axis=1)
    np.testing.assert_array_equal(labels, np.array([0, 2, 1])[regions.ravel()])


def test_the_number_of_clusters_is_found() -> None:
    regions = np.arange(80).reshape(GRID) // 10 // 2  # four bands
    regions[2:6, 2:8] += 4
    rows = planted(regions)
    assert len(np.unique(CcHead().cluster(rows).argmax(axis=1))) == len(np.unique(regions)) == 6
    assert CcHead(max_clusters=4).cluster(rows).shape[1] <= 4


def test_alpha_says_how_alike_patches_of_a_cluster_are() -> None:
    rows = noise_rows()
    counts = [CcHead(alpha=alpha, max_clusters=64).cluster(rows).shape[1] for alpha in (1.5, 5.0, 1000.0)]
    assert counts[0] > counts[1] > counts[2] >= 1


def test_moves_find_the_better_objective() -> None:
    for seed in range(5):
        rows = noise_rows(seed=seed)
        affinity = reference.affinity(rows, mode="cc", alpha=3.0)
        kept = [
            np.einsum("ic,ij,jc", hard, affinity, hard)
            for hard in (_hard(CcHead(solver=solver).cluster(rows)) for solver in ("moves", "gnn"))
        ]
        assert kept[0] >= kept[1]


def test_the_network_of_cc_has_its_settings() -> None:
    rows = noise_rows()
    ours = CcHead(alpha=2.0, solver="gnn", max_clusters=5, seed=3).cluster(rows)
    expected = GnnFitHead(k=5, loss="cc", kind="cosine", alpha=2.0, seed=3).cluster(rows)
    np.testing.assert_array_equal(ours, expected)


def test_kmeans_keeps_the_best_of_its_restarts() -> None:
    rows = noise_rows()
    once, often = (KMeansHead(k=8, restarts=restarts).cluster(rows) for restarts in (1, 50))
    for found, restarts in ((once, 1), (often, 50)):
        labels = kernels.kmeans(rows, 8, metric="cosine", restarts=restarts, seed=0).labels
        np.testing.assert_array_equal(found.argmax(axis=1), labels)
    assert np.any(once != often)


@pytest.mark.parametrize("binary", [True, False])
def test_the_rule_of_the_seed_is_tokencuts(binary: bool) -> None:
    rows, masks = noise_rows(80), []
    for threshold in (0.0, 0.3):
        settings = {"threshold": threshold, "binary": binary, "seed": 5}
        masks.append(kernels.bipartition(rows, GRID, **settings).mask.ravel())
        found = NcutHead(rule="seed", **settings).assign(rows, GRID)
        np.testing.assert_array_equal(found.argmax(axis=1), masks[-1])
    assert np.any(masks[0] != masks[1])


def test_both_sides_of_a_cut_have_a_patch_that_is_sure() -> None:
    assignment = NcutHead().cluster(planted(one_object()))
    np.testing.assert_allclose(assignment.max(axis=0), 1, atol=1e-6)


def _hard(assignment: np.ndarray) -> np.ndarray:
    return np.eye(assignment.shape[1])[assignment.argmax(axis=1)]


@pytest.mark.parametrize(
    "head",
    [
        GnnFitHead(),
        GnnFitHead(k=3, kind="cosine", steps=4, learning_rate=0.02, seed=7),
        GnnFitHead(k=5, loss="cc", alpha=2.0, dropout=0.5),
    ],
    ids=str,
)
def test_a_fitted_gnn_is_the_reference(head: GnnFitHead) -> None:
    rows = noise_rows()
    affinity = reference.affinity(rows, kind=head.kind, mode=head.loss, alpha=head.alpha)
    rates = {"learning_rate": head.learning_rate, "dropout": head.dropout}
    expected, _, _ = reference.gnn_fit(
        rows, affinity, head.k, loss=head.loss, steps=head.steps, seed=head.seed, **rates
    )
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(head.cluster(rows), expected, atol=1e-3)


def test_the_settings_of_a_cut_reach_the_kernel() -> None:
    rows = planted(one_object(), noise=1.5)
    for head in (NcutHead(), NcutHead(threshold=0.3), NcutHead(threshold=0.0, binary=False)):
        weights = reference.cut_graph(rows, threshold=head.threshold, binary=head.binary)
        _, vectors = reference.cut_vectors(weights, 1)
        above = vectors[:, 0] > vectors[:, 0].mean()
        found = head.cluster(rows)[:, 1] > 0.5
        assert 0.1 < above.mean() < 0.9
        assert np.mean(found == above) > 0.97


def test_tokencuts_rule_is_the_kernels() -> None:
    rows = planted(one_object(), noise=2.0)
    expected = kernels.bipartition(rows, GRID, threshold=0.2)
    found = NcutHead(rule="seed").assign(rows, GRID)
    np.testing.assert_array_equal(found[:, 1], expected.mask.ravel())
    assert 0 < expected.mask.mean() < 1


@pytest.mark.parametrize("head", EVERY_HEAD, ids=str)
def test_a_seed_gives_the_same_bits(head: FittedHead) -> None:
    rows = noise_rows()
    first = head(features_of(rows, (8, 8)))[0]
    kept = first.copy()
    np.testing.assert_array_equal(head(features_of(noise_rows(seed=1), (8, 8)))[0].shape[0], 64)
    np.testing.assert_array_equal(head(features_of(rows, (8, 8)))[0], kept)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("head", [GnnFitHead(), CcHead(solver="gnn")], ids=str)
def test_another_seed_gives_another_network(head: Any) -> None:
    rows = noise_rows()
    other = type(head)(**{**vars(head), "seed": 1})
    assert np.abs(head.cluster(rows) - other.cluster(rows)).max() > 1e-3


DEGENERATE = {
    "alike": np.ones((64, toy.DIM), np.float32),
    "zeros": np.zeros((64, toy.DIM), np.float32),
    "two points": np.repeat(np.eye(2, toy.DIM, dtype=np.float32), 32, axis=0),
}


@pytest.mark.parametrize("head", EVERY_HEAD, ids=str)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_features_give_a_valid_assignment(head: FittedHead, name: str) -> None:
    check_valid(head(features_of(DEGENERATE[name], (8, 8)))[0], 64)


@pytest.mark.parametrize("head", [*EVERY_HEAD, KMeansHead(k=20), CcHead(max_clusters=200)], ids=str)
@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 2), (1, 7), (2, 2), (3, 3)])
def test_tiny_grids_give_a_valid_assignment(head: FittedHead, grid_hw: tuple[int, int]) -> None:
    n = grid_hw[0] * grid_hw[1]
    check_valid(head(features_of(noise_rows(n), grid_hw))[0], n)


def check_valid(assignment: np.ndarray, n: int) -> None:
    assert assignment.shape[0] == n and assignment.shape[1] >= 2
    assert np.isfinite(assignment).all() and assignment.min() >= 0
    np.testing.assert_allclose(assignment.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("head", EVERY_HEAD, ids=str)
def test_features_that_are_not_finite_blame_the_precision(head: FittedHead) -> None:
    rows = noise_rows()
    rows[3, 1] = np.nan
    with pytest.raises(EngineError, match=r"\[head\] cannot use the features: .*; .*precision"):
        head(features_of(rows, (8, 8)))[0]


def from_labels(labels: list[list[int]], columns: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A sure, yet soft assignment with these winners, and its grid."""
    winners = np.array(labels)
    assignment = np.full((winners.size, columns), 0.3 / columns, np.float32)
    assignment[np.arange(winners.size), winners.ravel()] += 0.7
    return assignment, (winners.shape[0], winners.shape[1])


RULES: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "what is more at the border than inside": (
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
    "the columns the other way round": (
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
    "an object that touches the border": (
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
    ),
    "sky and ground are one background": (
        [[2, 2, 2, 2], [2, 0, 0, 2], [1, 0, 0, 1], [1, 1, 1, 1]],
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
    ),
    "larger objects first": (
        [[0, 0, 0, 0, 0], [0, 1, 3, 3, 0], [0, 1, 3, 3, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [0, 2, 1, 1, 0], [0, 2, 1, 1, 0], [0, 0, 0, 0, 0]],
    ),
    "of equal objects the first in reading order": (
        [[3, 3, 3, 3], [3, 2, 1, 3], [3, 2, 1, 3], [3, 3, 3, 3]],
        [[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 2, 0], [0, 0, 0, 0]],
    ),
    "all alike": ([[1, 1, 1]] * 3, [[0, 0, 0]] * 3),
    "no inside": ([[0, 1, 1, 1]], [[1, 0, 0, 0]]),
}


@pytest.mark.parametrize(("labels", "expected"), RULES.values(), ids=RULES.keys())
def test_column_0_is_the_background(labels: list[list[int]], expected: list[list[int]]) -> None:
    assignment, grid_hw = from_labels(labels, 5)
    found = background_first(assignment, grid_hw)
    np.testing.assert_array_equal(found.argmax(axis=1).reshape(grid_hw), expected)
    assert found.shape[1] == max(2, 1 + np.max(expected)), "columns that win no patch are left out"
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_where_no_cluster_is_at_the_border_the_largest_is_background() -> None:
    checker = (np.indices((6, 6)).sum(axis=0) % 2).tolist()  # as much of both at the border as inside
    assignment, grid_hw = from_labels(checker, 2)
    assert background_first(assignment, grid_hw).shape == (36, 2)


@given(
    assignment=hnp.arrays(np.float32, (20, 4), elements=st.floats(1 / 128, 1, width=32)),
    order=st.permutations(range(4)),
)
def test_the_order_of_clusters_does_not_matter(assignment: np.ndarray, order: list[int]) -> None:
    top = np.sort(assignment, axis=1)
    assignment[top[:, -1] == top[:, -2], 0] += 1  # no ties: of two largest columns the first wins
    assignment /= assignment.sum(axis=1, keepdims=True)
    found = background_first(assignment, (4, 5))
    np.testing.assert_allclose(background_first(assignment[:, order], (4, 5)), found, atol=1e-6)


BAD_SETTINGS: list[tuple[type[FittedHead], dict[str, Any], str]] = [
    (KMeansHead, {"k": 1}, r"\[k\] must be a whole number from 2 to 256, got 1"),
    (KMeansHead, {"k": 2.0}, r"\[k\] must be a whole number"),
    (KMeansHead, {"k": True}, r"\[k\]"),
    (KMeansHead, {"metric": "dot"}, r"\[metric\] must be one of \"cosine\", \"euclidean\", got 'dot'"),
    (KMeansHead, {"restarts": 0}, r"\[restarts\]"),
    (KMeansHead, {"seed": -1}, r"\[seed\] must be a whole number from 0 to"),
    (CcHead, {"alpha": 0}, r"\[alpha\] must be a number from 1e-06 to 1e\+06, got 0"),
    (CcHead, {"alpha": float("nan")}, r"\[alpha\]"),
    (CcHead, {"alpha": "3"}, r"\[alpha\]"),
    (CcHead, {"solver": "exact"}, r"\[solver\] must be one of \"moves\", \"gnn\""),
    (CcHead, {"max_clusters": 257}, r"\[max_clusters\]"),
    (NcutHead, {"rule": "largest"}, r"\[rule\] must be one of \"border\", \"seed\""),
    (NcutHead, {"threshold": -0.1}, r"\[threshold\] must be a number from 0 to 1"),
    (GnnFitHead, {"loss": "mse"}, r"\[loss\] must be one of \"ncut\", \"cc\""),
    (GnnFitHead, {"kind": "l2"}, r"\[kind\]"),
    (GnnFitHead, {"steps": 0}, r"\[steps\]"),
    (GnnFitHead, {"learning_rate": 0.0}, r"\[learning_rate\]"),
    (GnnFitHead, {"dropout": 1.0}, r"\[dropout\] must be a number from 0 to 0.99, got 1.0"),
]


@pytest.mark.parametrize(("kind", "settings", "said"), BAD_SETTINGS)
def test_a_setting_out_of_range_is_told(kind: type[FittedHead], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        kind(**settings)


WORDS: list[tuple[str, FittedHead]] = [
    ("cc", CcHead()),
    ("cc:", CcHead()),
    ("cc:alpha=5", CcHead(alpha=5.0)),
    ("cc:alpha=5,solver=gnn,kind=dot,max_clusters=7,seed=3", CcHead(5.0, "gnn", "dot", 7, 3)),
    ("kmeans: k = 6 , metric = euclidean", KMeansHead(k=6, metric="euclidean")),
    ("ncut:binary=false,rule=seed,threshold=0.1", NcutHead("seed", 0.1, False)),
    (
        "gnn-fit:k=3,loss=cc,kind=cosine,alpha=2,steps=4,learning_rate=1e-2,dropout=0,seed=9",
        GnnFitHead(3, "cc", "cosine", 2.0, 4, 0.01, 0.0, 9),
    ),
]


@pytest.mark.parametrize(("words", "head"), WORDS)
def test_words_reach_every_setting_of_a_head(words: str, head: FittedHead) -> None:
    assert parse_head(words) == head
    assert parse_head(str(head)) == head, "a head's text is its words"


def test_every_setting_of_every_head_is_in_those_words() -> None:
    told = {(type(head), key) for words, head in WORDS for key in re.findall(r"(\w+) ?=", words)}
    there = {(kind, field.name) for kind in FITTED.values() for field in fields(cast("Any", kind))}
    assert there - told == {(KMeansHead, "restarts"), (KMeansHead, "seed"), (NcutHead, "seed")}


BAD_WORDS = [
    ("cc:beta=3", r'\[head\] "cc" has no setting "beta", it has alpha, solver, kind, max_clusters, seed'),
    ("cc:alpha", r'\[head\] must give "alpha" of "cc" a value, got \'alpha\'; alpha=VALUE'),
    ("cc:alpha=", r'\[head\] "cc": alpha must be a number from 1e-06 to 1e\+06, got \'\''),
    ("cc:alpha=many", r'\[head\] "cc": alpha must be a number from .*, got \'many\''),
    ("kmeans:k=1", r'\[head\] "kmeans": k must be a whole number from 2 to 256, got 1'),
    ("kmeans:k=2.5", r'\[head\] "kmeans": k must be a whole number from 2 to 256, got \'2.5\''),
    ("ncut:binary=maybe", r'\[head\] "ncut": binary must be True or False, got \'maybe\''),
    ("cc:alpha=2,alpha=3", r'\[head\] gives "alpha" of "cc" twice'),
    ("gnn:k=3", r'\[head\] "gnn" has no settings; the heads that have some are gnn-fit, cc, ncut, kmeans'),
]


@pytest.mark.parametrize(("words", "said"), BAD_WORDS)
def test_words_that_are_wrong_are_told(words: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_head(words)
    with pytest.raises(OptionError, match=said.replace("head", "parts", 1)):
        parse_head(words, "parts")


def test_names_of_columns() -> None:
    assert KMeansHead().labels == NcutHead().labels == ("background", "foreground")
    assert CcHead(max_clusters=3).labels == ("background", "cluster 1", "cluster 2")


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_head_runs_on_a_bundle_without_one(tmp_path: Path, photo: np.ndarray, name: str) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    path = toy.write(tmp_path / "x.patchcut", files, {**spec, "heads": []})
    segmenter = patchcut.load(path, head=name)
    result = segmenter(photo)
    assert segmenter.describe().head == segmenter.head == FITTED[name]()
    assert len(result.labels) == result.assignment.shape[1]


def test_a_head_with_settings_is_described(toy_bundle: Path, photo: np.ndarray) -> None:
    segmenter = patchcut.load(toy_bundle, head=CcHead(alpha=2.5))
    described = segmenter.describe()
    assert described.head == CcHead(alpha=2.5) and described.to_dict()["head"] == "cc:alpha=2.5"
    assert re.search(r"^head +cc:alpha=2.5$", str(described), re.M)
    result = segmenter(photo)
    assert result.labels == ("background", *(f"cluster {i}" for i in range(1, result.assignment.shape[1])))


def test_a_head_of_ones_own(toy_bundle: Path, photo: np.ndarray) -> None:
    class LeftHalf:
        name = "left half"
        labels = ("background", "left")
        needs = ()
        devices = ("cpu",)

        def __call__(self, features: Features) -> np.ndarray:
            rows, columns = features.grid_hw
            left = np.repeat([1, 0], columns // 2)[None].repeat(rows, 0).ravel()
            return np.stack([1 - left, left], axis=1).astype(np.float32)[None]

    segmenter = patchcut.load(toy_bundle, head=LeftHalf())
    np.testing.assert_array_equal(segmenter(photo).boxes, [[0, 0, 320, 427]])
    assert segmenter.describe().head == "left half"


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"devices": ("cuda",)}, {}, r'\[head\] "own" runs on cuda, its features are on cpu'),
        ({"devices": ()}, {}, r'\[head\] "own" runs on no device, its features are on cpu'),
        ({"devices": ("cuda",)}, {"mode": "parts"}, r'\[parts\] "own" runs on cuda, its features are on cpu'),
        ({"name": "own:1"}, {}, r"\[head\] must have a name without a colon, got 'own:1'"),
        ({"needs": ("value",)}, {}, r"\[head\] needs the features value, the backbone has key"),
    ],
    ids=str,
)
def test_a_head_of_ones_own_that_cannot_run_is_told_when_it_is_loaded(
    toy_bundle: Path, changes: dict[str, Any], settings: dict[str, str], said: str
) -> None:
    attributes = {"name": "own", "labels": ("background", "x"), "needs": (), "devices": ("cpu",), **changes}
    own = type("Own", (), {**attributes, "__call__": lambda self, features: features.default})()
    heads = {"parts" if settings else "head": own}
    with pytest.raises(OptionError, match=said):
        patchcut.load(toy_bundle, **heads, **settings)


def test_an_assignment_that_is_not_finite_is_told(toy_bundle: Path, photo: np.ndarray) -> None:
    class Broken:
        name, labels, needs, devices = "broken", ("background", "x"), (), ("cpu",)

        def __call__(self, features: Features) -> np.ndarray:
            return np.full((features.batch, features.default.shape[1], 2), np.nan, np.float32)

    with pytest.raises(EngineError, match=r"\[head\] the assignment is not finite; the backbone overflows"):
        patchcut.load(toy_bundle, head=Broken())(photo)
