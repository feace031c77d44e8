from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference
from patchcut_kernels.reference import _fit


def graph(rng, n, d, loss="ncut", kind="dot") -> tuple[np.ndarray, np.ndarray]:
    """Features of three noisy clusters and their affinity, as DeepCut makes it."""
    centres = rng.standard_normal((3, d))
    features = (centres[rng.integers(0, 3, n)] + 0.7 * rng.standard_normal((n, d))).astype(np.float32)
    affinity = pk.affinity(features, kind=kind, mode=loss)
    return features, affinity / affinity.max() if loss == "ncut" else affinity


def random_init(rng, d, graph_width, hidden_width, k) -> pk.GnnFitWeights:
    def matrix(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    return pk.GnnFitWeights(
        pk.GcnLayer(matrix(d, graph_width), None, matrix(graph_width)),
        pk.LinearLayer(matrix(graph_width, hidden_width), matrix(hidden_width)),
        pk.LinearLayer(matrix(hidden_width, k), matrix(k)),
    )


@pytest.fixture
def assert_same_fit(assert_close: Callable[..., None]) -> Callable[..., None]:
    """assert_same_fit(got, want): losses are compared by the largest."""

    def check(got: pk.GnnFit, want: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        assignment, losses, _ = want
        assert_close("gnn_fit", got.assignment, assignment)
        assert got.losses.dtype == np.float32
        np.testing.assert_allclose(got.losses, losses, rtol=0, atol=1e-5 * max(1, np.abs(losses).max()))

    return check


@pytest.mark.parametrize("loss", ["ncut", "cc"])
@pytest.mark.parametrize(
    ("n", "d", "k", "dropout"),
    [(31, 17, 2, 0.0), (33, 24, 5, 0.25), (65, 257, 3, 0.5), (100, 5, 40, 0.1), (256, 384, 2, 0.25)],
)
def test_matches_reference(ops, rng, assert_same_fit, n, d, k, dropout, loss):
    features, affinity = graph(rng, n, d, loss)
    options = {"loss": loss, "dropout": dropout, "seed": 11}
    got = ops.gnn_fit(features, affinity, k, **options)
    assert_same_fit(got, reference.gnn_fit(features, affinity, k, **options))
    np.testing.assert_allclose(got.assignment.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("widths", [(1, 1), (7, 50), (97, 33)])
def test_widths_are_those_of_the_weights_given(ops, rng, assert_same_fit, widths):
    features, affinity = graph(rng, 70, 12)
    init = random_init(rng, 12, *widths, 3)
    options = {"init": init, "steps": 5, "learning_rate": 3e-3, "seed": 4}
    got = ops.gnn_fit(features, affinity, 3, **options)
    assert_same_fit(got, reference.gnn_fit(features, affinity, 3, **options))


@pytest.mark.parametrize("widths", [None, (7, 50)])
def test_the_weights_of_the_last_pass_are_given(ops, rng, widths):
    features, affinity = graph(rng, 70, 12)
    init = None if widths is None else random_init(rng, 12, *widths, 3)
    options = {"init": init, "dropout": 0.0}
    got = ops.gnn_fit(features, affinity, 3, weights=True, **options)
    want, losses, weights = reference.gnn_fit(features, affinity, 3, **options)
    np.testing.assert_allclose(got.weights, weights, atol=1e-4)
    np.testing.assert_array_equal(got.assignment, ops.gnn_fit(features, affinity, 3, **options).assignment)
    sizes = {} if widths is None else dict(zip(("hidden", "mlp_hidden"), widths, strict=True))
    again = pk.GnnFitWeights.from_flat(np.array(got.weights), d=12, k=3, **sizes)
    np.testing.assert_array_equal(np.concatenate([one.ravel() for one in again.arrays()]), got.weights)
    once = ops.gnn_fit(features, affinity, 3, init=again, dropout=0.0, steps=1)
    np.testing.assert_allclose(once.assignment, got.assignment, atol=1e-5)
    np.testing.assert_allclose(once.losses, got.losses[-1:], atol=1e-5)
    np.testing.assert_allclose(losses[-1], got.losses[-1], atol=1e-4)
    assert want.shape == got.assignment.shape


def test_one_step_gives_the_weights_that_it_began_with(ops, rng):
    features, affinity = graph(rng, 30, 9)
    init = random_init(rng, 9, 6, 5, 2)
    got = ops.gnn_fit(features, affinity, 2, init=init, steps=1, weights=True)
    np.testing.assert_array_equal(got.weights, np.concatenate([one.ravel() for one in init.arrays()]))


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_it_ends_where_the_loss_falls_little(ops, rng, loss):
    features, affinity = graph(rng, 60, 12, loss)
    options = {"loss": loss, "dropout": 0.0, "learning_rate": 1e-2, "weights": True}
    whole = ops.gnn_fit(features, affinity, 3, steps=60, **options)
    falls = -np.diff(whole.losses) / np.abs(whole.losses[1:])
    tolerance = float(np.median(falls))
    made = 2 + int(np.argmax(falls < tolerance))
    assert 2 <= made < 50
    got = ops.gnn_fit(features, affinity, 3, steps=60, tolerance=tolerance, **options)
    short = ops.gnn_fit(features, affinity, 3, steps=made, **options)
    np.testing.assert_array_equal(got.losses[:made], short.losses)
    np.testing.assert_array_equal(got.losses[made:], short.losses[-1])
    np.testing.assert_array_equal(got.assignment, short.assignment)
    np.testing.assert_array_equal(got.weights, short.weights)
    _, losses, _ = reference.gnn_fit(
        features, affinity, 3, steps=60, tolerance=tolerance, loss=loss, dropout=0.0, learning_rate=1e-2
    )
    assert losses.shape == (60,)
    assert (losses[-1] == losses[-10:]).all()


def test_a_fit_from_the_answer_ends_at_once(ops, rng):
    features, affinity = graph(rng, 60, 12)
    first = ops.gnn_fit(features, affinity, 2, steps=80, dropout=0.0, learning_rate=1e-2, weights=True)
    init = pk.GnnFitWeights.from_flat(np.array(first.weights), d=12, k=2)
    again = ops.gnn_fit(features, affinity, 2, steps=80, dropout=0.0, init=init, tolerance=1e-2)
    assert (again.losses[1:] == again.losses[1]).all()
    assert abs(again.losses[-1] - first.losses[-1]) < 0.02


def test_items_of_a_batch_end_by_themselves(ops, rng):
    pairs = [graph(rng, 37, 21) for _ in range(3)]
    features, affinity = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    options = {"steps": 20, "tolerance": 2e-2, "weights": True, "seed": 6}
    together = ops.gnn_fit(features, affinity, 4, **options)
    passes = [int((np.diff(losses) != 0).sum()) for losses in together.losses]
    assert min(passes) < 19 and len(set(passes)) > 1, "another seed is needed"
    for item, (f, w) in enumerate(pairs):
        alone = ops.gnn_fit(f, w, 4, **options)
        for name in ("assignment", "losses", "weights"):
            np.testing.assert_array_equal(getattr(together, name)[item], getattr(alone, name))


def test_weights_in_one_array_are_checked():
    with pytest.raises(ValueError, match=r"^\[GnnFitWeights\] flat must have shape \(2786,\), got \(3,\)$"):
        pk.GnnFitWeights.from_flat(np.zeros(3, np.float32), d=9, k=2)
    with pytest.raises(ValueError, match="theta must be finite"):
        pk.GnnFitWeights.from_flat(np.full(2786, np.nan, np.float32), d=9, k=2)


def test_half_features_and_affinity(ops, rng, assert_same_fit):
    features, affinity = (array.astype(np.float16) for array in graph(rng, 70, 33))
    got = ops.gnn_fit(features, affinity, 3)
    assert_same_fit(got, reference.gnn_fit(features, affinity, 3))
    single = ops.gnn_fit(features.astype(np.float32), affinity.astype(np.float32), 3)
    np.testing.assert_array_equal(got.assignment, single.assignment)
    np.testing.assert_array_equal(got.losses, single.losses)


def test_one_node(ops):
    one = np.ones((1, 1), np.float32)
    got = ops.gnn_fit(np.full((1, 5), 0.5, np.float32), -one, 3, loss="cc")
    want, losses, _ = reference.gnn_fit(np.full((1, 5), 0.5), -one, 3, loss="cc")
    np.testing.assert_allclose(got.assignment, want, atol=1e-5)
    np.testing.assert_allclose(got.losses, losses, atol=1e-5)
    # One node's NCut does not depend on its assignment.
    ncut = ops.gnn_fit(np.full((1, 5), 0.5, np.float32), one, 3).losses
    np.testing.assert_allclose(ncut, np.sqrt(2 - 2 / np.sqrt(3)) - 1, atol=1e-6)


def test_one_column_takes_all(ops, rng):
    features, affinity = graph(rng, 40, 6)
    got = ops.gnn_fit(features, affinity, 1)
    assert (got.assignment == 1).all()
    np.testing.assert_allclose(got.losses, -1, atol=1e-6)


@pytest.mark.parametrize(("loss", "k"), [("ncut", 2), ("ncut", 6), ("cc", 2), ("cc", 10)])
@pytest.mark.parametrize("kind", ["dot", "cosine"])
def test_matches_torch_geometric(ops, rng, loss, k, kind):
    deepcut = pytest.importorskip("bench.competitors.deepcut", reason="torch-geometric is the oracle")
    n, d = (40, 96) if ops.backend == "cuda" else (256, 384)
    features, affinity = graph(rng, n, d, loss, kind)
    affinity[7, 7] = affinity[3, :] = affinity[:, 3] = 0  # nodes that get an edge to themselves
    init = reference.draw_fit_weights(d, k, 5)
    model = deepcut.DeepCut(d, k, dropout=0, init=init)
    want, losses = deepcut.fit(model, features, affinity, loss)
    got = ops.gnn_fit(features, affinity, k, loss=loss, dropout=0, init=init)
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(got.losses, losses, rtol=0, atol=1e-4 * max(1, np.abs(losses).max()))
    np.testing.assert_allclose(got.assignment, want, rtol=0, atol=1e-3)


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_the_references_gradients_are_those_of_its_loss(rng, loss):
    features, affinity = graph(rng, 12, 5, loss)
    parameters = [array.astype(np.float64) for array in random_init(rng, 5, 4, 6, 3).arrays()]
    propagated = _fit.propagation(affinity) @ features
    kept = (rng.random((12, 6)) < 0.7) / 0.7
    _, _, gradients = _fit.fit_pass(propagated, affinity, parameters, kept, loss)
    for values, gradient in zip(parameters, gradients, strict=True):
        numeric = np.empty_like(values)
        for at in np.ndindex(values.shape):
            sides = []
            for step in (1e-5, -2e-5):
                values[at] += step
                sides.append(_fit.fit_pass(propagated, affinity, parameters, kept, loss)[1])
            values[at] += 1e-5
            numeric[at] = (sides[0] - sides[1]) / 2e-5
        assert np.abs(gradient).max() > 1e-4
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7 * max(1, np.abs(numeric).max()))


def test_edge_weights_matter(ops, rng):
    features, affinity = graph(rng, 80, 16)
    weighted = ops.gnn_fit(features, affinity, 2, steps=1, dropout=0).assignment
    unweighted = ops.gnn_fit(features, (affinity > 0).astype(np.float32), 2, steps=1, dropout=0).assignment
    assert np.abs(weighted - unweighted).max() > 0.01


def test_the_assignment_is_that_of_the_last_loss(ops, rng):
    features, affinity = graph(rng, 60, 16)
    got = ops.gnn_fit(features, affinity, 3, steps=7)
    last, _ = _fit.ncut_loss(got.assignment.astype(np.float64), affinity)
    np.testing.assert_allclose(got.losses[-1], last, atol=1e-6)
    longer = ops.gnn_fit(features, affinity, 3, steps=9)
    np.testing.assert_array_equal(longer.losses[:7], got.losses)
    assert np.abs(longer.assignment - got.assignment).max() > 1e-3


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_finds_the_clusters(isa, rng, loss):
    labels = np.repeat([0, 1, 2], 30)
    centres = 3 * rng.standard_normal((3, 24))
    features = (centres[labels] + 0.3 * rng.standard_normal((90, 24))).astype(np.float32)
    affinity = pk.affinity(features, mode=loss, threshold=0.5 if loss == "ncut" else 0.0)
    k = 3 if loss == "ncut" else 6
    got = pk.gnn_fit(features, affinity, k, loss=loss, steps=200, learning_rate=1e-2, seed=1)
    assert got.losses[-1] < got.losses[0]
    found = got.assignment.argmax(1).tolist()
    assert len(set(zip(labels.tolist(), found, strict=True))) == 3
    if loss == "ncut":
        assert len(set(found)) == 3
    else:
        assert got.losses[-1] < -affinity.sum(), "one cluster would do as well"


def test_permuted_nodes_permute_rows(ops, rng):
    features, affinity = graph(rng, 61, 16)
    order = rng.permutation(61)
    got = ops.gnn_fit(features[order], affinity[np.ix_(order, order)], 3, dropout=0)
    want = ops.gnn_fit(features, affinity, 3, dropout=0)
    np.testing.assert_allclose(got.assignment, want.assignment[order], atol=1e-4)


def test_weights_are_drawn_as_torch_draws_them():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    init = reference.draw_fit_weights(384, 2, 3)
    bounds = [(6 / (384 + 64)) ** 0.5, 0, 1 / 8, 1 / 8, 32**-0.5, 32**-0.5]
    for array, bound in zip(init.arrays(), bounds, strict=True):
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() >= 0.9 * bound or array.size == 2
    linear = torch.nn.Linear(64, 32)
    for ours, theirs in zip(init.arrays()[2:4], (linear.weight, linear.bias), strict=True):
        np.testing.assert_allclose(ours.std(), theirs.detach().numpy().std(), rtol=0.3)
    assert abs(init.graph.theta.mean()) < 4 * bounds[0] / np.sqrt(3 * init.graph.theta.size)


def test_seeds_and_dropout(ops, rng):
    features, affinity = graph(rng, 50, 12)
    first = ops.gnn_fit(features, affinity, 3, seed=2**64 - 1)
    np.testing.assert_array_equal(
        ops.gnn_fit(features, affinity, 3, seed=2**64 - 1).assignment, first.assignment
    )
    assert np.abs(ops.gnn_fit(features, affinity, 3, seed=1).assignment - first.assignment).max() > 0.01
    init = reference.draw_fit_weights(12, 3, 0)
    seeds = [ops.gnn_fit(features, affinity, 3, init=init, dropout=0, seed=seed) for seed in (0, 1)]
    np.testing.assert_array_equal(seeds[0].assignment, seeds[1].assignment)
    drawn = ops.gnn_fit(features, affinity, 3, dropout=0, seed=0)
    np.testing.assert_array_equal(seeds[0].assignment, drawn.assignment)


def test_each_item_of_a_batch_gets_what_it_gets_alone(ops, rng):
    pairs = [graph(rng, 37, 21) for _ in range(3)]
    features, affinity = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    each = [ops.gnn_fit(f, w, 4, seed=6) for f, w in pairs]
    out = pk.GnnFit(np.empty((3, 37, 4), np.float32), np.empty((3, 10), np.float32))
    assert ops.gnn_fit(features, affinity, 4, seed=6, out=out) is out
    np.testing.assert_array_equal(out.assignment, [fit.assignment for fit in each])
    np.testing.assert_array_equal(out.losses, [fit.losses for fit in each])
    backwards = features[:, :, ::-1].copy()[:, :, ::-1]
    backwards.flags.writeable = False
    np.testing.assert_array_equal(ops.gnn_fit(backwards, affinity, 4, seed=6).assignment, out.assignment)
    assert ops.gnn_fit(features[:0], affinity[:0], 4).assignment.shape == (0, 37, 4)


@pytest.mark.skipif(not pk.cuda.is_available(), reason=pk.cuda.why_unavailable())
def test_becomes_a_graph_on_cuda(rng):
    stream = pk.cuda.Stream()
    inputs = [pk.cuda.to_device(array, stream=stream) for array in graph(rng, 45, 13)]
    out = pk.GnnFit(*(pk.cuda.to_device(np.zeros(s, np.float32), stream=stream) for s in ((45, 3), (10,))))
    workspace = pk.cuda.empty(2**22, np.uint8, stream=stream)
    init = random_init(rng, 13, 8, 6, 3)
    want = pk.gnn_fit(*inputs, 3, init=init, stream=stream)
    with pk.cuda.capture(stream) as captured:
        pk.gnn_fit(*inputs, 3, init=init, out=out, workspace=workspace, stream=stream)
    assert not out.losses.numpy().any()
    captured.launch(stream)
    np.testing.assert_array_equal(out.assignment.numpy(), want.assignment.numpy())
    np.testing.assert_array_equal(out.losses.numpy(), want.losses.numpy())
    small = pk.cuda.empty(256, np.uint8, stream=stream)
    with pytest.raises(ValueError, match=r"^\[gnn_fit\] workspace must have at least \d+ bytes, got 256"):
        pk.gnn_fit(*inputs, 3, workspace=small, stream=stream)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    features, affinity = graph(rng, 310, 64)

    def fit() -> np.ndarray:
        got = pk.gnn_fit(features, affinity, 3)
        return np.concatenate([got.assignment.ravel(), got.losses])

    for_thread_counts(fit)


@pytest.mark.parametrize("loss", ["ncut", "cc"])
def test_graphs_without_edges(ops, rng, loss):
    features, _ = graph(rng, 40, 9)
    affinity = np.zeros((40, 40), np.float32)
    got = ops.gnn_fit(features, affinity, 3, loss=loss)
    want, losses, _ = reference.gnn_fit(features, affinity, 3, loss=loss)
    np.testing.assert_allclose(got.assignment, want, atol=1e-4)
    np.testing.assert_allclose(got.losses, losses, atol=1e-5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 50),
    d=st.integers(1, 40),
    k=st.integers(1, 9),
    loss=st.sampled_from(["ncut", "cc"]),
    dropout=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**64 - 1),
    bad=st.sampled_from([None, None, np.nan, np.inf, -np.inf]),
)
def test_any_input(ops, n, d, k, loss, dropout, seed, bad):
    rng = np.random.default_rng(seed)
    features, affinity = graph(rng, n, d, loss)
    features[rng.random(n) < 0.2] = 0
    affinity[:, : n // 3] = affinity[: n // 3] = 0
    options = {"loss": loss, "dropout": dropout, "seed": seed}
    if bad is None:
        got = ops.gnn_fit(features, affinity, k, steps=3, **options)
        np.testing.assert_allclose(got.assignment.sum(1), 1, atol=1e-5)
        # The first pass alone: where the gradient is rounding, AdamW makes steps of it.
        first, losses, _ = reference.gnn_fit(features, affinity, k, steps=1, **options)
        once = ops.gnn_fit(features, affinity, k, steps=1, **options)
        np.testing.assert_allclose(once.assignment, first, rtol=0, atol=1e-4)
        np.testing.assert_allclose(got.losses[0], losses[0], rtol=1e-4, atol=1e-4)
        return
    if not ops.checks_values:
        return
    broken = features.copy()
    broken[rng.integers(n), rng.integers(d)] = bad
    with pytest.raises(ValueError, match=r"^\[gnn_fit\] features must be finite"):
        ops.gnn_fit(broken, affinity, k, **options)
    affinity[rng.integers(n), rng.integers(n)] = bad
    with pytest.raises(ValueError, match=r"^\[gnn_fit\] affinity must be finite"):
        ops.gnn_fit(features, affinity, k, **options)


def test_losses_that_overflow_are_an_error(isa, rng):
    features, affinity = graph(rng, 40, 9)
    with pytest.raises(ValueError, match=r"^\[gnn_fit\] features and affinity must lead to finite losses"):
        pk.gnn_fit(features * np.float32(1e38), affinity, 2)
    with pytest.raises(ValueError, match=r"^\[gnn_fit\] affinity must be finite, with finite row sums"):
        pk.gnn_fit(features, np.full((40, 40), 3e38, np.float32), 2)


def test_errors(rng):
    features, affinity = graph(rng, 6, 4)
    init = random_init(rng, 4, 3, 5, 2)
    out = pk.GnnFit(np.empty((6, 2), np.float32), np.empty(10, np.float32))
    over = pk.GnnFit(features, np.empty(10, np.float32))
    low_rate = "learning_rate must be above 0, got "
    cases = [
        ((features.tolist(), affinity, 2), {}, TypeError, "features must be an array, got list"),
        ((features[0], affinity, 2), {}, ValueError, r"features must be \[n, d\] or \[b, n, d\]"),
        ((features.astype(np.float64), affinity, 2), {}, TypeError, "features must be float32 or float16"),
        (
            (features[:0], affinity[:0, :0], 2),
            {},
            ValueError,
            r"features must have at least one row and column",
        ),
        ((features[:, :0], affinity, 2), {}, ValueError, r"features must have at least one row and column"),
        ((features, None, 2), {}, TypeError, "affinity must be an array, got NoneType"),
        ((features, affinity[:5, :5], 2), {}, ValueError, r"affinity must have shape \(6, 6\)"),
        ((features, affinity[None], 2), {}, ValueError, r"affinity must have shape \(6, 6\)"),
        ((features, affinity.astype(int), 2), {}, TypeError, "affinity must be float32 or float16"),
        ((features, affinity - 0.5, 2), {}, ValueError, r"affinity must be at least 0 for NCut, got -0.5"),
        ((features, affinity, 0), {}, ValueError, "k must be 1 to 65536, got 0"),
        ((features, affinity, 2.0), {}, TypeError, "k must be an int, got float"),
        ((features, affinity, 2), {"loss": "mincut"}, ValueError, "loss must be 'ncut' or 'cc'"),
        ((features, affinity, 2), {"steps": 0}, ValueError, "steps must be 1 to 65536, got 0"),
        ((features, affinity, 2), {"learning_rate": 0.0}, ValueError, low_rate + "0.0"),
        ((features, affinity, 2), {"learning_rate": np.nan}, ValueError, low_rate + "nan"),
        ((features, affinity, 2), {"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\), got 1.0"),
        ((features, affinity, 2), {"dropout": 1 - 1e-9}, ValueError, r"dropout must be in \[0, 1\)"),
        ((features, affinity, 2), {"seed": -1}, ValueError, "seed must be 0 to 18446744073709551615"),
        ((features, affinity, 2), {"init": {}}, TypeError, "init must be GnnFitWeights, got dict"),
        ((features, affinity, 3), {"init": init}, ValueError, "init must go from 4 columns to 3, got from 4"),
        ((features, affinity, 2), {"out": features}, TypeError, "out must be GnnFit, got ndarray"),
        ((features, affinity, 3), {"out": out}, ValueError, r"out.assignment must have shape \(6, 3\)"),
        ((features, affinity, 2), {"out": out, "steps": 9}, ValueError, r"out.losses must have shape \(9,\)"),
        ((features, affinity, 4), {"out": over}, ValueError, "out must not overlap an input"),
        (
            (features, affinity, 2),
            {"stream": 0},
            ValueError,
            "stream must be None where the arrays lie in host",
        ),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=r"^\[gnn_fit\] " + message):
            pk.gnn_fit(*arguments, **options)


def test_weights_are_checked_and_copied(rng):
    init = random_init(rng, 4, 3, 5, 2)
    assert (init.d, init.k) == (4, 2)
    with pytest.raises(ValueError, match=r"^\[GnnFitWeights\] hidden must take 3 inputs, got 5"):
        dataclasses.replace(init, hidden=init.logits)
    with pytest.raises(ValueError, match=r"^\[GnnFitWeights\] logits must take 5 inputs, got 3"):
        dataclasses.replace(init, logits=init.hidden)
    with pytest.raises(TypeError, match=r"^\[GnnFitWeights\] graph must be GcnLayer, got LinearLayer"):
        dataclasses.replace(init, graph=init.logits)
    rooted = dataclasses.replace(init.graph, root=init.graph.theta)
    with pytest.raises(ValueError, match=r"^\[GnnFitWeights\] graph must have no root"):
        dataclasses.replace(init, graph=rooted)
    for array, copied in zip(init.arrays(), copy.deepcopy(init).arrays(), strict=True):
        np.testing.assert_array_equal(array, copied)
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
