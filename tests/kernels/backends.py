"""The ops on the CPU and on CUDA with one interface, so that a test has one body."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import patchcut_kernels as pk
import pytest


class Ops:
    """`patchcut_kernels` on one backend: numpy arrays go in and come out, wherever an op runs.

    Attributes:
        backend: "cpu", the name of one of its instruction sets, or "cuda".
        checks_values: whether ops refuse values that are not finite or out of range; they do on the CPU.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.checks_values = backend != "cuda"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(pk, name)
        return op if self.backend != "cuda" else _OnCuda(op)


class _OnCuda:
    """One op whose arrays travel to the device and back; an array that is given twice is one there too."""

    def __init__(self, op: Callable[..., Any]) -> None:
        self._op = op
        self._pairs: list[tuple[Any, Any]] = []  # (numpy, device)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        sent = [self._send(value) for value in arguments]
        result = self._op(*sent, **{name: self._send(value) for name, value in options.items()})
        outputs = [value for name, value in options.items() if name in OUTPUTS]
        for host, device in self._pairs:
            if any(host is value for output in outputs for value in _fields(output)):
                host[...] = device.numpy()
        return self._receive(result)

    def _send(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, (type, pk.GcnWeights, pk.GnnFitWeights)):
            names = [field.name for field in dataclasses.fields(value)]
            self._pairs.append((value, type(value)(**{n: self._send(getattr(value, n)) for n in names})))
            return self._pairs[-1][1]
        if not isinstance(value, np.ndarray):
            return value
        for host, device in self._pairs:
            if host is value:
                return device
        self._pairs.append((value, pk.cuda.to_device(value)))
        return self._pairs[-1][1]

    def _receive(self, value: Any) -> Any:
        for host, device in self._pairs:
            if device is value:
                return host
        if isinstance(value, tuple):
            return tuple(self._receive(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            got = {
                field.name: self._receive(getattr(value, field.name)) for field in dataclasses.fields(value)
            }
            return type(value)(**got)
        if not isinstance(value, pk.cuda.DeviceArray):
            return value
        host = value.numpy()
        return host if host.ndim else host.item()


# Arguments that an op writes.
OUTPUTS = {"out", "labels_out", "counts_out", "confidence", "return_degrees"}


def _fields(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [value]


def ops_on_cuda() -> Ops:
    """The ops on CUDA; skips the test where there is none."""
    if not pk.cuda.is_available():
        pytest.skip(pk.cuda.why_unavailable())
    return Ops("cuda")
