"""A stand-in for `triton_python_backend_utils`, which Triton's Python backend alone has.

As much of it as `regions_model` takes, after its documentation: tensors by name, responses, errors. That the
real one does the same is tested by `test_server.py`, where there is a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Tensor:
    of: str
    array: np.ndarray

    def name(self) -> str:
        return self.of

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass
class TritonError:
    text: str

    def message(self) -> str:
        return self.text


@dataclass
class InferenceResponse:
    output_tensors: Sequence[Tensor] = ()
    error: TritonError | None = None


@dataclass
class InferenceRequest:
    """What Triton gives to `execute`; the names are those of the outputs that a client asked for."""

    inputs: dict[str, np.ndarray]
    outputs: Sequence[str] = field(default_factory=list)

    def requested_output_names(self) -> Sequence[str]:
        return self.outputs


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return Tensor(name, request.inputs[name]) if name in request.inputs else None
