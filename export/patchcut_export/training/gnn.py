"""The GNN head in torch: what training sees of `patchcut_kernels.gcn_forward`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class GraphHead(nn.Module):
    """Dense graph convolutions with a root weight, an MLP, and k logits a patch.

    h = ELU(Â (x Θ) + x R + b), Â = D^-1/2 (W + I) D^-1/2, D = rowsum(W) + 1 (Kipf and Welling 1609.02907; the
    light GNN of DeepCut, 2212.05853, section 3.3, plus the root weight R). The input is L2-normalised and
    standardised per channel with statistics of the training features.

    Args:
        feature_dim: d of the features.
        hidden: widths of the graph convolutions.
        mlp_hidden: width of the MLP's hidden layer.
        columns: k.
        dropout: probability, in training only.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, feature_dim: int, hidden: tuple[int, ...], mlp_hidden: int, columns: int, dropout: float
    ) -> None:
        super().__init__()
        widths = (feature_dim, *hidden)
        pairs = list(pairwise(widths))
        self.register_buffer("shift", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(feature_dim))
        self.theta = nn.ModuleList(nn.Linear(din, dout) for din, dout in pairs)
        self.root = nn.ModuleList(nn.Linear(din, dout, bias=False) for din, dout in pairs)
        self.mlp = nn.ModuleList([nn.Linear(widths[-1], mlp_hidden), nn.Linear(mlp_hidden, columns)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
        """Logits [b, n, k] of features [b, n, d] and their affinity [b, n, n]."""
        hidden = (functional.normalize(features, dim=-1) - self.shift) * self.scale
        inverse_root = (affinity.sum(-1, keepdim=True) + 1).rsqrt()
        for theta, root in self._layers():
            mixed = functional.linear(hidden, theta.weight) * inverse_root
            mixed = (affinity @ mixed + mixed) * inverse_root + theta.bias
            hidden = self.dropout(functional.elu(mixed + root(hidden)))
        first, last = self._linears()
        logits: torch.Tensor = last(self.dropout(functional.elu(first(hidden))))
        return logits

    def standardize(self, features: torch.Tensor) -> None:
        """Sets the input's shift and scale from features [m, d]."""
        unit = functional.normalize(features, dim=-1)
        self.shift.copy_(unit.mean(0))
        self.scale.copy_(1 / unit.std(0).clamp_min(1e-6))

    def arrange_columns(self, order: Sequence[int]) -> None:
        """Makes column i the one that was column order[i]."""
        last = self._linears()[-1]
        last.weight.data = last.weight.data[list(order)]
        last.bias.data = last.bias.data[list(order)]

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights as `patchcut.heads` reads them; matrices are [din, dout]."""
        named: dict[str, torch.Tensor] = {"shift": self.shift, "scale": self.scale}
        for i, (theta, root) in enumerate(self._layers()):
            named |= {
                f"gcn.{i}.theta": theta.weight.T,
                f"gcn.{i}.root": root.weight.T,
                f"gcn.{i}.bias": theta.bias,
            }
        for i, linear in enumerate(self._linears()):
            named |= {f"mlp.{i}.weight": linear.weight.T, f"mlp.{i}.bias": linear.bias}
        return {
            name: tensor.detach().cpu().contiguous().numpy().astype(np.float32)
            for name, tensor in named.items()
        }

    def _layers(self) -> list[tuple[nn.Linear, nn.Linear]]:
        """Θ with its bias, and R, of each graph convolution."""
        return cast("list[tuple[nn.Linear, nn.Linear]]", list(zip(self.theta, self.root, strict=True)))

    def _linears(self) -> list[nn.Linear]:
        return cast("list[nn.Linear]", list(self.mlp))


def cosine_affinity(features: torch.Tensor, threshold: float) -> torch.Tensor:
    """Cosine affinity [b, n, n] of features [b, n, d]; values not above the threshold are 0."""
    unit = functional.normalize(features, dim=-1)
    cosine = unit @ unit.transpose(-2, -1)
    return cosine * (cosine > threshold)


def signed_affinity(features: torch.Tensor, alpha: float) -> torch.Tensor:
    """Cosine less its maximum / alpha, [b, n, n] of features [b, n, d] (DeepCut, 2212.05853, section 3.4)."""
    unit = functional.normalize(features, dim=-1)
    cosine = unit @ unit.transpose(-2, -1)
    return cosine - cosine.amax((1, 2), keepdim=True) / alpha


def cc_loss(assignment: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """DeepCut's correlation clustering loss [b] of soft assignments [b, n, k]: -Tr(SᵀWS).

    Args:
        affinity: [b, n, n], signed.
    """
    return -(assignment * (affinity @ assignment)).sum((1, 2))


def ncut_loss(assignment: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    """DeepCut's NCut loss [b] of soft assignments [b, n, k] (2212.05853, equation 3).

    -Tr(SᵀWS) / Tr(SᵀDS) + ‖SᵀS / ‖SᵀS‖_F - I / √k‖_F
    """
    degrees = affinity.sum(-1, keepdim=True)
    kept = (assignment * (affinity @ assignment)).sum((1, 2))
    total = (assignment.square() * degrees).sum((1, 2)).clamp_min(1e-12)  # 0 where no patch has an edge
    gram = assignment.transpose(1, 2) @ assignment
    gram = gram / torch.linalg.matrix_norm(gram)[:, None, None]
    columns = assignment.shape[-1]
    even = torch.eye(columns, device=gram.device) / columns**0.5
    balance = torch.linalg.matrix_norm(gram - even)
    loss: torch.Tensor = balance - kept / total
    return loss
