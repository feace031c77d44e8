"""ONNX's operators on 8 bits, in torch; their sums of whole numbers are exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from patchcut_export.engines.convolutions import convolve

Tensor = torch.Tensor
Attributes = Mapping[str, Any]


def or_none(inputs: Sequence[Tensor | None], count: int) -> tuple[Any, ...]:
    """`count` inputs: those that are there, and None for those that are left out at the end."""
    return (*inputs, *([None] * (count - len(inputs))))


def _along(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scales or zero points, one for all, one a channel or one a block, as they are broadcast over `x`."""
    if values.ndim == 0 or values.numel() == 1:
        return values.reshape(())
    if block:
        made = values.repeat_interleave(block, axis)
        return made.narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def dequantize(attributes: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero) * scale."""
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    steps = _along(scale, x, axis, block)
    if zero is None:
        return x.to(scale.dtype) * steps
    return (x.int() - _along(zero, x, axis, block).int()).to(scale.dtype) * steps


def quantize(attributes: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """x / scale + zero in 8 bits, rounded to even and cut off."""
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    dtype = zero.dtype if zero is not None else attributes.get("output_dtype") or torch.uint8
    limits = torch.iinfo(dtype)
    made = (x.to(scale.dtype) / _along(scale, x, axis, block)).round()
    if zero is not None:
        made = made + _along(zero, x, axis, block).to(made.dtype)
    return made.clamp(limits.min, limits.max).to(dtype)


def _quantize_dynamically(_: Attributes, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8, with scale and zero point such that 0 is a number of steps."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    steps = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / steps).round().clamp(0, 255)
    made = (x / steps).round() + zero
    return made.clamp(0, 255).to(torch.uint8), scale, zero.to(torch.uint8)


def _shifted(x: Tensor, zero: Tensor | None, *, rows: bool) -> Tensor:
    """x - zero in float64, which holds every sum of products of 8 bits exactly."""
    made = x.double()
    if zero is None:
        return made
    points = zero.double()
    if rows and points.ndim == 1 and points.numel() > 1:
        points = points[:, None]
    return made - points


def _multiply(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    return _shifted(a, a_zero, rows=True) @ _shifted(b, b_zero, rows=False)


def _matmul_integer(
    _: Attributes, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    return _multiply(a, b, a_zero, b_zero).to(torch.int32)


def _qlinear_matmul(_: Attributes, *inputs: Tensor) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = inputs
    made = _multiply(a, b, a_zero, b_zero).to(a_scale.dtype) * (a_scale * b_scale)
    return quantize({}, made, scale, zero)


def _qgemm(attributes: Attributes, *inputs: Tensor | None) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, bias, scale, zero = or_none(inputs, 9)
    b = b.mT if attributes.get("transB", 0) else b
    made = _multiply(a.mT if attributes.get("transA", 0) else a, b, a_zero, b_zero)
    made = made if bias is None else made + bias.double()
    out = made.to(a_scale.dtype) * (attributes.get("alpha", 1.0) * a_scale * b_scale)
    return out if scale is None else quantize({}, out, scale, zero)


def _conv_integer(
    attributes: Attributes, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    weight = w.double() if w_zero is None else w.double() - _along(w_zero, w, 0, 0).double()
    return convolve(attributes, _shifted(x, x_zero, rows=False), weight).to(torch.int32)


def _qlinear_conv(attributes: Attributes, *inputs: Tensor) -> Tensor:
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, *bias = inputs
    made = _conv_integer(attributes, x, w, x_zero, w_zero)
    made = made + bias[0].reshape(-1, *[1] * (x.ndim - 2)) if bias else made
    return quantize({}, made.to(x_scale.dtype) * (x_scale * _along(w_scale, made, 1, 0)), scale, zero)


def _qlinear(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(_: Attributes, *inputs: Tensor) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, scale, *zero = inputs
        made = function(dequantize({}, a, a_scale, a_zero), dequantize({}, b, b_scale, b_zero))
        return quantize({}, made, scale, zero[0] if zero else None)

    return run


def _qlinear_softmax(attributes: Attributes, *inputs: Tensor) -> Tensor:
    x, x_scale, x_zero, scale, *zero = inputs
    made = torch.softmax(dequantize({}, x, x_scale, x_zero), attributes.get("axis", -1))
    return quantize({}, made, scale, zero[0] if zero else None)


def _matmul_to_float(_: Attributes, *inputs: Tensor | None) -> Tensor:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = or_none(inputs, 7)
    made: Tensor = _multiply(a, b, a_zero, b_zero).to(a_scale.dtype) * (a_scale * b_scale)
    return made if bias is None else made + bias


def _matmul_dynamically(attributes: Attributes, x: Tensor, b: Tensor, *more: Tensor | None) -> Tensor:
    b_scale, b_zero, bias = or_none(more, 3)
    a, scale, zero = _quantize_dynamically({}, x)
    return _matmul_to_float(attributes, a, b, scale, b_scale, zero, b_zero, bias)


QUANTIZED: Final[dict[str, Callable[..., Any]]] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": _quantize_dynamically,
    "DynamicQuantizeMatMul": _matmul_dynamically,
    "MatMulInteger": _matmul_integer,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear(torch.add),
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QLinearMul": _qlinear(torch.mul),
    "QLinearSoftmax": _qlinear_softmax,
    "QuantizeLinear": quantize,
}
