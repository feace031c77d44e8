"""What turns a float graph into one of fewer bits; each module is one precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Precision

# Those that are fitted to photos, and the one that runs on the weights of either of these.
CALIBRATED: tuple[Precision, ...] = ("int8-qdq",)
EIGHT_BIT: tuple[Precision, ...] = ("int8", "int8-qdq")


def convert(
    exact: Any, precision: Precision, calibration: Sequence[npt.NDArray[np.float32]] | None = None
) -> Any:
    """A float graph in another precision; inputs and outputs stay float32.

    Args:
        exact: onnx.ModelProto of `patchcut_export.backbones.onnx_export.export_fp32`, which is not changed.
        precision: "fp32" gives a graph on the weights of "int8", which "int8-qdq" has as well.
        calibration: what "int8-qdq" is fitted to, each `image` of the graph, [1, 3, S, S]; of photos such as
            it will be run on.
    Returns:
        onnx.ModelProto that `onnx.checker` accepts.
    """
    if precision == "fp16":
        from patchcut_export.precision.fp16 import to_fp16

        return to_fp16(exact)
    if precision == "bf16":
        from patchcut_export.precision.bf16 import to_bf16

        return to_bf16(exact)
    if precision == "int8-qdq":
        from patchcut_export.precision.int8_qdq import quantize_int8_qdq

        return quantize_int8_qdq(exact, calibration or ())
    from patchcut_export.precision.int8 import dequantize_weights, quantize_int8

    return quantize_int8(exact) if precision == "int8" else dequantize_weights(exact, quantize_int8(exact))
