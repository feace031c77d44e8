"""Argument checks shared by all ops; the messages read `[op] what was expected, what came`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _C, _arrays

# Where an op runs whose arrays lie in host memory.
CPU = _C.Context(0, 0, 0, 0, 0)

_Scalar = TypeVar("_Scalar", bound=np.generic)


def array(
    op: str,
    name: str,
    value: object,
    dtype: type[_Scalar],
    dims: Sequence[str],
) -> npt.NDArray[_Scalar]:
    """`value`'s own memory as a numpy array of `dtype` with one of the shapes in `dims`, such as "[n, d]"."""
    return _array(op, name, value, (dtype,), dims)


def floats(op: str, name: str, value: object, dims: Sequence[str]) -> npt.NDArray[np.float32 | np.float16]:
    """`array` of float32 or float16; kernels compute in float32 either way."""
    return _array(op, name, value, (np.float32, np.float16), dims)


def _array(
    op: str, name: str, value: object, dtypes: Sequence[type[Any]], dims: Sequence[str]
) -> npt.NDArray[Any]:
    view = _arrays.host_view(op, name, value)
    if view.ndim not in {text.count(",") + 1 for text in dims}:
        raise ValueError(f"[{op}] {name} must be {' or '.join(dims)}, got shape {view.shape}")
    _dtype(op, name, view, dtypes)
    return view


def _dtype(op: str, name: str, view: npt.NDArray[Any], dtypes: Sequence[type[Any]]) -> None:
    if view.dtype not in dtypes:
        wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise TypeError(f"[{op}] {name} must be {wanted}, got {view.dtype}")


def shape(op: str, name: str, value: npt.NDArray[Any], expected: tuple[int, ...]) -> None:
    """Raises unless `value` has exactly the shape `expected`."""
    if value.shape != expected:
        raise ValueError(f"[{op}] {name} must have shape {expected}, got {value.shape}")


def output(
    op: str,
    name: str,
    value: object,
    dtype: type[_Scalar],
    expected: tuple[int, ...],
) -> npt.NDArray[_Scalar]:
    """`value`'s own memory, writable, contiguous and of the expected shape; a new array where it is None.

    The caller gets back `value` itself, see `returned`.
    """
    return _output(op, name, value, (dtype,), expected)


def float_output(op: str, name: str, value: object, expected: tuple[int, ...]) -> npt.NDArray[Any]:
    """`output` of float32 or float16; float32 where it is new."""
    return _output(op, name, value, (np.float32, np.float16), expected)


def _output(
    op: str, name: str, value: object, dtypes: Sequence[type[Any]], expected: tuple[int, ...]
) -> npt.NDArray[Any]:
    if value is None:
        return np.empty(expected, dtypes[0])
    view = _arrays.writable_host_view(op, name, value)
    shape(op, name, view, expected)
    _dtype(op, name, view, dtypes)
    if not view.flags.writeable:
        raise ValueError(f"[{op}] {name} must be writable, got a read-only array")
    if not view.flags.c_contiguous:
        raise ValueError(f"[{op}] {name} must be C-contiguous, got strides {view.strides}")
    return view


def returned(value: object, result: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """What an op returns: the object that the caller gave as `out`, or the array that `output` made."""
    return result if value is None else cast("npt.NDArray[_Scalar]", value)


def record(op: str, out: object, kind: type[Any], absent: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of `out`, an op's result of several arrays, by name; nothing where it is None.

    Those that the call does not make, `absent`, must be None, and no other.
    """
    if out is None:
        return {}
    if not isinstance(out, kind):
        raise TypeError(f"[{op}] out must be {kind.__name__}, got {type(out).__name__}")
    arrays: dict[str, Any] = vars(out)
    for name, value in arrays.items():
        if (value is None) != (name in absent):
            wanted = "None" if name in absent else "an array"
            raise TypeError(f"[{op}] out.{name} must be {wanted} here, got {type(value).__name__}")
    return arrays


def disjoint(op: str, out: npt.NDArray[Any], *inputs: npt.NDArray[Any] | None) -> None:
    """Raises where `out` lies over an input: a batch would overwrite what it has yet to read."""
    for value in inputs:
        if value is not None and np.may_share_memory(out, value):
            raise ValueError(f"[{op}] out must not overlap an input, got memory that both use")


def inverse(op: str, name: str, value: float) -> float:
    """`value` as a float, above 0 and neither so small nor so large that its float32 inverse is lost."""
    with np.errstate(divide="ignore", over="ignore"):
        single = np.float32(value)
        usable = single > 0 and 0 < np.float32(1) / single < np.inf
    if not usable:
        raise ValueError(f"[{op}] {name} must be above 0, with a finite inverse in float32, got {value}")
    return float(value)


def choice(op: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"[{op}] {name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def integer(op: str, name: str, value: object, least: int, most: int | None = None) -> int:
    """`value` as an int from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"[{op}] {name} must be an int, got {type(value).__name__}")
    if most is not None and not least <= value <= most:
        raise ValueError(f"[{op}] {name} must be {least} to {most}, got {value}")
    if value < least:
        raise ValueError(f"[{op}] {name} must be at least {least}, got {value}")
    return int(value)


def pair_hw(op: str, name: str, value: object) -> tuple[int, int]:
    """`value` as (height, width), both at least 1."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"[{op}] {name} must be (height, width), got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"[{op}] {name} must be (height, width), got {len(value)} numbers")
    return integer(op, f"{name}[0]", value[0], 1), integer(op, f"{name}[1]", value[1], 1)
