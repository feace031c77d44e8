"""Weights of the graph network that is fitted to each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks, cuda
from ._gcn_weights import GcnLayer, LinearLayer, _Remade
from ._launch import Launch
from ._streams import Stream

_OWNER = "GnnFitWeights"
HIDDEN, MLP_HIDDEN = 64, 32  # widths of the network that is drawn
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

    @classmethod
    def from_flat(
        cls, flat: _Array, d: int, k: int, *, hidden: int = HIDDEN, mlp_hidden: int = MLP_HIDDEN
    ) -> GnnFitWeights:
        """The weights that `GnnFit.weights` has in one array.

        Args:
            flat: [p] float32, in host memory; it is copied.
            d: width of the features.
            k: columns of the assignment.
            hidden: outputs of the graph layer; those of the network that is drawn.
            mlp_hidden: outputs of the hidden layer.
        Raises:
            ValueError: "[GnnFitWeights] flat must have shape (2786,), got (3,)".
        Examples:
            >>> pk.GnnFitWeights.from_flat(np.zeros(2786, np.float32), d=9, k=2).d
            9
        """
        values = _checks.array(_OWNER, "flat", flat, np.float32, ("[p]",))
        _checks.shape(_OWNER, "flat", values, (parameter_count(d, k, hidden, mlp_hidden),))
        layers, first = [], 0
        for inputs, outputs in ((d, hidden), (hidden, mlp_hidden), (mlp_hidden, k)):
            last = first + inputs * outputs
            layers.append((values[first:last].reshape(inputs, outputs), values[last : last + outputs]))
            first = last + outputs
        (theta, bias), second, third = layers
        return cls(GcnLayer(theta, None, bias), LinearLayer(*second), LinearLayer(*third))

    @property
    def d(self) -> int:
        """Width of the features."""
        return int(self.graph.theta.shape[0])

    @property
    def k(self) -> int:
        """Columns of the assignment."""
        return int(self.logits.weight.shape[1])

    @property
    def widths(self) -> tuple[int, int]:
        """Outputs of the graph layer and of the hidden layer."""
        hidden, mlp_hidden = self.hidden.weight.shape
        return int(hidden), int(mlp_hidden)

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


def parameter_count(d: int, k: int, hidden: int, mlp_hidden: int) -> int:
    """How many weights and biases a network has."""
    return (d + 1) * hidden + (hidden + 1) * mlp_hidden + (mlp_hidden + 1) * k


def _copies(arrays: tuple[_Array, ...], device: int) -> list[cuda.DeviceArray]:
    """On a device, ready for every stream."""
    copies = [cuda.to_device(array, device=device) for array in arrays]
    Stream.legacy(device).synchronize()
    for copy in copies:
        copy.stream = None
    return copies
