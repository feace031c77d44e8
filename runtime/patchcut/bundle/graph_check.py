"""What a bundle's graph may hold, checked in its bytes before an engine sees them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from struct import iter_unpack
from typing import Any, Final

from patchcut.bundle.onnx_messages import GraphError, Message, read_model

MAX_GRAPH_BYTES: Final = 1 << 30
MAX_NODES: Final = 20_000
MAX_TENSORS: Final = 20_000
MAX_RANK: Final = 8
MAX_ELEMENTS: Final = 1 << 28
MAX_PADDING: Final = 1024
MAX_FACTOR: Final = 1024
MAX_OPSET: Final = 40

# Operators that compute their outputs once from their inputs: no loops or branches, random numbers, texts,
# sequences or pictures, and no outputs as large as a value says. ViTs and CNNs need no more.
OPERATORS: Final = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant
    ConstantOfShape Conv ConvInteger Cos CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND
    Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
    HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization MatMul MatMulInteger Max MaxPool Mean Min Mish Mul Neg Not Or PRelu
    Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Reciprocal ReduceL1 ReduceL2
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize Round Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze
    Sub Sum Swish Tanh Tile TopK Transpose Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - a table for people
)
# The same, fused, as quantizers write them. Others of onnxruntime's own domain read files or jump about.
CONTRIBUTED: Final = frozenset(
    """
    BiasGelu DequantizeLinear DynamicQuantizeMatMul FastGelu FusedMatMul Gelu MatMulIntegerToFloat QGemm
    QLinearAdd QLinearMul QLinearSoftmax QuantizeLinear QuickGelu SkipLayerNormalization
    """.split()  # noqa: SIM905 - a table for people
)
_ALLOWED: Final = {"": OPERATORS, "ai.onnx": OPERATORS, "com.microsoft": CONTRIBUTED}

# Which input says how large the output is, by operator: in elements, as factors of a side, or as padding.
_SIZES: Final = {"ConstantOfShape": 0, "Expand": 1, "Resize": 3}
_FACTORS: Final = {"Tile": 1, "Resize": 2}
_PADDINGS: Final = {"Pad": 1}
_PADDING_ATTRIBUTES: Final = ("pads", "output_padding")
# Attributes that onnxruntime divides by; with 0 some versions end the process.
_COUNTS: Final = ("strides", "dilations", "kernel_shape", "group", "num_groups", "blocksize", "num_outputs")
_MAX_COUNT: Final = 1 << 16
# What only moves sizes about; it takes them from its first input, or from all of them.
_MOVES_FIRST: Final = ("Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze")
_MOVES_ALL: Final = ("Concat", "Mul")
_MAX_DEPTH: Final = 32

# Bytes of an element, and the field besides raw_data, by TensorProto.DataType; texts and others are refused.
_TYPES: Final = {
    1: (4, "float_data"),
    2: (1, "int32_data"),
    3: (1, "int32_data"),
    4: (2, "int32_data"),
    5: (2, "int32_data"),
    6: (4, "int32_data"),
    7: (8, "int64_data"),
    9: (1, "int32_data"),
    10: (2, "int32_data"),
    11: (8, "double_data"),
    12: (4, "uint64_data"),
    13: (8, "uint64_data"),
    16: (2, "int32_data"),
}
_LAYOUTS: Final = {1: "<f", 6: "<i", 7: "<q", 11: "<d"}
_DATA: Final = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_FLOAT, _UINT8, _INT32, _INT64, _BOOL = 1, 2, 6, 7, 9
_FLOATS: Final = (1, 10, 11, 16)
# The type of an operator's first output, where it is not that of its first input; and which input says it.
_MAKES: Final = {
    **dict.fromkeys(("ArgMax", "ArgMin", "Shape", "Size"), _INT64),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), _INT32),
    **dict.fromkeys(("DynamicQuantizeLinear", "QuantizeLinear", "QLinearConv", "QLinearMatMul"), _UINT8),
    **dict.fromkeys(("QGemm", "QLinearAdd", "QLinearMul", "QLinearSoftmax"), _UINT8),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _FLOAT),
    **dict.fromkeys(("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"), _BOOL),
}
_TYPED_BY: Final = {"CastLike": 1, "DequantizeLinear": 1, "Where": 1}
_EXTERNAL = 1
_EXTERNAL_KEYS: Final = {"location", "offset", "length"}
# onnxruntime takes a file with these bytes for one of its own format, whatever else it is.
_OTHER_FORMAT: Final = (slice(4, 8), b"ORTM")


def check_graph(
    data: bytes, initializers: Collection[str], weights: str | None, source: str = "image"
) -> None:
    """Checks that a graph computes its outputs from one input and its weights, and touches nothing else.

    Operators are from a list; there are no subgraphs and functions; sizes have limits; and data outside the
    graph is that of `initializers`, all of it in the bundle's member `weights`.

    Args:
        data: the bytes of an ONNX file.
        initializers: names of the tensors that the graph must declare as external data.
        weights: the file that their declarations must name.
        source: name of the input.
    Raises:
        GraphError: naming what is against that.
    Examples:
        >>> graph, weights = bundle.spec.backbone.graphs[0], bundle.spec.backbone.weights
        >>> data = bundle.read(graph.file)
        >>> patchcut.bundle.graph_check.check_graph(data, graph.initializers, weights)
        >>> patchcut.bundle.graph_check.check_graph(data, (), None)
        Traceback (most recent call last):
        patchcut.bundle.onnx_messages.GraphError: it reads ... from a file, which `initializers` does not name
    """
    if len(data) > MAX_GRAPH_BYTES:
        raise GraphError(f"it has {len(data):,} bytes, the limit is {MAX_GRAPH_BYTES:,}")
    where, mark = _OTHER_FORMAT
    if data[where] == mark:
        raise GraphError("it is in onnxruntime's own format, not ONNX")
    model = read_model(data)
    graph = model["graph"]
    if graph is None or not model["opset_import"]:
        raise GraphError("it is no ONNX graph")
    _check_model(model)
    _check_initializers(graph["initializer"], initializers, weights)
    for node in graph["node"]:
        _check_node(node)
    _check_interface(graph, source)
    _Sizes(graph).check()
    _check_division(graph)


def _check_model(model: Message) -> None:
    for imported in model["opset_import"]:
        if not 1 <= imported["version"] <= MAX_OPSET:
            raise GraphError(f"its operators are of version {imported['version']} of {imported['domain']!r}")
    nodes, tensors = len(model["graph"]["node"]), len(model["graph"]["initializer"])
    if nodes > MAX_NODES or tensors > MAX_TENSORS:
        limits = f"the limits are {MAX_NODES:,} and {MAX_TENSORS:,}"
        raise GraphError(f"it has {nodes:,} nodes and {tensors:,} tensors, {limits}")


def _check_interface(graph: Message, source: str) -> None:
    held = {tensor["name"] for tensor in graph["initializer"]}
    inputs = {value["name"] for value in graph["input"]} - held
    if inputs != {source}:
        raise GraphError(f"its inputs must be {source}, got {', '.join(sorted(inputs)) or 'none'}")


def _check_initializers(tensors: list[Message], initializers: Collection[str], weights: str | None) -> None:
    names = Counter(tensor["name"] for tensor in tensors)
    if twice := [name for name, times in names.items() if times > 1]:
        raise GraphError(f"it has the tensor {twice[0]} twice")
    external = set()
    for tensor in tensors:
        if tensor["data_location"] == _EXTERNAL:
            _check_external(tensor, initializers, weights)
            external.add(tensor["name"])
        else:
            _check_tensor(tensor)
    if more := sorted(set(initializers) - external):
        raise GraphError(f"it does not declare {more[0]}, which `initializers` names, as external data")


def _check_external(tensor: Message, initializers: Collection[str], weights: str | None) -> None:
    name = tensor["name"]
    if name not in initializers:
        raise GraphError(f"it reads {name} from a file, which `initializers` does not name")
    _count(tensor)
    keys = Counter(entry["key"] for entry in tensor["external_data"])
    entries = {entry["key"]: entry["value"] for entry in tensor["external_data"]}
    if not keys.keys() <= _EXTERNAL_KEYS or max(keys.values(), default=0) > 1:
        raise GraphError(f"it says {', '.join(sorted(keys))} of where {name} lies")
    if entries.get("location") != weights:
        raise GraphError(f"it reads {name} from {entries.get('location')!r}, not from {weights!r}")
    numbers = [entries[key] for key in ("offset", "length") if key in entries]
    if not all(number.isascii() and number.isdecimal() and len(number) < 16 for number in numbers):
        raise GraphError(f"it says that {name} lies at {', '.join(numbers)}")
    if any(tensor[field] for field in _DATA):
        raise GraphError(f"it has data of {name}, and says that they lie in a file")


def _check_node(node: Message) -> None:
    domain, operator = node["domain"], node["op_type"]
    if operator not in _ALLOWED.get(domain, ()):
        raise GraphError(
            f"it has the operator {domain + '.' * bool(domain)}{operator}, which no bundle needs"
        )
    for attribute in node["attribute"]:
        if attribute["t"] is not None:
            if attribute["t"]["data_location"] == _EXTERNAL:
                raise GraphError(f"its {operator} reads a tensor from a file")
            _check_tensor(attribute["t"])
        if attribute["name"] in _PADDING_ATTRIBUTES:
            _check_padding(operator, attribute["ints"])
        if attribute["name"] in _COUNTS:
            counts = attribute["ints"] or [attribute["i"]]
            if not all(1 <= count <= _MAX_COUNT for count in counts):
                raise GraphError(f"its {operator} has {attribute['name']} of {counts}")


def _check_padding(operator: str, padding: list[Any]) -> None:
    if any(not abs(one) <= MAX_PADDING for one in padding):
        raise GraphError(f"its {operator} pads by more than {MAX_PADDING}")


def _check_tensor(tensor: Message) -> None:
    """Checks that a tensor holds as many bytes or numbers as it says."""
    if tensor["external_data"] or tensor["data_location"]:
        raise GraphError(f"its tensor {tensor['name']} lies in a file, and does not")
    count = _count(tensor)
    item_bytes, numbers = _TYPES[tensor["data_type"]]
    filled = [name for name in _DATA if tensor[name]]
    held = len(tensor["raw_data"]) / item_bytes if filled == ["raw_data"] else len(tensor[numbers])
    if filled not in ([], ["raw_data"], [numbers]) or held != count:
        raise GraphError(f"its tensor {tensor['name']} says that it has {count:,} elements, and has {held:g}")


def _count(tensor: Message) -> int:
    name, dims = tensor["name"], tensor["dims"]
    if tensor["data_type"] not in _TYPES:
        raise GraphError(f"its tensor {name} is of type {tensor['data_type']}")
    if len(dims) > MAX_RANK or any(not 0 <= dim <= MAX_ELEMENTS for dim in dims):
        raise GraphError(f"its tensor {name} is of shape {dims[: MAX_RANK + 1]}")
    count = math.prod(dims)
    if count > MAX_ELEMENTS:
        raise GraphError(f"its tensor {name} has {count:,} elements, the limit is {MAX_ELEMENTS:,}")
    return count


class _Sizes:
    """Follows what says how large an output is, back to constants and to the sides of other tensors."""

    def __init__(self, graph: Message) -> None:
        self._nodes = graph["node"]
        self._producers = {name: node for node in self._nodes for name in node["output"] if name}
        tensors = {one["name"]: one for one in graph["initializer"]}
        constants = [node for node in self._nodes if node["op_type"] == "Constant" and node["output"]]
        self._constants = {name: _numbers(tensor) for name, tensor in tensors.items()}
        self._constants |= {node["output"][0]: _constant(node) for node in constants}
        self._known: dict[str, float] = {}

    def check(self) -> None:
        """Raises GraphError where an output may become larger than the limits."""
        for node in self._nodes:
            operator = node["op_type"]
            if name := _input(node, _SIZES.get(operator)):
                elements = self._product(name, operator)
                if elements > MAX_ELEMENTS:
                    raise GraphError(
                        f"its {operator} makes {elements:,.0f} elements, the limit is {MAX_ELEMENTS:,}"
                    )
            if name := _input(node, _FACTORS.get(operator)):
                factor = math.prod(max(1.0, float(one)) for one in self._fixed(name, operator))
                if not factor <= MAX_FACTOR:
                    raise GraphError(f"its {operator} enlarges {factor:g} times, the limit is {MAX_FACTOR:,}")
            if name := _input(node, _PADDINGS.get(operator)):
                _check_padding(operator, self._fixed(name, operator))

    def _fixed(self, name: str, operator: str) -> list[Any]:
        numbers = self._constants.get(name)
        if numbers is None or not all(math.isfinite(number) for number in numbers):
            raise GraphError(f"its {operator} is told its size by what the graph computes")
        return numbers

    def _product(self, name: str, operator: str, depth: int = 0) -> float:
        """At most the product of the sizes that `name` holds; those of other tensors count as 1."""
        if name in self._known:
            return self._known[name]
        numbers, node = self._constants.get(name), self._producers.get(name)
        if numbers is not None:
            product = math.prod(max(1.0, float(one)) for one in numbers)
        elif node is not None and node["op_type"] == "Shape":
            product = 1.0
        elif node is not None and depth < _MAX_DEPTH and node["op_type"] in (*_MOVES_FIRST, *_MOVES_ALL):
            sources = node["input"][: 1 if node["op_type"] in _MOVES_FIRST else None]
            product = math.prod(self._product(source, operator, depth + 1) for source in sources)
        else:
            raise GraphError(f"its {operator} is told its size by what the graph computes")
        self._known[name] = product
        return product


def _check_division(graph: Message) -> None:
    """Whole numbers may only be divided by constants above 0: x / 0 and least / -1 end the process."""
    types = _element_types(graph)
    constants = {one["name"]: _numbers(one) for one in graph["initializer"]}
    constants |= {name: _constant(node) for node in graph["node"] for name in node["output"][:1]}
    for node in graph["node"]:
        operator, inputs = node["op_type"], node["input"]
        if operator not in ("Div", "ReduceMean") or any(types.get(name) in _FLOATS for name in inputs):
            continue
        divisors = constants.get(inputs[1]) if operator == "Div" and len(inputs) > 1 else None
        if not divisors or not all(number > 0 for number in divisors):
            raise GraphError(f"its {operator} divides whole numbers by what may be 0")


def _element_types(graph: Message) -> dict[str, int]:
    """The TensorProto.DataType of tensors by name, as far as nodes are in the order in which they run."""
    types: dict[str, int] = {one["name"]: one["data_type"] for one in graph["initializer"]}
    types["image"] = _FLOAT
    for node in graph["node"]:
        operator = node["op_type"]
        if operator in _MAKES:
            made = _MAKES[operator]
        elif operator == "Cast":
            made = next((one["i"] for one in node["attribute"] if one["name"] == "to"), 0)
        elif operator in ("Constant", "ConstantOfShape"):
            made = _constant_type(node)
        else:
            made = types.get(_input(node, _TYPED_BY.get(operator, 0)), 0)
        types.update(dict.fromkeys(node["output"][:1], made))
        if operator == "Split":
            types.update(dict.fromkeys(node["output"], made))
    return types


def _constant_type(node: Message) -> int:
    for attribute in node["attribute"]:
        if attribute["t"] is not None:
            return int(attribute["t"]["data_type"])
        if attribute["name"].startswith("value_int"):
            return _INT64
    return _FLOAT


def _input(node: Message, index: int | None) -> str:
    return node["input"][index] if index is not None and index < len(node["input"]) else ""


def _constant(node: Message) -> list[Any] | None:
    """The numbers of a Constant node; None where they are many, or no numbers."""
    for attribute in node["attribute"]:
        if attribute["t"] is not None:
            return _numbers(attribute["t"])
        if attribute["name"] in ("value_int", "value_float"):
            return [attribute["i"] or attribute["f"]]
        if attribute["name"] in ("value_ints", "value_floats"):
            return [*attribute["ints"], *attribute["floats"]]
    return None


def _numbers(tensor: Message) -> list[Any] | None:
    """The numbers of a small tensor; None where it is large, or of a type that sizes are not given in."""
    layout = _LAYOUTS.get(tensor["data_type"])
    if layout is None or math.prod(tensor["dims"]) > 4 * MAX_RANK:
        return None
    if tensor["raw_data"]:
        return [number for (number,) in iter_unpack(layout, tensor["raw_data"])]
    numbers: list[Any] = tensor[_TYPES[tensor["data_type"]][1]]
    return numbers
