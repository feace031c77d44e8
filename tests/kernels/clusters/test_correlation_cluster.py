from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference

KINDS = ("normal", "signs", "signs and zeros", "heavy tails", "low rank", "repulsive", "attractive")


def signed_graphs(rng: np.random.Generator, kind: str, count: int, n: int) -> np.ndarray:
    """[count, n, n] float32, symmetric."""
    shape = (count, n, n)
    if kind == "low rank":
        rows = rng.standard_normal((count, n, 3))
        weights = rows @ rows.transpose(0, 2, 1)
    elif kind == "heavy tails":
        weights = rng.standard_t(1.2, shape)
    elif kind.startswith("signs"):
        weights = rng.choice([-1.0, 1.0, 0.0][: 2 + ("zeros" in kind)], shape)
    else:
        weights = rng.standard_normal(shape) + {"repulsive": -0.5, "attractive": 0.5}.get(kind, 0.0)
    upper = np.triu(weights, 1)
    return (upper + upper.transpose(0, 2, 1)).astype(np.float32)


def objective_of(affinity: np.ndarray, labels: np.ndarray) -> float:
    together = labels[:, None] == labels
    return float(np.triu(affinity.astype(np.float64) * together, 1).sum())


def all_partitions(n: int) -> np.ndarray:
    """[count, n] labels, each partition once."""
    partitions = [[0]]
    for _ in range(n - 1):
        partitions = [[*p, c] for p in partitions for c in range(max(p) + 2)]
    return np.array(partitions)


def assert_valid(affinity: np.ndarray, got: pk.CorrelationClustering) -> None:
    assert got.labels.dtype == np.int32
    _, first = np.unique(got.labels, return_index=True)
    assert len(first) == got.k
    assert list(first) == sorted(first), "labels are numbered by their first nodes"
    scale = float(np.abs(affinity).sum()) + 1e-30
    assert float(got.objective) == pytest.approx(objective_of(affinity, got.labels), abs=1e-6 * scale)


def assert_no_move_gains(affinity: np.ndarray, labels: np.ndarray) -> None:
    """No node, and no union of two clusters."""
    weights = (affinity + affinity.T).astype(np.float64) / 2
    np.fill_diagonal(weights, 0)
    members = np.eye(labels.max() + 1)[labels]
    common = weights @ members
    own = common[np.arange(len(labels)), labels]
    slack = 1e-5 * np.abs(weights).sum(1).max() + 1e-12
    assert (common <= own[:, None] + slack).all()
    assert (own >= -slack).all(), "a node would rather be alone"
    between = members.T @ common
    assert (between[~np.eye(len(between), dtype=bool)] <= slack * len(labels)).all()


@cache
def solved_graph(
    kind: str, n: int, max_clusters: int, seed: int
) -> tuple[np.ndarray, pk.CorrelationClustering]:
    """A graph and its clustering by the reference, once for all instruction sets."""
    affinity = signed_graphs(np.random.default_rng(n), kind, 1, n)[0]
    return affinity, reference.correlation_cluster(affinity, max_clusters=max_clusters, seed=seed)


# Rows are padded to 16, blocks are of 32 threads and more.
@pytest.mark.parametrize(
    ("n", "kind"),
    [(n, kind) for n in (1, 2, 3, 7, 16, 17) for kind in KINDS]
    + [(n, kind) for n in (33, 65) for kind in ("normal", "repulsive")],
)
def test_equals_reference(ops, n, kind):
    for max_clusters, seed in ((64, 0), (3, 2**63), (1, 5)):
        affinity, want = solved_graph(kind, n, max_clusters, seed)
        got = ops.correlation_cluster(affinity, max_clusters=max_clusters, seed=seed)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert got.k == want.k <= max_clusters
        assert got.objective == want.objective
        assert_valid(affinity, got)


def test_real_size_equals_reference(isa, rng):
    features = rng.standard_normal((5, 64))[rng.integers(0, 5, 400)] + rng.standard_normal((400, 64))
    affinity = pk.affinity(features.astype(np.float32), mode="cc", alpha=4.0)
    got, want = pk.correlation_cluster(affinity), reference.correlation_cluster(affinity)
    np.testing.assert_array_equal(got.labels, want.labels)
    assert got.k == 5
    assert_no_move_gains(affinity, got.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_finds_the_optimum_of_seven_nodes(rng, kind):
    """Against each of the 877 partitions."""
    graphs = signed_graphs(rng, kind, 3000, 7)
    pairs = np.triu_indices(7, 1)
    partitions = all_partitions(7)
    assert len(partitions) == 877
    together = (partitions[:, pairs[0]] == partitions[:, pairs[1]]).astype(np.float64)
    best = (graphs[:, pairs[0], pairs[1]].astype(np.float64) @ together.T).max(1)
    got = pk.correlation_cluster(graphs)
    scale = np.abs(graphs).sum((1, 2))
    assert np.ptp(best / scale) > 0.1
    np.testing.assert_array_less(best - got.objective, 1e-6 * scale)


def test_finds_the_optimum_of_integer_programming(rng):
    """Twelve nodes, exactly solved: a variable for each pair, an inequality for each triangle."""
    optimize = pytest.importorskip("scipy.optimize")
    n = 12
    pairs = list(combinations(range(n), 2))
    index = {pair: p for p, pair in enumerate(pairs)}
    rows = []
    for i, j, k in combinations(range(n), 3):
        for one, other, third in (
            ((i, j), (j, k), (i, k)),
            ((i, j), (i, k), (j, k)),
            ((i, k), (j, k), (i, j)),
        ):
            row = np.zeros(len(pairs))
            row[[index[one], index[other], index[third]]] = 1, 1, -1
            rows.append(row)
    triangles = optimize.LinearConstraint(np.array(rows), -np.inf, 1)
    for kind in ("normal", "repulsive", "low rank"):
        for affinity in signed_graphs(rng, kind, 3, n):
            weights = affinity[tuple(np.transpose(pairs))]
            solved = optimize.milp(-weights, constraints=triangles, bounds=(0, 1), integrality=1)
            assert float(pk.correlation_cluster(affinity).objective) == pytest.approx(-solved.fun, rel=1e-5)


@pytest.mark.parametrize("kind", ["normal", "repulsive"])
def test_larger_graphs_are_local_optima(isa, rng, kind):
    affinity = signed_graphs(rng, kind, 1, 150)[0]
    got = pk.correlation_cluster(affinity, max_clusters=150)
    assert_valid(affinity, got)
    assert_no_move_gains(affinity, got.labels)


def test_planted_clusters_are_found(isa, rng):
    metrics = pytest.importorskip("sklearn.metrics")
    planted = rng.integers(0, 6, 300)
    signs = np.where(planted[:, None] == planted, 1.0, -1.0)
    affinity = (signs + 1.5 * signed_graphs(rng, "normal", 1, 300)[0]).astype(np.float32)
    got = pk.correlation_cluster(affinity)
    assert got.k == 6
    assert metrics.adjusted_rand_score(planted, got.labels) == 1


@pytest.mark.parametrize("kind", ["normal", "low rank"])
def test_beats_leiden(rng, kind):
    pytest.importorskip("leidenalg")
    from bench.competitors.leiden import make_partition

    affinity = signed_graphs(rng, kind, 1, 120)[0]
    theirs = objective_of(affinity, make_partition(affinity)())
    ours = float(pk.correlation_cluster(affinity).objective)
    assert ours >= theirs * (1 - 1e-6)
    assert (ours > theirs * 1.02) == (kind == "normal"), "where it is hard, by far"


@pytest.mark.parametrize("alpha", [2.0, 3.0])
def test_beats_the_loss_of_the_fitted_gnn_on_real_features(real_features, alpha):
    affinity = pk.affinity(real_features, mode="cc", alpha=alpha)
    ours = float(pk.correlation_cluster(affinity).objective)
    fits = [pk.gnn_fit(real_features, affinity, 10, loss="cc", steps=100, seed=seed) for seed in range(4)]
    theirs = max(objective_of(affinity, fit.assignment.argmax(1)) for fit in fits)
    assert theirs > 0
    assert ours > theirs
    # The loss of a soft assignment, -Tr(S^T W S), is no better than that of the best hard one either.
    losses = [float(fit.losses.min()) for fit in fits]
    assert -(2 * ours + np.trace(affinity)) < min(losses)


def test_disconnected_graphs_fall_apart(ops):
    blocks = np.kron(np.eye(4), np.ones((5, 5))).astype(np.float32)
    got = ops.correlation_cluster(blocks)
    np.testing.assert_array_equal(got.labels, np.repeat(np.arange(4), 5))
    assert got.objective == 40
    nothing = ops.correlation_cluster(np.zeros((9, 9), np.float32))
    assert nothing.k == 9
    assert nothing.objective == 0


def test_all_alike_and_all_apart(ops):
    ones = np.ones((70, 70), np.float32)
    assert ops.correlation_cluster(ones).k == 1
    assert ops.correlation_cluster(ones).objective == 70 * 69 / 2
    assert ops.correlation_cluster(-ones, max_clusters=100).k == 70
    limited = ops.correlation_cluster(-ones)
    assert limited.k == 64
    assert limited.objective == -6  # six pairs share


def test_the_limit_binds(ops, rng):
    planted = rng.integers(0, 9, 36)
    affinity = np.where(planted[:, None] == planted, 1.0, -1.0).astype(np.float32)
    objectives = []
    for max_clusters in (1, 2, 4, 9, 20):
        got = ops.correlation_cluster(affinity, max_clusters=max_clusters)
        assert got.k == min(max_clusters, 9)
        objectives.append(float(got.objective))
    assert objectives == sorted(objectives)
    assert objectives[0] < objectives[2] < objectives[3] == objectives[4]


def test_the_diagonal_has_no_meaning_and_a_pair_counts_by_its_mean(ops, rng):
    affinity = signed_graphs(rng, "normal", 1, 18)[0]
    want = ops.correlation_cluster(affinity)
    skewed = affinity + np.triu(np.ones((18, 18), np.float32), 1) - np.tril(np.ones((18, 18), np.float32), -1)
    skewed[np.diag_indices(18)] = rng.standard_normal(18) * 100
    got = ops.correlation_cluster(skewed)
    np.testing.assert_array_equal(got.labels, want.labels)
    assert float(got.objective) == pytest.approx(float(want.objective), rel=1e-5)


@pytest.mark.parametrize("factor", [1e-37, 1e-20, 1e-3, 1e10, 1e36])
def test_the_scale_has_no_meaning(ops, rng, factor):
    affinity = signed_graphs(rng, "signs and zeros", 1, 16)[0]
    want = ops.correlation_cluster(affinity)
    got = ops.correlation_cluster(affinity * np.float32(factor))
    np.testing.assert_array_equal(got.labels, want.labels)
    assert float(got.objective) == pytest.approx(float(want.objective) * factor, rel=1e-6)


def test_permuted_nodes_permute_the_labels(ops, rng):
    """On a graph with one best partition."""
    planted = rng.integers(0, 5, 80)
    signs = np.where(planted[:, None] == planted, 1.0, -1.0)
    affinity = (signs + signed_graphs(rng, "normal", 1, 80)[0]).astype(np.float32)
    order = rng.permutation(80)
    got = ops.correlation_cluster(affinity[np.ix_(order, order)]).labels
    together = ops.correlation_cluster(affinity).labels[order]
    np.testing.assert_array_equal(got[:, None] == got, together[:, None] == together)


def test_seeds_and_threads(isa, rng, for_thread_counts):
    affinity = signed_graphs(rng, "normal", 1, 200)[0]
    for_thread_counts(lambda: pk.correlation_cluster(affinity, seed=5).labels)
    again = [pk.correlation_cluster(affinity, seed=seed) for seed in (5, 5, 6, 7, 8)]
    np.testing.assert_array_equal(again[0].labels, again[1].labels)
    assert len({result.objective.tobytes() for result in again}) > 1


def test_half_affinities_are_those_values(ops, rng):
    half = signed_graphs(rng, "normal", 1, 20)[0].astype(np.float16)
    got, want = ops.correlation_cluster(half), ops.correlation_cluster(half.astype(np.float32))
    np.testing.assert_array_equal(got.labels, want.labels)
    assert got.objective == want.objective


def test_batch_out_strides_and_read_only(ops, rng):
    batch = signed_graphs(rng, "normal", 3, 9)
    together = ops.correlation_cluster(batch, seed=4)
    assert together.k.shape == together.objective.shape == (3,)
    for item in range(3):
        alone = ops.correlation_cluster(batch[item], seed=4)
        for name in ("labels", "k", "objective"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))
    out = pk.CorrelationClustering(np.empty((3, 9), np.int32), np.empty(3, np.int32), np.empty(3, np.float32))
    assert ops.correlation_cluster(batch, seed=4, out=out) is out
    np.testing.assert_array_equal(out.labels, together.labels)
    wide = np.zeros((3, 9, 18), np.float32)
    wide[:, :, ::2] = batch
    strided = wide[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(ops.correlation_cluster(strided, seed=4).labels, together.labels)
    assert ops.correlation_cluster(batch[:0]).labels.shape == (0, 9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_ends_on_cuda_too(rng, bad):
    """Values are not checked there; integers made of these could go on gaining for ever."""
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    affinity = signed_graphs(rng, "normal", 1, 12)[0]
    affinity[3, 5] = bad
    got = pk.correlation_cluster(pk.cuda.to_device(affinity))
    assert np.isnan(got.objective.numpy())
    assert got.labels.numpy().max() < 12


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 16),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    max_clusters=st.integers(1, 30),
    bad=st.sampled_from([None, None, np.nan, np.inf, -np.inf]),
    duplicates=st.booleans(),
)
def test_any_input(ops, n, kind, seed, max_clusters, bad, duplicates):
    rng = np.random.default_rng(seed)
    affinity = signed_graphs(rng, kind, 1, n)[0]
    if duplicates:
        same = rng.integers(0, n, n)
        affinity = affinity[np.ix_(same, same)]
    if bad is not None and n > 1:
        if not ops.checks_values:
            return
        i, j = rng.choice(n, 2, replace=False)
        affinity[i, j] = bad
        with pytest.raises(
            ValueError,
            match=r"^\[correlation_cluster\] affinity and the sum of .* must be finite",
        ):
            ops.correlation_cluster(affinity)
        return
    got = ops.correlation_cluster(affinity, max_clusters=max_clusters, seed=seed)
    want = reference.correlation_cluster(affinity, max_clusters=max_clusters, seed=seed)
    np.testing.assert_array_equal(got.labels, want.labels)
    assert got.k <= max_clusters
    assert_valid(affinity, got)


GOOD = np.eye(4, dtype=np.float32)
ROOM = pk.CorrelationClustering(np.empty(4, np.int32), np.empty((), np.int32), np.empty((), np.float32))


@pytest.mark.parametrize(
    ("affinity", "options", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "affinity must be an array, got list"),
        (
            np.ones(3, np.float32),
            {},
            ValueError,
            r"affinity must be \[n, n\] or \[b, n, n\], got shape \(3,\)",
        ),
        (np.eye(3), {}, TypeError, "affinity must be float32 or float16, got float64"),
        (GOOD[:3], {}, ValueError, r"affinity must be square, got shape \(3, 4\)"),
        (GOOD[:0, :0], {}, ValueError, "affinity must be of at least one node"),
        (GOOD, {"max_clusters": 0}, ValueError, "max_clusters must be 1 to"),
        (GOOD, {"max_clusters": 2.5}, TypeError, "max_clusters must be an int, got float"),
        (GOOD, {"seed": -1}, ValueError, "seed must be 0 to"),
        (GOOD, {"out": GOOD}, TypeError, "out must be CorrelationClustering, got ndarray"),
        (
            GOOD,
            {"out": pk.CorrelationClustering(np.empty(4, np.int64), ROOM.k, ROOM.objective)},
            TypeError,
            "out.labels must be int32, got int64",
        ),
        (
            GOOD,
            {"out": pk.CorrelationClustering(ROOM.labels, np.empty(1, np.int32), ROOM.objective)},
            ValueError,
            r"out.k must have shape \(\), got \(1,\)",
        ),
        (
            GOOD,
            {"out": pk.CorrelationClustering(ROOM.labels, ROOM.k, GOOD[0, 0])},
            TypeError,
            "out.objective must be an array, got float32",
        ),
    ],
)
def test_errors(affinity, options, error, message):
    with pytest.raises(error, match=r"^\[correlation_cluster\] " + message):
        pk.correlation_cluster(affinity, **options)
