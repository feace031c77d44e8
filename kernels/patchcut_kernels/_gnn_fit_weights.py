"""Weights of the graph network that is fitted to each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import cuda
from ._gcn_weights import GcnLayer, LinearLayer, _Remade
from ._launch import Launch
from ._streams import Stream

_OWNER = "GnnFitWeights"
_Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GnnFitWeights(_Remade):
    """Weights from which `gnn_fit` starts; every image of a batch starts from the same.

    Args:
        graph: the graph layer [d, hidden], without root.
        hidden: [hidden, mlp_hidden].
        logits: [mlp_hidden, k].
    Raises:
        ValueError: "[GnnFitWeights] hidden must take 64 inputs, got 32".
    """

    graph: GcnLayer
    hidden: LinearLayer
    logits: LinearLayer

    def __post_init__(self) -> None:
        for name, kind in (("graph", GcnLayer), ("hidden", LinearLayer), ("logits", LinearLayer)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"[{_OWNER}] {name} must be {kind.__name__}, got {type(value).__name__}")
        if self.graph.root is not None:
            raise ValueError(f"[{_OWNER}] graph must have no root, got one of shape {self.graph.root.shape}")
        outputs = self.graph.theta.shape[1]
        for name, layer in (("hidden", self.hidden), ("logits", self.logits)):
            inputs = layer.weight.shape[0]
            if inputs != outputs:
                raise ValueError(f"[{_OWNER}] {name} must take {outputs} inputs, got {inputs}")
            outputs = layer.weight.shape[1]

    @property
    def d(self) -> int:
        """Width of the features."""
        return int(self.graph.theta.shape[0])

    @property
    def k(self) -> int:
        """Columns of the assignment."""
        return int(self.logits.weight.shape[1])

    def arrays(self) -> tuple[_Array, _Array, _Array, _Array, _Array, _Array]:
        """Weight and bias of the three layers, in turn."""
        graph, hidden, logits = self.graph, self.hidden, self.logits
        return graph.theta, graph.bias, hidden.weight, hidden.bias, logits.weight, logits.bias

    def lend(self, launch: Launch) -> tuple[Any, ...]:
        """`arrays` as the native op takes them on a launch's device.

        The copies of a device are made once and kept; making them waits, so that a graph needs a call before
        its capture.
        """
        if launch.stream is None:
            return self.arrays()
        kept: dict[str, list[cuda.DeviceArray]] = self.__dict__.setdefault("_on_devices", {})
        if launch.device not in kept:
            kept[launch.device] = _copies(self.arrays(), launch.stream.device)
        for array in kept[launch.device]:
            launch.use(array)
        return tuple(array.lend(array.shape) for array in kept[launch.device])


def _copies(arrays: tuple[_Array, ...], device: int) -> list[cuda.DeviceArray]:
    """On a device, ready for every stream."""
    copies = [cuda.to_device(array, device=device) for array in arrays]
    Stream.legacy(device).synchronize()
    for copy in copies:
        copy.stream = None
    return copies
