"""Weights of the feed-forward graph head."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _C, _checks
from ._launch import HOST, Launch

_Array = npt.NDArray[np.float32]


def _frozen(owner: str, name: str, value: object, dims: str) -> _Array:
    """A private, contiguous, read-only copy, so that checked values cannot change later."""
    checked = _checks.array(owner, name, value, np.float32, (dims,))
    if checked.size == 0:
        raise ValueError(f"[{owner}] {name} must be {dims} and not empty, got shape {checked.shape}")
    if not np.isfinite(checked).all():
        raise ValueError(f"[{owner}] {name} must be finite, got NaN or infinity")
    copy = np.array(checked, order="C")
    copy.flags.writeable = False
    return copy


def _set(instance: Any, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(instance, name, value)


class _Remade:
    """Copies and pickles by making the object anew, so that the copy is checked and read-only too."""

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class GcnLayer(_Remade):
    """One graph layer: h <- ELU(Ahat (h theta) + h root + bias).

    Args:
        theta: [din, dout] float32, weights of the neighbours.
        root: [din, dout] float32, weights of the node itself, or None.
        bias: [dout] float32.
    Raises:
        ValueError: "[GcnLayer] bias must have shape (64,), got (32,)".
    """

    theta: _Array
    root: _Array | None
    bias: _Array

    def __post_init__(self) -> None:
        theta = _frozen("GcnLayer", "theta", self.theta, "[din, dout]")
        root = None if self.root is None else _frozen("GcnLayer", "root", self.root, "[din, dout]")
        bias = _frozen("GcnLayer", "bias", self.bias, "[dout]")
        if root is not None:
            _checks.shape("GcnLayer", "root", root, theta.shape)
        _checks.shape("GcnLayer", "bias", bias, theta.shape[1:])
        _set(self, theta=theta, root=root, bias=bias)


@dataclass(frozen=True, eq=False)
class LinearLayer(_Remade):
    """One linear layer: h <- h weight + bias.

    Args:
        weight: [din, dout] float32.
        bias: [dout] float32.
    Raises:
        ValueError: "[LinearLayer] bias must have shape (2,), got (3,)".
    """

    weight: _Array
    bias: _Array

    def __post_init__(self) -> None:
        weight = _frozen("LinearLayer", "weight", self.weight, "[din, dout]")
        bias = _frozen("LinearLayer", "bias", self.bias, "[dout]")
        _checks.shape("LinearLayer", "bias", bias, weight.shape[1:])
        _set(self, weight=weight, bias=bias)


@dataclass(frozen=True, eq=False)
class GcnWeights(_Remade):
    """Everything that `gcn_forward` needs besides features and affinity; copied and checked once, here.

    Args:
        normalize: divide each feature row by its L2 norm first.
        shift: [d] float32; x = (features - shift) * scale.
        scale: [d] float32.
        layers: graph layers, possibly none.
        mlp: linear layers, at least one, with ELU between them; the last gives the logits.
        temperature: above 0; the assignment is softmax(logits / temperature).
    Raises:
        ValueError: "[GcnWeights] mlp[0] must take 64 inputs, got 32".
    """

    normalize: bool
    shift: _Array
    scale: _Array
    layers: tuple[GcnLayer, ...]
    mlp: tuple[LinearLayer, ...]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        shift = _frozen("GcnWeights", "shift", self.shift, "[d]")
        scale = _frozen("GcnWeights", "scale", self.scale, "[d]")
        _checks.shape("GcnWeights", "scale", scale, shift.shape)
        layers, mlp = tuple(self.layers), tuple(self.mlp)
        if not mlp:
            raise ValueError("[GcnWeights] mlp must have at least one layer, got none")
        chain = [(f"layers[{i}]", layer.theta.shape) for i, layer in enumerate(layers)]
        chain += [(f"mlp[{i}]", layer.weight.shape) for i, layer in enumerate(mlp)]
        width = shift.size
        for name, (din, dout) in chain:
            if din != width:
                raise ValueError(f"[GcnWeights] {name} must take {width} inputs, got {din}")
            width = dout
        temperature = _checks.inverse("GcnWeights", "temperature", self.temperature)
        _set(self, normalize=bool(self.normalize), temperature=temperature)
        _set(self, shift=shift, scale=scale, layers=layers, mlp=mlp)

    @property
    def d(self) -> int:
        """Width of the features."""
        return self.shift.size

    @property
    def k(self) -> int:
        """Columns of the assignment."""
        return int(self.mlp[-1].weight.shape[1])

    def pack(self, launch: Launch = HOST) -> _C.PackedGcn:
        """The weights as the kernel reads them on a launch's device, on the CPU with the ISA in use.

        Made once and kept; on CUDA it waits for the copy, so that a graph needs a call before its capture.
        """
        kept: dict[str, _C.PackedGcn] = self.__dict__.setdefault("_packed", {})
        key = _C.get_isa() if launch.stream is None else launch.device
        packed = kept.get(key)
        if packed is None:
            # Two threads may both come here: either result will do, and no lock can be left held by a fork.
            packed = _C.PackedGcn(
                self.normalize,
                self.shift,
                self.scale,
                [(layer.theta, layer.root, layer.bias) for layer in self.layers],
                [(layer.weight, layer.bias) for layer in self.mlp],
                self.temperature,
                launch.context,
            )
            kept[key if launch.stream is not None else packed.isa] = packed
        return packed
