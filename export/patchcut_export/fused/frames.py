"""The two ends of a fused graph that know the frame: pixels to the backbone's image, patches to labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from patchcut.bundle import BackboneSpec, GraphSpec
from patchcut.settings import ColorOrder
from patchcut.stages import Canvas
from patchcut_kernels.reference import area_matrix, content_xyxy, linear_matrix

from patchcut_export.fused.nodes import Nodes

Matrix = npt.NDArray[np.float64]


def add_frame(
    nodes: Nodes,
    frame: str,
    backbone: BackboneSpec,
    graph: GraphSpec,
    frame_hw: tuple[int, int],
    color: ColorOrder,
    planar: bool = False,
) -> str:
    """The name of the image [b, 3, h, w] float32 of frames [b, H, W, 3] uint8, as `preprocess` makes it.

    Planar frames are [b, 3, H, W] float32, 0 to 255.
    Resizing is two products with constant matrices: engines' `Resize` differ, and none has a box filter.
    """
    pixels = frame
    if not planar:
        pixels = nodes.add("Transpose", nodes.add("Cast", frame, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    if color == "bgr":
        pixels = nodes.add("Gather", pixels, nodes.constant("rgb", np.array([2, 1, 0])), axis=1)
    mean, std = (np.reshape(value, (1, 3, 1, 1)) for value in (backbone.mean, backbone.std))
    scaled = nodes.add("Mul", pixels, nodes.constant("scale", 1 / (255 * std)))
    image = nodes.add("Add", scaled, nodes.constant("shift", -mean / std))
    if frame_hw == graph.size_hw:
        return image
    # Resized last: what a letterbox leaves free is then 0. OpenVINO 2026.4 fails where a product comes first.
    x0, y0, x1, y1 = content_xyxy(frame_hw, graph.size_hw, backbone.fit)
    rows = _resize(frame_hw[0], graph.size_hw[0], y0, y1)
    columns = _resize(frame_hw[1], graph.size_hw[1], x0, x1)
    image = nodes.add("MatMul", image, nodes.constant("columns", columns.T))
    return nodes.add("MatMul", nodes.constant("rows", rows), image)


def _resize(source: int, size: int, begin: int, end: int) -> Matrix:
    """[size, source]: a side of the frame to [begin, end) of the image's."""
    matrix = np.zeros((size, source))
    filled = end - begin
    matrix[begin:end] = area_matrix(source, filled) if source > filled else linear_matrix(source, filled)
    return matrix


def add_label_map(nodes: Nodes, assignment: str, canvas: Canvas, columns: int, output: str) -> None:
    """Writes label maps [b, H, W] int32 of assignments [b, n, k]: the largest column at each pixel, bilinear.

    Args:
        canvas: of the frames, with the grid of the assignments.
        columns: k.
        output: what the label maps are called.
    """
    height, width = canvas.grid_hw
    shape = nodes.constant("maps", np.array([0, columns, height, width]))
    maps = nodes.add("Reshape", nodes.add("Transpose", assignment, perm=[0, 2, 1]), shape)
    rows, across = (_upsample(canvas, axis) for axis in (0, 1))
    maps = nodes.add("MatMul", maps, nodes.constant("across", across.T))
    maps = nodes.add("MatMul", nodes.constant("down", rows), maps)
    labels = nodes.add("ArgMax", maps, axis=1, keepdims=0)
    nodes.add("Cast", labels, output=output, to=TensorProto.INT32)


def _upsample(canvas: Canvas, axis: int) -> Matrix:
    """[pixels, patches] of one side of the frame."""
    on_canvas = linear_matrix(canvas.grid_hw[axis], canvas.size_hw[axis])
    at = np.arange(canvas.frame_hw[axis]) + canvas.corner_yx[axis]
    return on_canvas[np.clip(at, 0, canvas.size_hw[axis] - 1)]
