"""DeepCut as published: a fresh GNN fitted to each image in torch-geometric (2212.05853, section 3).

The settings are those of the paper's code: GCN d-64, MLP 64-32-k with ELU and dropout 0.25, ten steps of
AdamW at 1e-3, edges wherever the affinity is above 0, with their weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch_geometric.nn import GCN

HIDDEN, MLP_HIDDEN, DROPOUT = 64, 32, 0.25
STEPS, LEARNING_RATE = 10, 1e-3


class DeepCut(nn.Module):
    """The light GNN of section 3.3: one graph convolution, then an MLP.

    Args:
        feature_dim: d of the features.
        columns: k.
    """

    def __init__(self, feature_dim: int, columns: int) -> None:
        super().__init__()
        self.convolution = GCN(feature_dim, HIDDEN, num_layers=1, act="relu")
        self.mlp = nn.Sequential(
            nn.Linear(HIDDEN, MLP_HIDDEN), nn.ELU(), nn.Dropout(DROPOUT), nn.Linear(MLP_HIDDEN, columns)
        )

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """[n, k] assignment of nodes [n, d] with edges [2, e] int64 of weights [e]."""
        hidden = nn.functional.elu(self.convolution(nodes, edges, weights))
        assignment: torch.Tensor = self.mlp(hidden).softmax(-1)
        return assignment


def segment(features: npt.NDArray[np.float32], *, columns: int = 2, seed: int = 0) -> npt.NDArray[np.float32]:
    """[n, k] float32, the assignment after the last step, of features [n, d].

    Everything is made anew for each image, as the procedure has it: affinity, edge list, weights, optimiser.
    """
    torch.manual_seed(seed)
    affinity = torch.from_numpy(make_affinity(features))
    edges = affinity.nonzero().T
    weights = affinity[edges[0], edges[1]]
    nodes = torch.from_numpy(features)
    model = DeepCut(features.shape[1], columns).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        assignment = model(nodes, edges, weights)
        ncut_loss(assignment, affinity).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    result: npt.NDArray[np.float32] = assignment.detach().numpy()
    return result


def make_affinity(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[n, n] float32 in [0, 1] of features [n, d]: F Fᵀ, negative values 0, divided by its maximum."""
    affinity = np.maximum(features @ features.T, 0)
    normalized: npt.NDArray[np.float32] = affinity / affinity.max()
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
