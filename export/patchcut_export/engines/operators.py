"""The operators of ONNX in torch, as its specification has them, for the graphs that bundles may hold.

Each takes its attributes and its inputs, None where one is left out, and returns its output or a tuple of
them. Inputs that say a shape, axes or a number of things lie on the CPU; all others on the engine's device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F

from patchcut_export.engines.convolutions import convolve, padded, pads_of, text
from patchcut_export.engines.quantized import QUANTIZED, or_none
from patchcut_export.engines.resizing import resize

Tensor = torch.Tensor
Attributes = Mapping[str, Any]
Operator = Callable[..., Any]

TORCH_TYPES: Final = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
# Which inputs are read as numbers while the graph is prepared, by operator.
READ_AHEAD: Final = {
    "ConstantOfShape": (0,),
    "Dropout": (1, 2),
    "CumSum": (1,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    **dict.fromkeys(
        (f"Reduce{kind}" for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")), (1,)
    ),
    "ReduceSumSquare": (1,),
}


def numbers(value: Tensor | None) -> list[int] | None:
    """The whole numbers of a tensor on the CPU."""
    return None if value is None else [int(one) for one in value.reshape(-1).tolist()]


def _clip(attributes: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low, high = attributes.get("min", low), attributes.get("max", high)
    x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype, device=x.device))
    return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype, device=x.device))


def _divide(_: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _gelu(attributes: Attributes, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate=text(attributes, "approximate", "none"))


def _dropout(attributes: Attributes, x: Tensor, *more: Tensor | None) -> Any:
    if len(more) > 1 and more[1] is not None and bool(more[1]):
        raise ValueError("a Dropout that trains")
    return x if attributes["outputs"] == 1 else (x, torch.ones_like(x, dtype=torch.bool))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def fold(_: Attributes, *inputs: Tensor) -> Tensor:
        total = inputs[0]
        for one in inputs[1:]:
            total = function(total, one)
        return total

    return fold


def _reducing(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduce(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = attributes.get("axes") or numbers(axes)
        if not dims:
            if attributes.get("noop_with_empty_axes", 0):
                return function(x.unsqueeze(0), [0], False)
            dims = list(range(x.ndim))
        return function(x, list(dims), bool(attributes.get("keepdims", 1))).to(x.dtype)

    return reduce


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((dim % x.ndim for dim in dims), reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return x.mean(dims, keep) if x.is_floating_point() else x.double().mean(dims, keep).trunc()


def _arg(largest: bool) -> Operator:
    def arg(attributes: Attributes, x: Tensor) -> Tensor:
        axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
        last = attributes.get("select_last_index", 0)
        values = x.flip(axis) if last else x
        best = (values.max(axis, keep) if largest else values.min(axis, keep)).indices
        return x.shape[axis] - 1 - best if last else best

    return arg


def _pool_pads(attributes: Attributes, x: Tensor) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, and pads that make a pool without rounding up of one that rounds up."""
    kernel = list(attributes["kernel_shape"])
    n = len(kernel)
    strides = list(attributes.get("strides", [1] * n))
    dilations = list(attributes.get("dilations", [1] * n))
    pads = pads_of(attributes, x, kernel, strides)
    if attributes.get("ceil_mode", 0):
        for i, side in enumerate(x.shape[2:]):
            reach = dilations[i] * (kernel[i] - 1) + 1
            left = side + pads[i] + pads[n + i] - reach
            outputs = -(-left // strides[i]) + 1
            if (outputs - 1) * strides[i] >= side + pads[i]:  # a window that begins in the padding
                outputs -= 1
            pads[n + i] = (outputs - 1) * strides[i] + reach - side - pads[i]
    return kernel, strides, dilations, pads


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    if attributes["outputs"] > 1:
        raise ValueError("a MaxPool that tells where the largest are")
    kernel, strides, dilations, pads = _pool_pads(attributes, x)
    whole = not x.is_floating_point()
    values = padded(x.float() if whole else x, pads, -math.inf)
    call = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    return call(values, kernel, strides, 0, dilations).to(x.dtype)


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    kernel, strides, dilations, pads = _pool_pads(attributes, x)
    n = len(kernel)
    ones = torch.ones((x.shape[1], 1, *kernel), dtype=x.dtype, device=x.device)
    call = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    inside = torch.ones_like(x)
    if attributes.get("count_include_pad", 0):
        inside = padded(inside, pads_of(attributes, x, kernel, strides), 1.0)
    more = [whole - part for whole, part in zip(pads, _difference(inside, x, pads), strict=True)]
    total = call(padded(x, pads), ones, None, strides, 0, dilations, x.shape[1])
    return total / call(padded(inside, more), ones, None, strides, 0, dilations, x.shape[1])


def _difference(inside: Tensor, x: Tensor, pads: Sequence[int]) -> list[int]:
    """How much of `pads` is in `inside` already: nothing, or all but what rounding up adds."""
    if inside.shape == x.shape:
        return [0] * len(pads)
    n = len(pads) // 2
    added = [a - b for a, b in zip(inside.shape[2:], x.shape[2:], strict=True)]
    return [*pads[:n], *(whole - begin for whole, begin in zip(added, pads[:n], strict=True))]


def _batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, *of: Tensor) -> Tensor:
    mean, variance = of
    if attributes.get("training_mode", 0):
        raise ValueError("a BatchNormalization that trains")
    return F.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _group_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = attributes["num_groups"]
    if scale.numel() == groups:  # as before opset 21
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return F.group_norm(x, groups, scale, bias, attributes.get("epsilon", 1e-5))


def layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """The layer normalisation of x over its last axes; its sums are in float32, whatever x is."""
    axis = attributes.get("axis", -1) % x.ndim
    made = F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5))
    if attributes["outputs"] == 1:
        return made
    dims = list(range(axis, x.ndim))
    mean = x.float().mean(dims, keepdim=True)
    variance = x.float().var(dims, correction=0, keepdim=True)
    return made, mean, (variance + attributes.get("epsilon", 1e-5)).rsqrt()


def _rms_norm(attributes: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    axis = attributes.get("axis", -1) % x.ndim
    dims = list(range(axis, x.ndim))
    mean = x.float().square().mean(dims, keepdim=True)
    made: Tensor = (x.float() * (mean + attributes.get("epsilon", 1e-5)).rsqrt()).to(x.dtype)
    return made * scale


def _skip_layer_norm(attributes: Attributes, *inputs: Tensor | None) -> Any:
    x, skip, scale, shift, bias = or_none(inputs, 5)
    total = x + skip if bias is None else x + skip + bias
    made = F.layer_norm(total, x.shape[-1:], scale, shift, attributes.get("epsilon", 1e-12))
    return made if attributes["outputs"] == 1 else (made, None, None, total)


def _lp_norm(attributes: Attributes, x: Tensor) -> Tensor:
    axis, p = attributes.get("axis", -1), attributes.get("p", 2)
    length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / length)


def _cumulated(attributes: Attributes, x: Tensor, axis: Tensor) -> Tensor:
    dim = int(axis)
    total = x.flip(dim) if attributes.get("reverse", 0) else x
    made = total.cumsum(dim, dtype=x.dtype)
    made = made - total if attributes.get("exclusive", 0) else made
    return made.flip(dim) if attributes.get("reverse", 0) else made


def _constant_of_shape(attributes: Attributes, shape: Tensor) -> Tensor:
    value: Tensor = attributes.get("value", torch.zeros(1))
    return value.reshape(()).expand(numbers(shape) or ()).clone()


def _depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    size = attributes["blocksize"]
    b, c, h, w = x.shape
    if text(attributes, "mode", "DCR") == "DCR":
        blocks = x.reshape(b, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(b, c // size**2, size, size, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(b, c // size**2, h * size, w * size)


def _space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    size = attributes["blocksize"]
    b, c, h, w = x.shape
    blocks = x.reshape(b, c, h // size, size, w // size, size)
    by_block = text(attributes, "mode", "DCR") == "DCR"
    blocks = blocks.permute((0, 3, 5, 1, 2, 4) if by_block else (0, 1, 3, 5, 2, 4))
    return blocks.reshape(b, c * size**2, h // size, w // size)


def _gather(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = attributes.get("axis", 0) % x.ndim
    flat = indices.reshape(-1).long()
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    made = x.index_select(axis, flat)
    return made.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = attributes.get("axis", 0)
    indices = indices.long()
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    batch, depth = attributes.get("batch_dims", 0), indices.shape[-1]
    front, rows = x.shape[:batch], math.prod(x.shape[:batch])
    values = x.reshape(rows, *x.shape[batch:])
    places = indices.long().reshape(rows, -1, depth)
    of_row = torch.arange(rows, device=x.device)[:, None].expand(rows, places.shape[1])
    where = (of_row, *places.unbind(-1))
    made = values[where]
    return made.reshape((*front, *indices.shape[batch:-1], *x.shape[batch + depth :]))


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    made = (a.T if attributes.get("transA", 0) else a) @ (b.T if attributes.get("transB", 0) else b)
    made = made * float(attributes.get("alpha", 1.0))
    return made if c is None else made + float(attributes.get("beta", 1.0)) * c


def _fused_matmul(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    a = a.mT if attributes.get("transA", 0) else a
    b = b.mT if attributes.get("transB", 0) else b
    return float(attributes.get("alpha", 1.0)) * (a @ b)


def _pad(attributes: Attributes, x: Tensor, *more: Tensor | None) -> Tensor:
    pads, value, axes = or_none(more, 3)
    sides = attributes.get("pads") or numbers(pads) or []
    dims = [axis % x.ndim for axis in numbers(axes) or range(x.ndim)]
    before_after = [(0, 0)] * x.ndim
    for i, dim in enumerate(dims):
        before_after[dim] = sides[i], sides[len(dims) + i]
    mode = text(attributes, "mode", "constant")
    if mode == "constant":
        flat = [side for pair in reversed(before_after) for side in pair]
        return F.pad(x, flat, value=0 if value is None else value.item())
    for dim, (before, after) in enumerate(before_after):
        length = x.shape[dim]
        numpy_mode: Any = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}[mode]
        places = np.pad(np.arange(length), (max(before, 0), max(after, 0)), numpy_mode)
        places = places[max(-before, 0) : len(places) - max(-after, 0)]
        if len(places) != length or before:
            x = x.index_select(dim, torch.from_numpy(places).to(x.device))
    return x


def _reshape(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sides = numbers(shape) or []
    if not attributes.get("allowzero", 0):
        sides = [x.shape[i] if side == 0 else side for i, side in enumerate(sides)]
    return x.reshape(tuple(sides))


def _shape(attributes: Attributes, x: Tensor) -> Tensor:
    begin, end = attributes.get("start", 0), attributes.get("end", x.ndim)
    return torch.tensor(x.shape[begin:end], dtype=torch.int64)


def _slice(attributes: Attributes, x: Tensor, *more: Tensor | None) -> Tensor:
    starts, ends, axes, steps = (numbers(one) for one in or_none(more, 4))
    starts, ends = attributes.get("starts", starts), attributes.get("ends", ends)
    axes = attributes.get("axes", axes) or list(range(len(starts)))
    for begin, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        length = x.shape[axis]
        places = range(length)[slice(begin, None if step < 0 and end < -length else end, step)]
        if step > 0:
            x = x.narrow(axis, places.start if places else 0, max(0, places.stop - places.start))
            x = x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)] if step > 1 else x
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))
    return x


def _split(attributes: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, parts = attributes.get("axis", 0), attributes["outputs"]
    lengths = attributes.get("split") or numbers(sizes)
    if lengths is None:
        length = -(-x.shape[axis] // parts)
        lengths = [length] * (parts - 1) + [x.shape[axis] - length * (parts - 1)]
    return tuple(torch.split(x, lengths, axis))


def _squeeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = attributes.get("axes") or numbers(axes)
    return x.squeeze() if dims is None else x.squeeze(tuple(dims))


def _unsqueeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = attributes.get("axes") or numbers(axes) or []
    for dim in sorted(dim % (x.ndim + len(dims)) for dim in dims):
        x = x.unsqueeze(dim)
    return x


def _expand(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    wanted = np.broadcast_shapes(tuple(x.shape), tuple(numbers(shape) or ()))
    return x.expand(wanted)


def _flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _top(attributes: Attributes, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
    values, indices = x.sort(stable=True, dim=axis, descending=largest)
    return values.narrow(axis, 0, int(count)), indices.narrow(axis, 0, int(count))


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    return x.permute(attributes.get("perm", list(reversed(range(x.ndim)))))


def _softmax(attributes: Attributes, x: Tensor) -> Tensor:
    return F.softmax(x, attributes.get("axis", -1))


def attention(attributes: Attributes, q: Tensor, keys: Tensor, v: Tensor, mask: Any = None) -> Tensor:
    """softmax(scale q keys + mask) v in one kernel; keys are [..., d, n], as a product takes them.

    This is no operator of ONNX: `OnnxProgram` makes it of its products, scales and softmax.
    """
    return F.scaled_dot_product_attention(q, keys.mT, v, attn_mask=mask, scale=attributes["scale"])


def linear(_: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight + bias in one kernel; `OnnxProgram` makes it of a product and a sum."""
    return F.linear(x, weight.mT, bias)


def _plain(function: Operator) -> Operator:
    return lambda _, *inputs: function(*inputs)


def _same_type(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, a, b: function(a, b).to(a.dtype)


# Functions of torch that take an operator's inputs as they are.
_PLAIN: Final[dict[str, Operator]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

OPERATORS: Final[dict[str, Operator]] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda attributes, x: x.to(attributes["to"]),
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Clip": _clip,
    "Concat": lambda attributes, *inputs: torch.cat(inputs, attributes["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": convolve,
    "CumSum": _cumulated,
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": lambda attributes, x: F.elu(x, attributes.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x.mean(list(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda _, x: x.amax(list(range(2, x.ndim)), keepdim=True),
    "GroupNormalization": _group_norm,
    "HardSigmoid": lambda attributes, x: (
        x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    ).clamp(0, 1),
    "Identity": lambda _, x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, attributes.get("alpha", 0.01)),
    "LogSoftmax": lambda attributes, x: F.log_softmax(x, attributes.get("axis", -1)),
    "LpNormalization": _lp_norm,
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Mean": lambda _, *inputs: _folded(torch.add)(_, *inputs) / len(inputs),
    "Min": _folded(torch.minimum),
    "PRelu": lambda _, x, slope: torch.where(x < 0, slope * x, x),
    "Pad": _pad,
    "Pow": _same_type(torch.pow),
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reducing(lambda x, dims, keep: x.abs().sum(dims, keep)),
    "ReduceL2": _reducing(lambda x, dims, keep: x.square().sum(dims, keep).sqrt()),
    "ReduceLogSumExp": _reducing(lambda x, dims, keep: x.logsumexp(dims, keep)),
    "ReduceMax": _reducing(lambda x, dims, keep: x.amax(dims, keep)),
    "ReduceMean": _reducing(_mean),
    "ReduceMin": _reducing(lambda x, dims, keep: x.amin(dims, keep)),
    "ReduceProd": _reducing(_product),
    "ReduceSum": _reducing(lambda x, dims, keep: x.sum(dims, keep)),
    "ReduceSumSquare": _reducing(lambda x, dims, keep: x.square().sum(dims, keep)),
    "Reshape": _reshape,
    "Resize": resize,
    "Selu": lambda attributes, x: (
        attributes.get("gamma", 1.0507009873554805)
        * (torch.where(x > 0, x, attributes.get("alpha", 1.6732632423543772) * torch.expm1(x)))
    ),
    "Shape": _shape,
    "Size": lambda _, x: torch.tensor(x.numel(), dtype=torch.int64),
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _folded(torch.add),
    "Swish": lambda attributes, x: x * torch.sigmoid(attributes.get("alpha", 1.0) * x),
    "Tile": lambda _, x, times: x.repeat(numbers(times) or ()),
    "TopK": _top,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    # onnxruntime's own
    "BiasGelu": _gelu,
    "FastGelu": lambda _, x, *bias: _gelu({"approximate": "tanh"}, x, *bias),
    "FusedMatMul": _fused_matmul,
    "QuickGelu": lambda attributes, x: x * torch.sigmoid(attributes.get("alpha", 1.702) * x),
    "SkipLayerNormalization": _skip_layer_norm,
    # made by OnnxProgram
    "patchcut.attention": attention,
    "patchcut.linear": linear,
    **QUANTIZED,
}
