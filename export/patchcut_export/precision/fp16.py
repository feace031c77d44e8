"""Graphs in 16-bit floats, the parts that lose too much in them kept in 32 bits."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import onnx
from patchcut.engines.onnxruntime import import_onnxruntime

# Sums over a row of squares and of exponentials: beyond 65,504 or below 6e-8 half floats end. A ViT of which
# TensorRT computed the LayerNorms so fell from 85 to 19 % of ImageNet.
KEPT: tuple[str, ...] = ("LayerNormalization", "Softmax")


def to_fp16(model: onnx.ModelProto, kept: Collection[str] = KEPT) -> onnx.ModelProto:
    """The graph in half floats from a cast of the image to casts of the features, which stay float32.

    Args:
        model: a float graph; it is not changed.
        kept: operators that stay in float32, with casts around them.
    """
    import_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights below the least half float, which become that
        converted: onnx.ModelProto = convert_float_to_float16(
            copy, keep_io_types=True, op_block_list=sorted(kept)
        )
    OnnxModel(converted).topological_sort(is_deterministic=True)  # it appends its casts
    onnx.checker.check_model(converted, full_check=True)
    return converted
