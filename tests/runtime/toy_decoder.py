"""The toy bundle with a mask decoder: its graphs also tell, cell by cell, what the brightness and hue are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.runtime import toy_bundle as toy

LABELS = ("background", "bright", "blue")
# Of normalised RGB, [label, channel]: bright things are of label 1, and blue ones of label 2.
LOGITS = np.float32([[0, 0, 0], [1.2, 1.2, 0.2], [-1, -1, 3]])


def members(cells: int = 2, labels: int = 2) -> toy.Members:
    """Every member but bundle.json: the toy's, with the output `mask` [b, cells * cells * n, labels]."""
    files = toy.members()
    return {
        name: with_mask(data, cells, labels) if name.endswith(".onnx") else data
        for name, data in files.items()
    }


def manifest(files: toy.Members, cells: int = 2, labels: int = 2) -> dict[str, Any]:
    """bundle.json for these members: the decoder is the first head, the GNN of the toy the second."""
    spec = toy.manifest(files)
    component = {"facet": "mask", "layer": 0, "weight": 1.0}
    mask = {"output": "mask", "dim": labels, "components": [component]}
    spec["backbones"]["toy"]["features"]["mask"] = mask | ({"cells": cells} if cells != 1 else {})
    decoder = {
        "name": "decoder",
        "kind": "decoder",
        "role": "objects",
        "backbone": "toy",
        "features": ["key", "mask"],
        "labels": list(LABELS[:labels]),
        "trained_on": "nothing",
    }
    spec["heads"].insert(0, decoder)
    return spec


def write(path: Path, cells: int = 2, labels: int = 2, *, fit: str = "stretch", **head: Any) -> Path:
    """A bundle at `path`; `head` are fields of the decoder."""
    files = members(cells, labels)
    spec = manifest(files, cells, labels)
    spec["backbones"]["toy"]["fit"] = fit
    spec["heads"][0] |= head
    return toy.write(path, files, spec)


def with_mask(graph: bytes, cells: int, labels: int) -> bytes:
    """A graph of the toy with a decoder's last layers: a convolution, and its channels spread over cells."""
    model = onnx.load_model_from_string(graph)
    patches = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    model.graph.node.extend(
        [
            helper.make_node(
                "Conv",
                ["image", "mask_kernel"],
                ["mask_channels"],
                strides=[toy.PATCH] * 2,
                kernel_shape=[toy.PATCH] * 2,
            ),
            helper.make_node("DepthToSpace", ["mask_channels"], ["mask_cells"], blocksize=cells),
            helper.make_node("Reshape", ["mask_cells", "mask_shape"], ["mask_columns"]),
            helper.make_node("Transpose", ["mask_columns"], ["mask_rows"], perm=[0, 2, 1]),
            helper.make_node("Softmax", ["mask_rows"], ["mask"], axis=-1),
        ]
    )
    rows = cells**2 * patches
    shape = ["b", rows, labels]
    model.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape))
    constants = {
        "mask_kernel": kernel(cells, labels),
        "mask_shape": np.array([0, labels, rows], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in constants.items())
    return model.SerializeToString()


def kernel(cells: int, labels: int) -> np.ndarray:
    """[cells * cells * labels, 3, PATCH, PATCH] float32: of each cell the mean of its pixels, to logits."""
    made = np.zeros((cells, cells, labels, 3, toy.PATCH, toy.PATCH), np.float32)
    bounds = [round(i * toy.PATCH / cells) for i in range(cells + 1)]
    for i in range(cells):
        for j in range(cells):
            rows, columns = slice(*bounds[i : i + 2]), slice(*bounds[j : j + 2])
            area = (bounds[i + 1] - bounds[i]) * (bounds[j + 1] - bounds[j])
            made[i, j, :, :, rows, columns] = LOGITS[:labels, :, None, None] / area
    return made.reshape(-1, 3, toy.PATCH, toy.PATCH)


def reference_mask(image: np.ndarray, cells: int, labels: int) -> np.ndarray:
    """[cells * cells * n, labels] of a [3, S, S] image: the softmax of the mean colour of each cell.

    Args:
        cells: divides the toy's patches into whole pixels: 1, 2 or 7.
    """
    side = toy.PATCH // cells
    assert side * cells == toy.PATCH
    h, w = (length // side for length in image.shape[1:])
    colours = image.reshape(3, h, side, w, side).mean(axis=(2, 4), dtype=np.float64).reshape(3, -1).T
    exponents = np.exp(colours @ LOGITS[:labels].T.astype(np.float64))
    return exponents / exponents.sum(axis=1, keepdims=True)
