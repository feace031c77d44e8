"""The trained GNN: graph convolutions over the patch affinity, one forward pass a frame."""

from __future__ import annotations

import re
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import AffinitySpec, Bundle, HeadSpec
from patchcut.errors import BundleError, EngineError

Array = npt.NDArray[np.float32]

_NAME = re.compile(r"shift|scale|gcn\.\d{1,2}\.(theta|root|bias)|mlp\.\d{1,2}\.(weight|bias)")


class GnnHead:
    """DeepCut's GNN made feed-forward: affinity, graph convolutions, then linear layers to k columns."""

    name = "gnn"

    def __init__(self, labels: tuple[str, ...], affinity: AffinitySpec, weights: kernels.GcnWeights) -> None:
        self.labels = labels
        self._affinity = affinity.model_dump()
        self._weights = weights
        self._buffer = np.empty((0, 0), np.float32)

    def __call__(self, features: Array, grid_hw: tuple[int, int]) -> Array:
        """[n, k] float32, rows on the simplex; fresh memory.

        Args:
            features: [n, d] float32, finite.
            grid_hw: not used; the graph holds no positions.
        Raises:
            EngineError: the features are not finite.
        DeepCut (2212.05853), section 3; the affinity's memory is kept from frame to frame.
        """
        if len(self._buffer) != len(features):
            self._buffer = np.empty((len(features), len(features)), np.float32)
        try:
            affinity = kernels.affinity(features, out=self._buffer, **self._affinity)
            return kernels.gcn_forward(features, affinity, self._weights)
        except ValueError as error:
            remedy = "the backbone may overflow in this precision: try another one"
            raise EngineError("head", f"cannot use the features: {error}", remedy) from error


def open_head(bundle: Bundle, spec: HeadSpec) -> GnnHead:
    """The bundle's GNN.

    Raises:
        BundleError: a tensor is missing, unknown, not finite, or its shape does not fit its neighbours.
    """
    tensors = _HeadTensors(bundle, spec.file)
    width = bundle.spec.backbone.feature_dim
    shift, scale = tensors.take("shift", (width,)), tensors.take("scale", (width,))
    layers = []
    for i in range(tensors.count("gcn")):
        theta = tensors.take(f"gcn.{i}.theta", (width, None))
        root = tensors.take(f"gcn.{i}.root", theta.shape) if f"gcn.{i}.root" in tensors.names else None
        width = theta.shape[1]
        layers.append(kernels.GcnLayer(theta, root, tensors.take(f"gcn.{i}.bias", (width,))))
    mlp = []
    for i in range(tensors.count("mlp")):
        weight = tensors.take(f"mlp.{i}.weight", (width, None))
        width = weight.shape[1]
        mlp.append(kernels.LinearLayer(weight, tensors.take(f"mlp.{i}.bias", (width,))))
    if not mlp or width != len(spec.labels):
        tensors.fail(
            f"ends in {width} columns after {len(mlp)} mlp layers, the labels are {len(spec.labels)}"
        )
    weights = kernels.GcnWeights(
        normalize=spec.normalize,
        shift=shift,
        scale=scale,
        layers=tuple(layers),
        mlp=tuple(mlp),
        temperature=spec.temperature,
    )
    return GnnHead(spec.labels, bundle.spec.affinity, weights)


class _HeadTensors:
    """The tensors of the head's file, each checked as it is taken."""

    def __init__(self, bundle: Bundle, file: str) -> None:
        self._where = f"{bundle.path}: {file}"
        self._arrays = bundle.read_tensors(file)
        self.names = frozenset(self._arrays)
        if unknown := sorted(name for name in self.names if not _NAME.fullmatch(name)):
            self.fail(f"has tensors that this patchcut does not know: {', '.join(unknown)}")

    def count(self, part: str) -> int:
        """Number of layers of "gcn" or "mlp", numbered from 0 without a gap."""
        numbers = {int(name.split(".")[1]) for name in self.names if name.startswith(f"{part}.")}
        if numbers != set(range(len(numbers))):
            self.fail(f"has {part} layers {sorted(numbers)}, one is missing")
        return len(numbers)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Array:
        """One finite float32 tensor; None in `shape` is any length from 1."""
        if name not in self._arrays:
            self.fail(f"has no tensor {name}")
        array = self._arrays[name]
        wanted = f"[{', '.join('any' if side is None else str(side) for side in shape)}] float32"
        if array.dtype != np.float32 or not _fits(array.shape, shape):
            self.fail(f"{name} must be {wanted}, got {list(array.shape)} {array.dtype}")
        if not np.isfinite(array).all():
            self.fail(f"{name} has values that are not finite")
        return array

    def fail(self, what: str) -> NoReturn:
        raise BundleError("bundle", f"{self._where} is foreign: it {what}", "export the bundle again")


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    if len(found) != len(shape):
        return False
    return all(side > 0 and wanted in (None, side) for side, wanted in zip(found, shape, strict=True))
