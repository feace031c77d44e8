"""ONNX's `Resize` in torch: one product with a matrix of weights along each axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from patchcut_export.engines.quantized import or_none

Float64 = np.typing.NDArray[np.float64]


def resize(attributes: Mapping[str, Any], x: torch.Tensor, *more: torch.Tensor | None) -> torch.Tensor:
    """x [...] with its axes resized to `sizes` or by `scales`, as the attributes say.

    Args:
        attributes: mode, coordinate_transformation_mode and the others of ONNX, opset 11 to 19.
        more: roi, which must be left out or empty; scales; sizes.
    Raises:
        ValueError: a mode that crops.
    """
    _, scales, sizes = or_none(more, 3)
    how = _words(attributes, "coordinate_transformation_mode", "half_pixel")
    if how == "tf_crop_and_resize" or _words(attributes, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("a Resize that crops or keeps the aspect")
    axes = [axis % x.ndim for axis in attributes.get("axes", range(x.ndim))]
    by_size = sizes is not None and sizes.numel() > 0
    asked = sizes if by_size else scales
    assert asked is not None
    made = x.double() if not x.is_floating_point() else x
    for axis, value in zip(axes, asked.tolist(), strict=True):
        side = x.shape[axis]
        length = int(value) if by_size else math.floor(side * value)
        scale = length / side if by_size else float(value)
        if length != side or scale != 1:
            weights = torch.from_numpy(_weights(attributes, side, length, scale)).to(made.device, made.dtype)
            made = (made.movedim(axis, -1) @ weights.mT).movedim(-1, axis)
    return made.to(x.dtype)


def _words(attributes: Mapping[str, Any], name: str, default: str) -> str:
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def _weights(attributes: Mapping[str, Any], side: int, length: int, scale: float) -> Float64:
    """[length, side], what each output takes of each input."""
    mode = _words(attributes, "mode", "nearest")
    places = _places(_words(attributes, "coordinate_transformation_mode", "half_pixel"), side, length, scale)
    weights = np.zeros((length, side))
    if mode == "nearest":
        near = _nearest(places, _words(attributes, "nearest_mode", "round_prefer_floor"))
        weights[np.arange(length), np.clip(near, 0, side - 1)] = 1
        return weights
    narrowing = min(scale, 1.0) if attributes.get("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / narrowing)
    a = attributes.get("cubic_coeff_a", -0.75)
    for row, place in enumerate(places):
        inputs = np.arange(math.floor(place) - reach, math.floor(place) + reach + 2)
        shares = _kernel(mode, (inputs - place) * narrowing, a)
        if attributes.get("exclude_outside", 0):
            shares[(inputs < 0) | (inputs >= side)] = 0
        np.add.at(weights[row], np.clip(inputs, 0, side - 1), shares / shares.sum())
    return weights


def _places(how: str, side: int, length: int, scale: float) -> Float64:
    """[length], where each output lies among the inputs."""
    outputs = np.arange(length, dtype=np.float64)
    if how == "asymmetric":
        return outputs / scale
    if how == "align_corners":
        resized = side * scale
        return outputs * (side - 1) / (resized - 1) if resized > 1 else np.zeros(length)
    if how == "pytorch_half_pixel" and length == 1:
        return np.zeros(1)
    places = (outputs + 0.5) / scale - 0.5
    if how == "half_pixel_symmetric":
        places += side / 2 * (1 - length / (side * scale))
    return places


def _nearest(places: Float64, how: str) -> np.typing.NDArray[np.int64]:
    places = places.round(9)  # what lies between two pixels is not to be moved by a rounding error
    if how == "round_prefer_floor":
        return np.ceil(places - 0.5).astype(np.int64)
    if how == "round_prefer_ceil":
        return np.floor(places + 0.5).astype(np.int64)
    return (np.floor if how == "floor" else np.ceil)(places).astype(np.int64)


def _kernel(mode: str, x: Float64, a: float) -> Float64:
    x = np.abs(x)
    if mode == "linear":
        return np.maximum(0, 1 - x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0))
