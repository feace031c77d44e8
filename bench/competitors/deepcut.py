"""DeepCut as published: a fresh GNN fitted to each image in torch-geometric (2212.05853, section 3).

The settings are those of the paper's code: GCN d-64, MLP 64-32-k with ELU and dropout 0.25, ten steps of
AdamW at 1e-3, edges wherever the affinity is above 0, with their weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from patchcut_kernels import GnnFitWeights
from torch import nn
from torch_geometric.nn import GCN

HIDDEN, MLP_HIDDEN, DROPOUT = 64, 32, 0.25
STEPS, LEARNING_RATE = 10, 1e-3

Array = npt.NDArray[np.float32]


class DeepCut(nn.Module):
    """The light GNN of section 3.3: one graph convolution, then an MLP.

    Args:
        feature_dim: d of the features.
        columns: k.
        dropout: share of the MLP's hidden units that is left out.
        init: its weights; None draws them from torch's seed.
    """

    def __init__(
        self, feature_dim: int, columns: int, *, dropout: float = DROPOUT, init: GnnFitWeights | None = None
    ) -> None:
        super().__init__()
        self.convolution = GCN(feature_dim, HIDDEN, num_layers=1, act="relu")
        self.mlp = nn.Sequential(
            nn.Linear(HIDDEN, MLP_HIDDEN), nn.ELU(), nn.Dropout(dropout), nn.Linear(MLP_HIDDEN, columns)
        )
        if init is not None:
            self._load(init)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[n, k] assignment of nodes [n, d] with edges [2, e] int64 of weights [e]."""
        hidden = nn.functional.elu(self.convolution(nodes, edges, weights))
        assignment: torch.Tensor = self.mlp(hidden).softmax(-1)
        return assignment

    def _load(self, init: GnnFitWeights) -> None:
        convolution = self.convolution.convs[0]
        owners = (
            convolution.lin.weight,
            convolution.bias,
            *self.mlp[0].parameters(),
            *self.mlp[3].parameters(),
        )
        for owner, array in zip(owners, init.arrays(), strict=True):
            owner.data = torch.tensor(array.T)


def segment(features: Array, *, columns: int = 2, seed: int = 0) -> Array:
    """[n, k] float32, the assignment of the last step, of features [n, d].

    Everything is made anew for each image, as the procedure has it: affinity, edge list, weights, optimiser.
    """
    torch.manual_seed(seed)
    return fit(DeepCut(features.shape[1], columns), features, make_affinity(features))[0]


def fit(model: DeepCut, features: Array, affinity: Array, loss: str = "ncut") -> tuple[Array, Array]:
    """[n, k] float32, the assignment of the last step, and [steps] the loss of each.

    Args:
        model: moved by each step.
        features: [n, d] float32.
        affinity: [n, n] float32.
        loss: "ncut" or "cc".
    """
    pairs = torch.from_numpy(affinity)
    edges = (pairs > 0).nonzero().T
    weights = pairs[edges[0], edges[1]]
    nodes = torch.from_numpy(features)
    objective = ncut_loss if loss == "ncut" else cc_loss
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=LEARNING_RATE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        assignment = model(nodes, edges, weights)
        value = objective(assignment, pairs)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    return assignment.detach().numpy(), np.array(losses, np.float32)


def make_affinity(features: Array) -> Array:
    """[n, n] float32 in [0, 1] of features [n, d]: F Fᵀ, negative values 0, divided by its maximum."""
    affinity = np.maximum(features @ features.T, 0)
    normalized: Array = affinity / affinity.max()
    return normalized


def ncut_loss(assignment: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """The scalar of equation 3 for an assignment [n, k] and an affinity [n, n].

    -Tr(SᵀWS) / Tr(SᵀDS) + ‖SᵀS / ‖SᵀS‖_F - I / √k‖_F
    """
    kept = torch.trace(assignment.T @ affinity @ assignment)
    total = torch.trace(assignment.T @ torch.diag(affinity.sum(-1)) @ assignment)
    gram = assignment.T @ assignment
    identity = torch.eye(assignment.shape[1])
    balance = torch.linalg.matrix_norm(gram / torch.linalg.matrix_norm(gram) - identity / identity.norm())
    loss: torch.Tensor = balance - kept / total
    return loss


def cc_loss(assignment: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """The objective of correlation clustering, -sum(W ∘ SSᵀ), for assignment [n, k] and affinity [n, n]."""
    loss: torch.Tensor = -(affinity * (assignment @ assignment.T)).sum()
    return loss
