"""The graph head in plain torch: dense matrix products, float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from patchcut_kernels import GcnWeights
from torch.nn import functional

Array = npt.NDArray[np.float32]


def make_forward(weights: GcnWeights) -> Callable[[Array, Array, Array], Array]:
    """`gcn_forward` as a function of features [n, d], affinity [n, n] and its degrees [n] to [n, k]."""
    shift, scale = _tensor(weights.shift), _tensor(weights.scale)
    layers = [
        (_tensor(x.theta), None if x.root is None else _tensor(x.root), _tensor(x.bias))
        for x in weights.layers
    ]
    mlp = [(_tensor(x.weight), _tensor(x.bias)) for x in weights.mlp]

    @torch.inference_mode()
    def forward(features: Array, affinity: Array, degrees: Array) -> Array:
        hidden = torch.from_numpy(features)
        if weights.normalize:
            hidden = functional.normalize(hidden, dim=1)
        hidden = (hidden - shift) * scale
        edges = torch.from_numpy(affinity)
        inverse_root = (torch.from_numpy(degrees)[:, None] + 1).rsqrt()
        for theta, root, bias in layers:
            mixed = (hidden @ theta) * inverse_root
            mixed = (edges @ mixed + mixed) * inverse_root + bias
            hidden = functional.elu(mixed if root is None else mixed + hidden @ root)
        for weight, bias in mlp[:-1]:
            hidden = functional.elu(hidden @ weight + bias)
        logits = hidden @ mlp[-1][0] + mlp[-1][1]
        result: Array = (logits / weights.temperature).softmax(1).numpy()
        return result

    return forward


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
