"""The torch head against the kernel, PyTorch Geometric, and the paper's loss."""

from __future__ import annotations

import numpy as np
import patchcut_kernels as kernels
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.training.gnn import GraphHead, cc_loss, cosine_affinity, ncut_loss, signed_affinity
from torch.nn import functional


def planted(n: int = 30, d: int = 12, noise: float = 0.4, seed: int = 0) -> torch.Tensor:
    """[1, n, d] features in two groups, the first third and the rest."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(2, d, generator=random)
    rows = centres[(torch.arange(n) >= n // 3).long()]
    return (rows + noise * torch.randn(n, d, generator=random))[None]


def random_head(hidden: tuple[int, ...] = (9, 7), columns: int = 3, d: int = 12) -> GraphHead:
    torch.manual_seed(1)
    head = GraphHead(d, hidden, 5, columns, dropout=0.3).eval()
    head.standardize(torch.randn(200, d))
    return head


def kernel_weights(head: GraphHead) -> kernels.GcnWeights:
    tensors = head.tensors()
    count = len(head.theta)
    return kernels.GcnWeights(
        normalize=True,
        shift=tensors["shift"],
        scale=tensors["scale"],
        layers=tuple(
            kernels.GcnLayer(*(tensors[f"gcn.{i}.{part}"] for part in ("theta", "root", "bias")))
            for i in range(count)
        ),
        mlp=tuple(
            kernels.LinearLayer(*(tensors[f"mlp.{i}.{part}"] for part in ("weight", "bias")))
            for i in range(2)
        ),
    )


@pytest.mark.parametrize("hidden", [(9,), (9, 7)])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_the_head_is_the_kernel(hidden: tuple[int, ...], threshold: float) -> None:
    head, features = random_head(hidden), planted(noise=1.0)
    affinity = cosine_affinity(features, threshold)
    rows = features[0].numpy()
    edges = kernels.affinity(rows, threshold=threshold)
    np.testing.assert_allclose(edges, affinity[0].numpy(), atol=1e-5)
    with torch.no_grad():
        expected = head(features, affinity).softmax(-1)[0].numpy()
    assert np.ptp(expected, axis=0).min() > 1e-2, "the reference is near-constant"
    np.testing.assert_allclose(kernels.gcn_forward(rows, edges, kernel_weights(head)), expected, atol=1e-4)


def test_the_graph_layer_is_kipf_and_wellings() -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="needs torch-geometric, an oracle")
    head, features = random_head((9,)), planted(noise=1.0)
    affinity = cosine_affinity(features, 0.3)
    sources, targets = affinity[0].nonzero().T
    layer = geometric.GCNConv(12, 9, add_self_loops=True)
    theta, root = head.theta[0], head.root[0]
    layer.lin.weight.data, layer.bias.data = theta.weight.data, theta.bias.data
    # GCNConv keeps self-loops that are there, so ours, W + I, are given as weights of 1 + W_ii
    edges = affinity[0].clone()
    edges.fill_diagonal_(0)
    sources, targets = edges.nonzero().T
    loops = torch.arange(len(edges))
    index = torch.stack([torch.cat([sources, loops]), torch.cat([targets, loops])])
    weight = torch.cat([edges[sources, targets], affinity[0].diagonal() + 1])
    with torch.no_grad():
        hidden = (functional.normalize(features, dim=-1) - head.shift) * head.scale
        mixed = layer(hidden[0], index, weight)
        hidden = functional.elu(mixed + root(hidden[0]))
        expected = head.mlp[1](functional.elu(head.mlp[0](hidden)))
        torch.testing.assert_close(head(features, affinity)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_batch_is_its_images_one_by_one() -> None:
    head = random_head()
    features = torch.cat([planted(seed=seed) for seed in range(3)])
    affinity = cosine_affinity(features, 0.2)
    with torch.no_grad():
        together = head(features, affinity)
        for i in range(3):
            alone = head(features[i : i + 1], affinity[i : i + 1])[0]
            torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-5)


def test_edge_weights_matter() -> None:
    head, features = random_head(), planted(noise=1.0)
    affinity = cosine_affinity(features, 0.2)
    with torch.no_grad():
        weighted, binary = head(features, affinity), head(features, (affinity > 0).float())
        alone = head(features, torch.zeros_like(affinity))
    assert (weighted - binary).abs().max() > 1e-2
    assert (weighted - alone).abs().max() > 1e-2


def test_columns_are_put_in_order() -> None:
    head, features = random_head(columns=3), planted()
    affinity = cosine_affinity(features, 0.2)
    with torch.no_grad():
        before = head(features, affinity)
        head.arrange_columns((2, 0, 1))
        assert torch.equal(head(features, affinity), before[..., [2, 0, 1]])


def test_standardized_input_has_mean_zero_and_deviation_one() -> None:
    head = GraphHead(12, (4,), 4, 2, dropout=0)
    features = planted(300)[0] + 3
    features[:, 0] = 0  # a dead channel
    head.standardize(features)
    inputs = (functional.normalize(features, dim=-1) - head.shift) * head.scale
    torch.testing.assert_close(inputs.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs[:, 1:].std(0), torch.ones(11), atol=1e-3, rtol=0)
    assert torch.isfinite(inputs).all()


def ncut_oracle(assignment: np.ndarray, affinity: np.ndarray) -> float:
    """DeepCut (2212.05853), equation 3, term by term in float64."""
    s, w = assignment.astype(np.float64), affinity.astype(np.float64)
    k = s.shape[1]
    degrees = np.diag(w.sum(1))
    cut = -np.trace(s.T @ w @ s) / np.trace(s.T @ degrees @ s)
    gram = s.T @ s
    return cut + np.linalg.norm(gram / np.linalg.norm(gram) - np.eye(k) / np.sqrt(k))


@pytest.mark.parametrize("k", [2, 4])
def test_the_loss_is_the_papers(k: int) -> None:
    features = torch.cat([planted(seed=seed) for seed in range(3)])
    affinity = cosine_affinity(features, 0.1)
    logits = torch.randn(3, 30, k, generator=torch.Generator().manual_seed(2))
    assignment = (2 * logits).softmax(-1)
    got = ncut_loss(assignment, affinity)
    expected = [ncut_oracle(a.numpy(), w.numpy()) for a, w in zip(assignment, affinity, strict=True)]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_correlation_clustering_is_the_kernels(alpha: float) -> None:
    features = torch.cat([planted(seed=seed, noise=1.0) for seed in range(3)])
    affinity = signed_affinity(features, alpha)
    for rows, got in zip(features, affinity, strict=True):
        expected = kernels.reference.affinity(rows.numpy(), mode="cc", alpha=alpha)
        assert (expected < 0).any() and (expected > 0).any()
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assignment = torch.randn(3, 30, 4, generator=torch.Generator().manual_seed(2)).softmax(-1)
    losses = [-np.trace(s.T @ w @ s) for s, w in zip(assignment.numpy(), affinity.numpy(), strict=True)]
    np.testing.assert_allclose(cc_loss(assignment, affinity).numpy(), losses, rtol=1e-5)


def test_the_planted_clusters_have_the_least_loss() -> None:
    affinity = signed_affinity(planted(), 3.0)
    group = (torch.arange(30) >= 10).long()
    losses = {}
    for name, labels in (("truth", group), ("wrong", group.roll(5)), ("one", 0 * group)):
        losses[name] = cc_loss(functional.one_hot(labels, 3).float()[None], affinity).item()
    assert losses["truth"] < min(losses["wrong"], losses["one"]) - 1


def test_the_planted_cut_has_the_least_loss() -> None:
    features = planted()
    affinity = cosine_affinity(features, 0.2)
    truth = functional.one_hot((torch.arange(30) >= 10).long(), 2).float()[None]
    wrong = truth.roll(5, dims=1)
    assert ncut_loss(truth, affinity) < ncut_loss(wrong, affinity) - 0.05
    assert ncut_loss(truth, affinity) < ncut_loss(torch.full_like(truth, 0.5), affinity)


def test_its_gradient_leads_to_a_smaller_loss() -> None:
    affinity = cosine_affinity(planted(), 0.2)
    logits = 0.1 * torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    losses = []
    for _ in range(60):
        loss = ncut_loss(logits.softmax(-1), affinity).sum()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 5 * gradient).detach().requires_grad_()
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0] - 0.1
    sides = logits[0].argmax(-1)
    assert sides[:10].unique().numel() == sides[10:].unique().numel() == 1
    assert sides[0] != sides[-1]


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_affinity_is_cosine_above_the_threshold(threshold: float) -> None:
    features = planted(noise=1.5)
    rows = features[0].numpy().astype(np.float64)
    cosine = np.corrcoef(np.hstack([rows, -rows]))  # rows without a mean: correlation is cosine
    expected = np.where(cosine > threshold, cosine, 0)
    assert (expected == 0).any()
    np.testing.assert_allclose(cosine_affinity(features, threshold)[0].numpy(), expected, atol=1e-6)
