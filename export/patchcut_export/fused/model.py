"""Puts the file together: frame, backbone, head; weights inside; and what it is, in its own metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, HeadSpec
from patchcut.cells import cells_of, finer_grid
from patchcut.stages import Canvas

from patchcut_export.errors import ExportError
from patchcut_export.fused.frames import add_frame, add_label_map
from patchcut_export.fused.heads import FUSED, assignment_rows
from patchcut_export.fused.nodes import Nodes
from patchcut_export.fused.plan import FusedPlan, choose_parts

INPUT, ASSIGNMENT, LABEL_MAP, FEATURES = "image", "assignment", "label_map", "features"
_BATCH = "batch"
_BACKBONE = "backbone/"
_MAX_BYTES = (1 << 31) - 1  # of one message of protobuf
# Of these the weights are floats in the file, so that an engine's defaults compute no less.
_FLOATS = ("fp32", "fp16", "bf16")

Tensors = dict[str, npt.NDArray[Any]]


def fuse(bundle: Bundle, plan: FusedPlan) -> bytes:
    """One ONNX file: `image` [batch, H, W, 3] uint8 → `assignment` [batch, n, k] float32.

    Of a decoder the assignment has a row for each cell of a patch.

    With `plan.label_map` also → `label_map` [batch, H, W] int32, with `plan.features` → `features`
    [batch, n, d] float32, a row a patch. With `plan.planar` the image is [batch, 3, H, W] float32, 0 to 255.
    Nothing lies outside the file.

    Raises:
        OptionError: as `choose_parts` does.
        BundleError: a member is damaged or foreign.
        ExportError: the bundle has no head for it, or the file would have 2 GiB or more.
    """
    head, backbone, graph = choose_parts(bundle, plan)
    frame_hw = plan.frame_hw or graph.size_hw
    model = _backbone(bundle, backbone, graph, packed=plan.packed)
    before, after = Nodes("frame/"), Nodes(f"{head.name}/")
    image = add_frame(before, INPUT, backbone, graph, frame_hw, plan.color, plan.planar)
    features = {name: f"{_BACKBONE}{backbone.features[name].output}" for name in head.features}
    FUSED[head.kind](after, features, bundle, head, graph.grid_hw, ASSIGNMENT)
    columns, rows = len(head.labels), assignment_rows(backbone, head, graph.grid_hw)
    outputs = [_value(ASSIGNMENT, TensorProto.FLOAT, rows, columns)]
    if plan.label_map:
        canvas = replace(Canvas.of(frame_hw, backbone, graph), grid_hw=finer_grid(rows, graph.grid_hw))
        add_label_map(after, ASSIGNMENT, canvas, columns, LABEL_MAP)
        outputs.append(_value(LABEL_MAP, TensorProto.INT32, *frame_hw))
    if plan.features:
        followed = backbone.features[head.features[0]]
        after.add("Identity", features[head.features[0]], output=FEATURES)
        patches = graph.grid_hw[0] * graph.grid_hw[1]
        outputs.append(_value(FEATURES, TensorProto.FLOAT, patches, followed.dim))
    nodes = [*before.nodes, *_reading(model.graph.node, image), *after.nodes]
    constants = [*before.constants, *model.graph.initializer, *after.constants]
    image_value = (
        _value(INPUT, TensorProto.FLOAT, 3, *frame_hw)
        if plan.planar
        else _value(INPUT, TensorProto.UINT8, *frame_hw, 3)
    )
    fused = _model(nodes, constants, image_value, outputs, model)
    helper.set_model_props(fused, _properties(bundle, plan, head, backbone, graph))
    return _checked(fused)


def _backbone(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, *, packed: bool) -> onnx.ModelProto:
    """A graph of the bundle with its weights inside; its names begin with "backbone/"."""
    model = onnx.load_model_from_string(bundle.read(graph.file))
    held = bundle.read_tensors(backbone.weights) if backbone.weights and graph.initializers else {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            data = held[tensor.name].tobytes()
            fields = {"name": tensor.name, "data_type": tensor.data_type, "dims": tensor.dims}
            tensor.CopyFrom(TensorProto(**fields, raw_data=data))
    if graph.precision in _FLOATS and not packed:
        _dequantize(model)
    return compose.add_prefix(model, _BACKBONE)


def _dequantize(model: onnx.ModelProto) -> None:
    """Turns weights that the graph keeps in 8 bits into the floats that it computes of them."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [one for one in model.graph.node if one.op_type == "DequantizeLinear"]
    for node in nodes:
        if not all(name in held for name in node.input):
            continue
        quantized, scale, *zero = (numpy_helper.to_array(held[name]) for name in node.input)
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        if scale.ndim == 1 and quantized.ndim > 1:
            along = [-1 if i == axis % quantized.ndim else 1 for i in range(quantized.ndim)]
            scale, zero = scale.reshape(along), [one.reshape(along) for one in zero]
        whole = quantized.astype(np.int32) - (zero[0].astype(np.int32) if zero else 0)
        floats = (whole.astype(scale.dtype) * scale).astype(scale.dtype)
        model.graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
        model.graph.node.remove(node)


def _reading(nodes: Iterable[onnx.NodeProto], image: str) -> list[onnx.NodeProto]:
    """The backbone's nodes, reading `image`."""
    taken = list(nodes)
    for node in taken:
        for i, name in enumerate(node.input):
            if name == f"{_BACKBONE}{INPUT}":
                node.input[i] = image
    return taken


def _model(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    image: onnx.ValueInfoProto,
    outputs: list[onnx.ValueInfoProto],
    backbone: onnx.ModelProto,
) -> onnx.ModelProto:
    """The nodes that the outputs need, and the constants that these read."""
    needed = _needed(nodes, {value.name for value in outputs})
    read = {name for node in needed for name in node.input}
    graph = helper.make_graph(
        needed,
        "patchcut",
        [image],
        outputs,
        [tensor for tensor in constants if tensor.name in read],
    )
    return helper.make_model(
        graph,
        opset_imports=backbone.opset_import,
        ir_version=backbone.ir_version,
        producer_name="patchcut",
    )


def _needed(nodes: list[onnx.NodeProto], wanted: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that `wanted` depends on; other feature sets of the backbone are left out."""
    known, kept = set(wanted), []
    for node in reversed(nodes):
        if known.intersection(node.output):
            known.update(node.input)
            kept.append(node)
    return kept[::-1]


def _value(name: str, type_: int, *sides: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type_, [_BATCH, *sides])


def _checked(model: onnx.ModelProto) -> bytes:
    size = model.ByteSize()
    if size > _MAX_BYTES:
        what = f"the file would have {size:,} bytes, one ONNX file has at most {_MAX_BYTES:,}"
        raise ExportError("export", what, "export fewer bits, such as --precision int8")
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _properties(
    bundle: Bundle, plan: FusedPlan, head: HeadSpec, backbone: BackboneSpec, graph: GraphSpec
) -> dict[str, str]:
    """What a program, or a person, needs to know of the file; lists are JSON.

    The grid is the assignment's, and the smallest region is told in rows of that.
    """
    frame_hw = plan.frame_hw or graph.size_hw
    resized = {"stretch": "stretched", "letterbox": "letterboxed"}[backbone.fit]
    resize = f"inside, {resized}" if plan.frame_hw else f"yours: frames come {resized}"
    rows = assignment_rows(backbone, head, graph.grid_hw)
    cells = cells_of(rows, graph.grid_hw)
    said = {
        "size_hw": list(frame_hw),
        "grid_hw": list(finer_grid(rows, graph.grid_hw)),
        "color": plan.color,
        "resize": resize,
        "labels": list(head.labels),
        "role": head.role,
        "precision": graph.precision,
        "min_area_patches": bundle.spec.regions.min_area_patches * cells**2,
        "bundle": bundle.spec.name,
        "head": head.name,
        "backbone": backbone.model,
        "source": backbone.source,
        "source_sha256": backbone.source_sha256,
        "licence": backbone.licence,
        "trained_on": "; ".join(filter(None, (backbone.trained_on, head.trained_on))),
    }
    return {
        f"patchcut.{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in said.items()
    }
