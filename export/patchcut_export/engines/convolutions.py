"""Convolutions of ONNX in torch, and the padding that they share with pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor
Attributes = Mapping[str, Any]


def text(attributes: Attributes, name: str, default: str) -> str:
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else value


def pads_of(attributes: Attributes, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """[begins..., ends...] of the spatial axes."""
    n = len(kernel)
    how = text(attributes, "auto_pad", "NOTSET")
    if how == "VALID":
        return [0] * 2 * n
    if how == "NOTSET":
        return list(attributes.get("pads", [0] * 2 * n))
    dilations = attributes.get("dilations", [1] * n)
    wanted = [
        max(0, (-(-side // s) - 1) * s + (k - 1) * d + 1 - side)
        for side, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    less, more = [one // 2 for one in wanted], [one - one // 2 for one in wanted]
    return less + more if how == "SAME_UPPER" else more + less


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with its last axes padded by [begins..., ends...]."""
    if not any(pads):
        return x
    n = len(pads) // 2
    sides = [side for i in reversed(range(n)) for side in (pads[i], pads[n + i])]
    return F.pad(x, sides, value=value)


def convolve(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution of x [b, c, ...] with weight [m, c / group, ...]."""
    n = weight.ndim - 2
    strides = attributes.get("strides", [1] * n)
    pads = pads_of(attributes, x, weight.shape[2:], strides)
    call = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    dilations, group = attributes.get("dilations", [1] * n), attributes.get("group", 1)
    return call(padded(x, pads), weight, bias, strides, 0, dilations, group)
