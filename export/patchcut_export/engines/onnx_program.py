"""A bundle's ONNX graph as calls of torch, for one batch: what the file says, whatever ViT it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from patchcut_export.engines.operators import OPERATORS, READ_AHEAD, TORCH_TYPES, Operator

Tensor = torch.Tensor

IMAGE = "image"
_OLDEST_OPSET = 13  # before it a softmax was another function
_LAST_AXIS = (-1, 3)


class GraphError(ValueError):
    """A graph that cannot be run here; the message says why."""


@dataclass
class _Node:
    """One call: an operator, its attributes, and the names of what goes in and comes out."""

    operator: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class _Step:
    """A node of a plan; `drops` are values that nobody needs any more."""

    call: Operator
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    drops: list[str] = field(default_factory=list)


class OnnxProgram:
    """A graph whose weights are on a device, in the type that it computes in.

    Args:
        model: the graph; the data of external initializers are in `weights`.
        weights: name → array.
        outputs: names of the outputs that are wanted; nodes that they do not need are left out.
        device: where it runs.
        dtype: takes the place of float32; None for all types as the file has them.
    Raises:
        GraphError: an operator, a type or an opset that is not known here, or an output that is not there.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Mapping[str, np.typing.NDArray[Any]],
        outputs: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype or torch.float32
        self._outputs = tuple(outputs)
        versions = {one.domain: one.version for one in model.opset_import}
        if versions.get("", _OLDEST_OPSET) < _OLDEST_OPSET:
            raise GraphError(f"opset {versions['']}, {_OLDEST_OPSET} or newer is needed")
        if missing := set(outputs) - {one.name for one in model.graph.output}:
            raise GraphError(f"no output {', '.join(sorted(missing))}")
        self._nodes = _needed([self._node(node) for node in model.graph.node], outputs)
        needed = {name for node in self._nodes for name in node.inputs}
        self._constants: dict[str, Tensor] = {
            one.name: _tensor(weights[one.name] if one.name in weights else numpy_helper.to_array(one))
            for one in model.graph.initializer
            if one.name in needed
        }
        self._data: dict[str, Tensor] = {}  # constants as the steps of all plans read them
        self._fold()
        self._nodes = _Fusion(self._nodes, outputs, self._constants).nodes()
        self._forget()

    def prepare(self, shape: tuple[int, ...]) -> Plan:
        """The calls for images of one shape [b, 3, Sh, Sw]; it runs them once, on black images."""
        return Plan(self, torch.zeros(shape, dtype=self.dtype, device=self.device))

    def nodes(self) -> Iterator[_Node]:
        """What is left to compute when the constants are known."""
        return iter(self._nodes)

    def constant(self, name: str) -> Tensor | None:
        """A value that no image changes, on the CPU; None where there is none of this name."""
        return self._constants.get(name)

    def data(self, name: str) -> Tensor:
        """A constant on the device, in the type that is computed in."""
        if name not in self._data:
            self._data[name] = self.as_data(self._constants[name])
        return self._data[name]

    def as_data(self, value: Tensor) -> Tensor:
        """`value` on the device, in the type that is computed in."""
        return value.to(self.device, self.dtype if value.dtype == torch.float32 else value.dtype)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are wanted."""
        return self._outputs

    def _node(self, node: onnx.NodeProto) -> _Node:
        operator = node.op_type
        if operator != "Constant" and operator not in OPERATORS:
            raise GraphError(f"an operator {operator}")
        attributes = {one.name: self._attribute(operator, one) for one in node.attribute}
        attributes["outputs"] = len(node.output)
        return _Node(operator, attributes, list(node.input), list(node.output))

    def _attribute(self, operator: str, attribute: onnx.AttributeProto) -> Any:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return _tensor(numpy_helper.to_array(value))
        if attribute.name in ("to", "output_dtype") and value:
            if value not in TORCH_TYPES:
                raise GraphError(f"a {operator} to type {value}")
            made = TORCH_TYPES[value]
            return self.dtype if made == torch.float32 else made
        return (
            list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
        )

    def _fold(self) -> None:
        """Computes what needs no image, once."""
        kept = []
        for node in self._nodes:
            if node.operator == "Constant":
                self._constants[node.outputs[0]] = _constant(node)
            elif all(not name or name in self._constants for name in node.inputs):
                values = [self._constants.get(name) for name in node.inputs]
                made = run_node(OPERATORS[node.operator], node.attributes, values, len(node.outputs))
                self._constants |= dict(zip(node.outputs, made, strict=False))
            else:
                kept.append(node)
        self._nodes = kept

    def _forget(self) -> None:
        """Lets go of the constants that only led to others."""
        used = {name for node in self._nodes for name in node.inputs} | set(self._outputs)
        self._constants = {name: value for name, value in self._constants.items() if name in used}


class Plan:
    """The calls that turn images of one shape into features; each call of it makes them anew.

    Nothing in it reads a value back from the device or decides by one, so that a CUDA graph can hold it.
    """

    def __init__(self, program: OnnxProgram, images: Tensor) -> None:
        self._outputs = program.outputs
        self._kept: dict[str, Tensor] = {}
        self._steps: list[_Step] = []
        self._prepare(program, {IMAGE: images})
        self._drop_early()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """The wanted outputs of images [b, 3, Sh, Sw], of the shape and type that it was prepared for."""
        values = {**self._kept, IMAGE: images}
        for step in self._steps:
            inputs = [values[name] if name else None for name in step.inputs]
            made = step.call(step.attributes, *inputs)
            if len(step.outputs) == 1:
                values[step.outputs[0]] = made[0] if isinstance(made, tuple) else made
            else:
                values |= dict(zip(step.outputs, made, strict=False))
            for name in step.drops:
                values.pop(name, None)
        return tuple(values[name] for name in self._outputs)

    def _prepare(self, program: OnnxProgram, values: dict[str, Tensor]) -> None:
        """Runs the nodes once: what only depends on shapes is computed here, the rest becomes steps."""
        known: dict[str, Tensor] = {}  # on the CPU, by what shapes there are

        def host(name: str) -> Tensor | None:
            return known.get(name) if name in known else program.constant(name)

        for node in program.nodes():
            call = OPERATORS[node.operator]
            if node.operator in ("Shape", "Size"):
                source = values.get(node.inputs[0], host(node.inputs[0]))
                known[node.outputs[0]] = call(node.attributes, source)
                continue
            if all(not name or host(name) is not None for name in node.inputs):
                inputs = [host(name) for name in node.inputs]
                made = run_node(call, node.attributes, inputs, len(node.outputs))
                known |= dict(zip(node.outputs, made, strict=False))
                continue
            for i, name in enumerate(node.inputs):
                if name and name not in values:
                    self._keep(program, known, node, i, name)
            slots = tuple(_slot(node, i, name) for i, name in enumerate(node.inputs))
            held = [None if not name else self._kept.get(name, values.get(name)) for name in slots]
            made = run_node(call, node.attributes, held, len(node.outputs))
            values |= dict(zip(node.outputs, made, strict=False))
            self._steps.append(_Step(call, node.attributes, slots, tuple(node.outputs)))
        for name in self._outputs:
            if name not in values:
                constant = host(name)
                if constant is None:
                    raise GraphError(f"an output {name} that nothing makes")
                self._kept[name] = program.as_data(constant)

    def _keep(
        self, program: OnnxProgram, known: Mapping[str, Tensor], node: _Node, i: int, name: str
    ) -> None:
        """Makes input i of a node ready, which no image changes: on the CPU where it is read ahead."""
        slot = _slot(node, i, name)
        if slot in self._kept:
            return
        value = known.get(name) if name in known else program.constant(name)
        if value is None:
            raise GraphError(f"a {node.operator} of {name}, which nothing makes")
        if slot != name:
            self._kept[slot] = value
        else:
            self._kept[slot] = program.as_data(value) if name in known else program.data(name)

    def _drop_early(self) -> None:
        """Lets each value go after the last step that reads it, so that its memory is used again."""
        last: dict[str, _Step] = {}
        for step in self._steps:
            last |= dict.fromkeys((*step.outputs, *filter(None, step.inputs)), step)
        for name, step in last.items():
            if name and name not in self._kept and name not in self._outputs and name != IMAGE:
                step.drops.append(name)


def run_node(
    call: Operator, attributes: Mapping[str, Any], inputs: Sequence[Tensor | None], outputs: int
) -> tuple[Any, ...]:
    """All outputs of one operator.

    Raises:
        GraphError: torch refuses.
    """
    try:
        made = call(attributes, *inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, KeyError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise GraphError(f"an operator that torch refuses: {error}") from error
    return made if isinstance(made, tuple) else (made,) * min(outputs, 1)


def _slot(node: _Node, i: int, name: str) -> str:
    """Where a plan finds input i of a node: what is read ahead has a place of its own, on the CPU."""
    return f"{name} (read ahead)" if name and i in READ_AHEAD.get(node.operator, ()) else name


def _tensor(array: np.typing.NDArray[Any]) -> Tensor:
    """The array as a tensor on the CPU."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise GraphError(f"a tensor of type {array.dtype}") from error


def _constant(node: _Node) -> Tensor:
    for name, dtype in (("value", None), ("value_float", torch.float32), ("value_floats", torch.float32)):
        if name in node.attributes:
            return torch.as_tensor(node.attributes[name], dtype=dtype)
    value = node.attributes.get("value_int", node.attributes.get("value_ints"))
    if value is None:
        raise GraphError("a Constant that is neither a tensor nor numbers")
    return torch.as_tensor(value, dtype=torch.int64)


def _needed(nodes: list[_Node], outputs: Sequence[str]) -> list[_Node]:
    """The nodes that the outputs stand on."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            kept.append(node)
            wanted |= set(node.inputs)
    return kept[::-1]


class _Fusion:
    """Attention, and linear layers, as one call each."""

    def __init__(self, nodes: list[_Node], outputs: Sequence[str], constants: Mapping[str, Tensor]) -> None:
        self._nodes = nodes
        self._constants = constants
        self._makers = {name: node for node in nodes for name in node.outputs}
        self._readers = Counter([*(name for node in nodes for name in node.inputs), *outputs, *outputs])
        self._gone: list[_Node] = []

    def nodes(self) -> list[_Node]:
        """The nodes, changed in place, without those that became part of another."""
        for node in self._nodes:
            if node.operator == "MatMul":
                self._fuse_attention(node)
            elif node.operator == "Add":
                self._fuse_linear(node)
        return [node for node in self._nodes if not any(node is one for one in self._gone)]

    def _only(self, name: str, *operators: str) -> _Node | None:
        """The node that makes a value which one node alone reads, if it is one of these operators."""
        maker = self._makers.get(name)
        fits = maker is not None and maker.operator in operators and self._readers[name] == 1
        return maker if fits else None

    def _fuse_attention(self, node: _Node) -> None:
        """Makes softmax(scale q k + mask) v of the last product."""
        softmax = self._only(node.inputs[0], "Softmax")
        if softmax is None or softmax.attributes.get("axis", -1) not in _LAST_AXIS:
            return
        found, source, scale, mask = [softmax], softmax.inputs[0], 1.0, ""
        if add := self._only(source, "Add"):
            index = 0 if self._only(add.inputs[0], "MatMul", "Mul", "Div") else 1
            found.append(add)
            source, mask = add.inputs[index], add.inputs[1 - index]
        if scaled := self._only(source, "Mul", "Div"):
            factor = self._constants.get(scaled.inputs[1])
            if factor is None or factor.numel() != 1:
                return
            found.append(scaled)
            source = scaled.inputs[0]
            scale = float(factor) if scaled.operator == "Mul" else 1 / float(factor)
        product = self._only(source, "MatMul")
        if product is None:
            return
        node.operator, node.attributes = "patchcut.attention", {"outputs": 1, "scale": scale}
        node.inputs = [*product.inputs, node.inputs[1], *([mask] if mask else [])]
        self._gone += [*found, product]

    def _fuse_linear(self, node: _Node) -> None:
        """Makes x weight + bias of the sum, where weight and bias are the file's own."""
        for index in (0, 1):
            product, bias = self._only(node.inputs[index], "MatMul"), node.inputs[1 - index]
            if product is None or not self._has(bias, 1) or not self._has(product.inputs[1], 2):
                continue
            node.operator, node.attributes = "patchcut.linear", {"outputs": 1}
            node.inputs = [*product.inputs, bias]
            self._gone.append(product)
            return

    def _has(self, name: str, ndim: int) -> bool:
        """Whether a value is a constant of so many dimensions."""
        constant = self._constants.get(name)
        return constant is not None and constant.ndim == ndim
