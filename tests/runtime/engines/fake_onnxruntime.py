"""ONNX Runtime as it would be on a machine with CUDA, on one without."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class Binding:
    """Inputs and outputs by their addresses: the host's own memory, or that of CUDA run by the host."""

    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.devices: set[str] = set()

    def bind_input(self, name: str, *location: Any) -> None:
        self.inputs[name] = self._memory(*location)

    def bind_output(self, name: str, *location: Any) -> None:
        self.outputs[name] = self._memory(*location)

    def _memory(
        self, device: str, index: int, dtype: Any, shape: tuple[int, ...], pointer: int
    ) -> np.ndarray:
        assert (index, dtype) == (0, np.float32)
        self.devices.add(device)
        return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), shape)


class Session(SimpleNamespace):
    """One that a weak set takes, as it does ONNX Runtime's own."""

    def __hash__(self) -> int:
        return id(self)


def fake_runtime(
    available: list[str],
    running: list[str],
    fails: bool = False,
    assigned: Mapping[str, Sequence[str]] | None = None,
    preload_dlls: Callable[[], None] = lambda: None,
) -> SimpleNamespace:
    """onnxruntime as on a machine with these providers; sessions run on `running`, whatever was asked for.

    Its sessions really run on the CPU. With `fails`, CUDA raises when a session is made. `assigned` are the
    operators that each provider got, as far as the version tells.
    """
    import onnxruntime

    def session(*args: Any, providers: list[Any], **_: Any) -> Any:
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        if fails and CUDA in names:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        real = onnxruntime.InferenceSession(*args, providers=[CPU])

        def run(binding: Binding, options: object) -> None:
            for name, made in zip(
                binding.outputs, real.run(list(binding.outputs), binding.inputs), strict=True
            ):
                np.copyto(binding.outputs[name], made)

        told: dict[str, Any] = {}
        if assigned is not None:
            told["get_provider_graph_assignment_info"] = lambda: [
                SimpleNamespace(
                    ep_name=name,
                    get_nodes=lambda names=names: [SimpleNamespace(op_type=one) for one in names],
                )
                for name, names in assigned.items()
            ]
        return Session(
            **told,
            get_providers=lambda: [CPU] if names == [CPU] else running,
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            io_binding=Binding,
            run_with_iobinding=run,
            providers=providers,
        )

    return SimpleNamespace(
        InferenceSession=session,
        __version__=onnxruntime.__version__,
        preload_dlls=preload_dlls,
        get_available_providers=lambda: available,
        SessionOptions=onnxruntime.SessionOptions,
        RunOptions=onnxruntime.RunOptions,
        ExecutionMode=onnxruntime.ExecutionMode,
        OrtValue=onnxruntime.OrtValue,
    )
