"""The trained GNN: graph convolutions over the patch affinity, one forward pass a frame."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut_kernels import cuda

from patchcut.bundle import Bundle, HeadSpec
from patchcut.errors import BundleError
from patchcut.features import Array, Features
from patchcut.heads.base import explained

Float32 = npt.NDArray[np.float32]

_NAME = re.compile(r"shift|scale|gcn\.\d{1,2}\.(theta|root|bias)|mlp\.\d{1,2}\.(weight|bias)")


class GnnHead:
    """DeepCut's GNN made feed-forward: affinity, graph convolutions, then linear layers to k columns."""

    devices = ("cpu", "cuda")
    capturable = True  # on a GPU it only gives work to its stream, so that a graph can hold it

    def __init__(self, spec: HeadSpec, weights: kernels.GcnWeights) -> None:
        self.name = spec.name
        self.labels = spec.labels
        self.needs = spec.features
        self.named = spec.role == "names"
        self._affinity = spec.affinity
        self._weights = weights
        self._edges: Array = np.empty((0, 0, 0), np.float32)

    def __call__(self, features: Features) -> Array:
        """[b, n, k] float32, rows on the simplex, on the features' device; fresh memory.

        Args:
            features: those of b frames, finite; their grid is not used, the graph holds no positions.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        DeepCut (2212.05853), section 3; the affinity's memory is kept from frame to frame.
        """
        rows = features.of(self.needs)
        spec = self._affinity
        with explained(rows, "export the bundle again: its head and its backbone do not belong together"):
            affinity, degrees = kernels.affinity(
                rows,
                kind=spec.kind,
                mode=spec.mode,
                threshold=spec.threshold,
                alpha=spec.alpha,
                out=self._memory(rows),
                return_degrees=True,
            )
            return kernels.gcn_forward(rows, affinity, self._weights, degrees=degrees)

    def _memory(self, rows: Array) -> Array:
        """[b, n, n] float32 for the affinity, where the features lie."""
        shape = (*rows.shape[:2], rows.shape[1])
        if self._edges.shape != shape or type(self._edges) is not type(rows):
            if isinstance(rows, cuda.DeviceArray):
                self._edges = cuda.empty(shape, device=rows.device, stream=rows.stream)
            else:
                self._edges = np.empty(shape, np.float32)
        return self._edges


def open_head(bundle: Bundle, spec: HeadSpec) -> GnnHead:
    """One of the bundle's GNNs.

    Raises:
        BundleError: as `read_weights` does.
    """
    return GnnHead(spec, read_weights(bundle, spec))


def read_weights(bundle: Bundle, spec: HeadSpec) -> kernels.GcnWeights:
    """The weights of one of the bundle's GNNs.

    Raises:
        BundleError: a tensor is missing, unknown, not finite, or its shape does not fit its neighbours; or
            the affinity has negative edges, over which no graph convolution is defined.
    """
    if spec.affinity.mode == "cc":
        what = f'{bundle.path} is foreign: a "gnn" head needs an affinity of mode "ncut", it has "cc"'
        raise BundleError("bundle", what, "export the bundle again")
    file = spec.files["weights"]
    tensors = bundle.read_tensors(file)
    feature_dim = bundle.spec.backbones[spec.backbone].features[spec.features[0]].dim
    try:
        weights = _weights(tensors, spec)
        if (weights.d, weights.k) != (feature_dim, len(spec.labels)):
            came = f"{weights.d} features to {weights.k} columns"
            raise ValueError(f"it maps {came}, not {feature_dim} to {len(spec.labels)}")
    except (TypeError, ValueError) as error:
        what = f"{bundle.path} is foreign: {file} holds no such head: {error}"
        raise BundleError("bundle", what, "export the bundle again") from error
    return weights


def _weights(tensors: dict[str, Float32], spec: HeadSpec) -> kernels.GcnWeights:
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


def _take(tensors: dict[str, Float32], name: str) -> Float32:
    if name not in tensors:
        raise ValueError(f"it has no tensor {name}")
    return tensors[name]


def _count(tensors: dict[str, Float32], kind: str) -> int:
    """Number of layers of "gcn" or "mlp", numbered from 0 without a gap."""
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(f"{kind}.")}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"it has {kind} layers {sorted(numbers)}, one is missing")
    return len(numbers)
