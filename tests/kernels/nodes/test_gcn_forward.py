from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import patchcut_kernels as pk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut_kernels import reference


def matrix(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 1.5 / np.sqrt(shape[0])).astype(np.float32)


def random_weights(rng, d, layers, mlp, *, root=True, normalize=True, temperature=0.7) -> pk.GcnWeights:
    widths = [d, *layers]
    graph = [
        pk.GcnLayer(matrix(rng, a, b), matrix(rng, a, b) if root else None, matrix(rng, b))
        for a, b in itertools.pairwise(widths)
    ]
    widths = [widths[-1], *mlp]
    linear = [pk.LinearLayer(matrix(rng, a, b), matrix(rng, b)) for a, b in itertools.pairwise(widths)]
    shift = (0.1 * rng.standard_normal(d)).astype(np.float32)
    scale = (0.5 + rng.random(d)).astype(np.float32) * (np.sqrt(d) if normalize else 1)
    return pk.GcnWeights(normalize, shift, scale.astype(np.float32), tuple(graph), tuple(linear), temperature)


def graph(rng, n, d) -> tuple[np.ndarray, np.ndarray]:
    centres = rng.standard_normal((3, d))
    features = (centres[rng.integers(0, 3, n)] + 0.7 * rng.standard_normal((n, d))).astype(np.float32)
    return features, pk.affinity(features)


SHAPES = [
    (1, 1, [], [2]),
    (2, 3, [5], [2]),
    (31, 17, [7], [3]),
    (33, 24, [13, 9], [5, 2]),
    (65, 257, [33], [31, 8]),
    (97, 48, [], [16, 4]),
    (256, 384, [64], [32, 2]),
]


@pytest.mark.parametrize(("n", "d", "layers", "mlp"), SHAPES)
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_matches_reference(ops, rng, assert_close, n, d, layers, mlp, root, normalize):
    features, edges = graph(rng, n, d)
    weights = random_weights(rng, d, layers, mlp, root=root, normalize=normalize)
    got = ops.gcn_forward(features, edges, weights)
    assert_close("gcn_forward", got, reference.gcn_forward(features, edges, weights))
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)


def test_matches_torch_geometric(ops, rng, assert_close):
    torch = pytest.importorskip("torch", reason="torch is the oracle's array library")
    nn = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is the oracle")
    features, edges = graph(rng, 60, 20)
    edges = edges * (1 - np.eye(60, dtype=np.float32))
    weights = random_weights(rng, 20, [12, 7], [3], normalize=False)
    source, target = np.nonzero(edges)
    edge_index = torch.from_numpy(np.stack([source, target]))
    edge_weight = torch.from_numpy(edges[source, target]).double()
    h = torch.from_numpy((features.astype(np.float64) - weights.shift) * weights.scale)
    for layer in weights.layers:
        conv = nn.GCNConv(*layer.theta.shape).double()
        conv.lin.weight.data = torch.from_numpy(layer.theta.T.copy()).double()
        conv.bias.data = torch.from_numpy(layer.bias.copy()).double()
        with torch.no_grad():
            h = torch.nn.functional.elu(
                conv(h, edge_index, edge_weight) + h @ torch.tensor(layer.root).double()
            )
    linear = weights.mlp[0]
    want = reference.softmax((h.numpy() @ linear.weight + linear.bias) / weights.temperature)
    assert_close("gcn_forward", ops.gcn_forward(features, edges, weights), want)


def test_half_features_and_affinity(ops, rng, assert_close):
    features, edges = (array.astype(np.float16) for array in graph(rng, 70, 33))
    weights = random_weights(rng, 33, [16], [8, 3])
    want = ops.gcn_forward(features.astype(np.float32), edges.astype(np.float32), weights)
    assert_close("gcn_forward", want, reference.gcn_forward(features, edges, weights))
    np.testing.assert_array_equal(ops.gcn_forward(features, edges, weights), want)
    np.testing.assert_array_equal(ops.gcn_forward(features, edges.astype(np.float32), weights), want)
    two = np.stack([edges, edges[::-1, ::-1]])
    batch = ops.gcn_forward(np.stack([features, features[::-1]]), two, weights)
    np.testing.assert_array_equal(batch[0], want)
    np.testing.assert_allclose(batch[1, ::-1], want, atol=1e-5)


def test_edge_weights_matter(ops, rng):
    features, edges = graph(rng, 80, 16)
    weights = random_weights(rng, 16, [8], [3], root=False)
    weighted = ops.gcn_forward(features, edges, weights)
    unweighted = ops.gcn_forward(features, (edges > 0).astype(np.float32), weights)
    assert np.abs(weighted - unweighted).max() > 0.01


def test_disconnected_and_zero_rows(ops, rng, assert_close):
    features, _ = graph(rng, 50, 12)
    features[3] = 0
    edges = np.zeros((50, 50), np.float32)
    edges[:20, :20] = 0.5
    weights = random_weights(rng, 12, [6], [3])
    assert_close(
        "gcn_forward",
        ops.gcn_forward(features, edges, weights),
        reference.gcn_forward(features, edges, weights),
    )


def test_sharp_temperature_gives_finite_rows(ops, rng):
    features, edges = graph(rng, 40, 8)
    weights = dataclasses.replace(random_weights(rng, 8, [6], [4]), temperature=1e-4)
    got = ops.gcn_forward(features, edges, weights)
    want = reference.gcn_forward(features, edges, weights)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got.argmax(1), want.argmax(1))


@pytest.mark.parametrize("temperature", [3e-39, 1e38])
def test_extreme_temperatures_give_finite_rows(ops, rng, temperature):
    features, edges = graph(rng, 40, 8)
    weights = dataclasses.replace(random_weights(rng, 8, [6], [4]), temperature=temperature)
    np.testing.assert_allclose(ops.gcn_forward(features, edges, weights).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("mlp", [[3], [5, 3]])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_affinity_that_is_not_finite_is_found_with_degrees_given(isa, rng, mlp, bad):
    features, edges = graph(rng, 37, 12)
    weights = random_weights(rng, 12, [21, 7], mlp)
    degrees = edges.sum(1)
    edges[17, 5] = bad
    with pytest.raises(ValueError, match=r"^\[gcn_forward\] affinity and the logits it leads to"):
        pk.gcn_forward(features, edges, weights, degrees=degrees)


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("bias", [3e38, -3e38])
def test_weights_that_overflow_inside_are_an_error(isa, rng, root, bias):
    features, edges = graph(rng, 40, 12)
    weights = random_weights(rng, 12, [9], [6, 3], root=root)
    large = pk.LinearLayer(np.sign(weights.mlp[0].weight) * np.float32(3e38), np.full(6, bias, np.float32))
    with pytest.raises(ValueError, match=r"^\[gcn_forward\] affinity and the logits it leads to"):
        pk.gcn_forward(features, edges, dataclasses.replace(weights, mlp=(large, weights.mlp[1])))
    theta = np.sign(weights.layers[0].theta) * np.float32(3e38)
    layer = pk.GcnLayer(theta, weights.layers[0].root, np.full(9, bias, np.float32))
    with pytest.raises(ValueError, match=r"^\[gcn_forward\] affinity and the logits it leads to"):
        pk.gcn_forward(features, edges, dataclasses.replace(weights, layers=(layer,)))


def test_permuted_nodes_permute_rows(ops, rng):
    features, edges = graph(rng, 61, 16)
    weights = random_weights(rng, 16, [8], [3])
    order = rng.permutation(61)
    got = ops.gcn_forward(features[order], edges[np.ix_(order, order)], weights)
    np.testing.assert_allclose(got, ops.gcn_forward(features, edges, weights)[order], atol=1e-5)


def test_threads_do_not_change_a_bit(isa, rng, for_thread_counts):
    features, edges = graph(rng, 310, 64)
    weights = random_weights(rng, 64, [32, 16], [8, 3])
    for_thread_counts(lambda: pk.gcn_forward(features, edges, weights))


def test_packed_weights_follow_the_instruction_set(rng, assert_close):
    features, edges = graph(rng, 45, 20)
    weights = random_weights(rng, 20, [35, 7], [3])
    want = reference.gcn_forward(features, edges, weights)
    before = pk.get_isa()
    try:
        packed = {}
        for isa in (*pk.available_isas(), *pk.available_isas()):
            pk.set_isa(isa)
            assert_close("gcn_forward", pk.gcn_forward(features, edges, weights), want)
            assert packed.setdefault(isa, weights.pack()) is weights.pack()
            assert weights.pack().isa == isa
    finally:
        pk.set_isa(before)


def test_weights_are_packed_by_many_threads_at_once(rng):
    features, edges = graph(rng, 45, 20)
    weights = random_weights(rng, 20, [35], [3])
    want = pk.gcn_forward(features, edges, weights)
    for _ in range(20):
        fresh = dataclasses.replace(weights)
        with ThreadPoolExecutor(4) as executor:
            for got in executor.map(lambda _, w=fresh: pk.gcn_forward(features, edges, w), range(8)):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("remake", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_copies_of_weights_are_checked_and_read_only(rng, remake):
    features, edges = graph(rng, 10, 4)
    weights = random_weights(rng, 4, [3], [2])
    want = pk.gcn_forward(features, edges, weights)
    made = remake(weights)
    assert made.__dict__.keys() == {field.name for field in dataclasses.fields(pk.GcnWeights)}
    np.testing.assert_array_equal(pk.gcn_forward(features, edges, made), want)
    for array in (made.shift, made.layers[0].root, made.mlp[0].bias):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_degrees_batch_out_and_strides(ops, rng, assert_close):
    pairs = [graph(rng, 37, 21) for _ in range(3)]
    features, edges = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    weights = random_weights(rng, 21, [9], [4])
    each = np.stack([ops.gcn_forward(f, w, weights) for f, w in pairs])
    with pytest.raises(ValueError, match=r"\[gcn_forward\] out must not overlap an input"):
        pk.gcn_forward(features[0], edges[0], weights, out=features[0].reshape(-1)[: 37 * 4].reshape(37, 4))
    out = np.empty_like(each)
    assert ops.gcn_forward(features, edges, weights, out=out) is out
    np.testing.assert_array_equal(out, each)
    backwards = features[:, :, ::-1].copy()[:, :, ::-1]
    backwards.flags.writeable = False
    np.testing.assert_array_equal(ops.gcn_forward(backwards, edges, weights), each)
    known = ops.gcn_forward(features, edges, weights, degrees=edges.sum(2))
    assert_close("gcn_forward", known, each.astype(np.float64))


def test_no_nodes_and_no_graph(rng):
    weights = random_weights(rng, 5, [], [3])
    assert pk.gcn_forward(np.empty((0, 5), np.float32), None, weights).shape == (0, 3)
    features, _ = graph(rng, 40, 5)
    np.testing.assert_allclose(
        pk.gcn_forward(features, None, weights), reference.gcn_forward(features, None, weights), atol=1e-5
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 50),
    d=st.integers(1, 40),
    hidden=st.integers(1, 40),
    k=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    bad=st.sampled_from([None, None, np.nan, np.inf]),
)
def test_any_input(ops, n, d, hidden, k, seed, bad):
    rng = np.random.default_rng(seed)
    features, edges = graph(rng, n, d)
    weights = random_weights(rng, d, [hidden], [k])
    if bad is None:
        want = reference.gcn_forward(features, edges, weights)
        np.testing.assert_allclose(ops.gcn_forward(features, edges, weights), want, rtol=0, atol=2e-5)
        return
    if not ops.checks_values:
        return
    broken = features.copy()
    broken[rng.integers(n), rng.integers(d)] = bad
    with pytest.raises(ValueError, match=r"\[gcn_forward\] features must be finite"):
        ops.gcn_forward(broken, edges, weights)
    edges[rng.integers(n), rng.integers(n)] = bad
    with pytest.raises(ValueError, match=r"\[gcn_forward\] affinity must be finite"):
        ops.gcn_forward(features, edges, weights)


def test_errors(rng):
    features, edges = graph(rng, 6, 4)
    weights = random_weights(rng, 4, [3], [2])
    cases = [
        ((features, edges, {}), {}, TypeError, "weights must be GcnWeights, got dict"),
        ((features.tolist(), edges, weights), {}, TypeError, "features must be an array"),
        ((features[0], edges, weights), {}, ValueError, r"features must be \[n, d\] or \[b, n, d\]"),
        ((features[:, :3], edges, weights), {}, ValueError, "features must have 4 columns"),
        ((features.astype(np.float64), edges, weights), {}, TypeError, "features must be float32"),
        ((features, None, weights), {}, TypeError, "affinity must be an array where"),
        ((features, edges[:5, :5], weights), {}, ValueError, r"affinity must have shape \(6, 6\)"),
        ((features, edges.astype(int), weights), {}, TypeError, "affinity must be float32"),
        ((features, edges - 1, weights), {}, ValueError, "affinity must have row sums above -1"),
        ((features, edges, weights), {"degrees": edges}, ValueError, r"degrees must have shape \(6,\)"),
        (
            (features, edges, weights),
            {"out": np.empty((6, 3), np.float32)},
            ValueError,
            "out must have shape",
        ),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=r"^\[gcn_forward\] " + message):
            pk.gcn_forward(*arguments, **options)


def test_weights_are_validated_and_frozen(rng):
    theta = matrix(rng, 4, 3)
    layer = pk.GcnLayer(theta, None, matrix(rng, 3))
    theta[:] = 0
    assert layer.theta.any()
    with pytest.raises(ValueError, match="read-only"):
        layer.theta[:] = 0
    with pytest.raises(ValueError, match=r"^\[GcnLayer\] bias must have shape \(3,\), got \(2,\)"):
        pk.GcnLayer(theta, None, matrix(rng, 2))
    with pytest.raises(ValueError, match=r"^\[GcnLayer\] root must have shape \(4, 3\)"):
        pk.GcnLayer(theta, theta.T, matrix(rng, 3))
    with pytest.raises(ValueError, match=r"^\[LinearLayer\] weight must be finite"):
        pk.LinearLayer(np.full((2, 2), np.nan, np.float32), matrix(rng, 2))
    good = random_weights(rng, 4, [3], [2])
    assert type(dataclasses.replace(good, normalize=np.bool_(True)).normalize) is bool
    with pytest.raises(ValueError, match=r"^\[GcnWeights\] mlp must have at least one layer"):
        dataclasses.replace(good, mlp=())
    with pytest.raises(ValueError, match=r"^\[GcnWeights\] mlp\[0\] must take 3 inputs, got 5"):
        dataclasses.replace(good, mlp=(pk.LinearLayer(matrix(rng, 5, 2), matrix(rng, 2)),))
    for temperature in (0.0, -1.0, 1e-60, 1e-39, 1e39, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"^\[GcnWeights\] temperature must be above 0"):
            dataclasses.replace(good, temperature=temperature)
