"""The trained GNN: graph convolutions over the patch affinity, one forward pass a frame."""

from __future__ import annotations

import re

import numpy as np
import patchcut_kernels as kernels

from patchcut.bundle import AffinitySpec, Bundle, HeadSpec
from patchcut.errors import BundleError
from patchcut.heads.base import Array, explained

_NAME = re.compile(r"shift|scale|gcn\.\d{1,2}\.(theta|root|bias)|mlp\.\d{1,2}\.(weight|bias)")


class GnnHead:
    """DeepCut's GNN made feed-forward: affinity, graph convolutions, then linear layers to k columns."""

    name = "gnn"

    def __init__(self, labels: tuple[str, ...], affinity: AffinitySpec, weights: kernels.GcnWeights) -> None:
        self.labels = labels
        self._affinity = affinity
        self._weights = weights
        self._buffer = np.empty((0, 0), np.float32)

    def __call__(self, features: Array, grid_hw: tuple[int, int]) -> Array:
        """[n, k] float32, rows on the simplex; fresh memory.

        Args:
            features: [n, d] float32, finite.
            grid_hw: not used; the graph holds no positions.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        DeepCut (2212.05853), section 3; the affinity's memory is kept from frame to frame.
        """
        if len(self._buffer) != len(features):
            self._buffer = np.empty((len(features), len(features)), np.float32)
        spec = self._affinity
        with explained(features, "export the bundle again: its head and its backbone do not belong together"):
            affinity, degrees = kernels.affinity(
                features,
                kind=spec.kind,
                mode=spec.mode,
                threshold=spec.threshold,
                alpha=spec.alpha,
                out=self._buffer,
                return_degrees=True,
            )
            return kernels.gcn_forward(features, affinity, self._weights, degrees=degrees)


def open_head(bundle: Bundle, spec: HeadSpec) -> GnnHead:
    """The bundle's GNN.

    Raises:
        BundleError: a tensor is missing, unknown, not finite, or its shape does not fit its neighbours; or
            the affinity has negative edges, over which no graph convolution is defined.
    """
    if spec.affinity.mode == "cc":
        what = f'{bundle.path} is foreign: a "gnn" head needs an affinity of mode "ncut", it has "cc"'
        raise BundleError("bundle", what, "export the bundle again")
    tensors = bundle.read_tensors(spec.files["weights"])
    dim = bundle.spec.backbones[spec.backbone].features[spec.features[0]].dim
    try:
        weights = _weights(tensors, spec)
        if (weights.d, weights.k) != (dim, len(spec.labels)):
            came = f"{weights.d} features to {weights.k} columns"
            raise ValueError(f"it maps {came}, not {dim} to {len(spec.labels)}")
    except (TypeError, ValueError) as error:
        what = f"{bundle.path} is foreign: {spec.files['weights']} holds no such head: {error}"
        raise BundleError("bundle", what, "export the bundle again") from error
    return GnnHead(spec.labels, spec.affinity, weights)


def _weights(tensors: dict[str, Array], spec: HeadSpec) -> kernels.GcnWeights:
    if unknown := sorted(name for name in tensors if not _NAME.fullmatch(name)):
        raise ValueError(f"it has unknown tensors {', '.join(unknown)}")
    gcn = [
        kernels.GcnLayer(
            _take(tensors, f"gcn.{i}.theta"), tensors.get(f"gcn.{i}.root"), _take(tensors, f"gcn.{i}.bias")
        )
        for i in range(_count(tensors, "gcn"))
    ]
    mlp = [
        kernels.LinearLayer(_take(tensors, f"mlp.{i}.weight"), _take(tensors, f"mlp.{i}.bias"))
        for i in range(_count(tensors, "mlp"))
    ]
    return kernels.GcnWeights(
        normalize=spec.normalize,
        shift=_take(tensors, "shift"),
        scale=_take(tensors, "scale"),
        layers=tuple(gcn),
        mlp=tuple(mlp),
        temperature=spec.temperature,
    )


def _take(tensors: dict[str, Array], name: str) -> Array:
    if name not in tensors:
        raise ValueError(f"it has no tensor {name}")
    return tensors[name]


def _count(tensors: dict[str, Array], part: str) -> int:
    """Number of layers of "gcn" or "mlp", numbered from 0 without a gap."""
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(f"{part}.")}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"it has {part} layers {sorted(numbers)}, one is missing")
    return len(numbers)
