"""Nodes of a graph, written one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class Nodes:
    """Writes nodes and constants; every name begins with `prefix`, so that no two writers' are alike.

    Attributes:
        nodes: in the order in which they run.
        constants: their initializers.
    """

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """The name of a constant tensor, float32 where it is of floats."""
        values = array.astype(np.float32) if array.dtype.kind == "f" else array
        full = f"{self._prefix}{name}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), full))
        return full

    def number(self, name: str, value: float) -> str:
        """The name of a float32 scalar."""
        full = f"{self._prefix}{name}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), full))
        return full

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of the output of one more node; `output` says it where it has to be a certain one."""
        made = output or f"{self._prefix}{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, list(inputs), [made], name=made, **attributes))
        return made
