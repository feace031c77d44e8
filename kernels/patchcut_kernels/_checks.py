"""Argument checks shared by all ops; the messages read `[op] what was expected, what came`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _arrays
from ._device_array import DeviceArray
from ._launch import HOST, Launch, device_name

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Choice = TypeVar("_Choice", bound=Enum)
_Record = TypeVar("_Record")  # a dataclass
Specs = dict[str, tuple[type[Any], tuple[int, ...]]]  # dtype and shape of arrays by name
Dtypes = type[_Scalar] | tuple[type[_Scalar], ...]

_FLOATS: tuple[type[Any], ...] = (np.float32, np.float16)
LARGEST_FLOAT = float(np.finfo(np.float32).max)  # that the native ops take
_LARGEST_INTEGER = 2**63 - 1
MOST_ROUNDS = 65536  # of an op that goes over all of its data in each
_IDS_OF_SMALL_MAPS = 65536


def _require_dtype(op: str, name: str, value: npt.NDArray[Any], dtypes: Dtypes[Any]) -> None:
    allowed = dtypes if isinstance(dtypes, tuple) else (dtypes,)
    dtype = value.dtype
    if (
        dtype.type not in allowed or not dtype.isnative
    ):  # a third of the time that `dtype not in allowed` takes
        names = " or ".join(np.dtype(dtype).name for dtype in allowed)
        raise TypeError(f"[{op}] {name} must be {names}, got {dtype}")


@functools.cache
def _ranks(dims: tuple[str, ...]) -> frozenset[int]:
    return frozenset(text.count(",") + 1 for text in dims)


def array(
    op: str,
    name: str,
    value: object,
    dtype: Dtypes[_Scalar],
    dims: tuple[str, ...],
) -> npt.NDArray[_Scalar]:
    """`value`'s own memory as an array of `dtype` with one of the shapes in `dims`, such as "[n, d]".

    A numpy array, or a `DeviceArray` where `value` lies on CUDA.
    """
    view = cast("npt.NDArray[_Scalar]", _arrays.view(op, name, value))
    if view.ndim not in _ranks(dims):
        raise ValueError(f"[{op}] {name} must be {' or '.join(dims)}, got shape {view.shape}")
    _require_dtype(op, name, view, dtype)
    return view


def floats(op: str, name: str, value: object, dims: tuple[str, ...]) -> npt.NDArray[np.float32 | np.float16]:
    """`array` of float32 or float16; kernels compute in float32 either way."""
    return array(op, name, value, _FLOATS, dims)


def shape(op: str, name: str, value: npt.NDArray[Any], expected: tuple[int, ...]) -> None:
    """Raises unless `value` has exactly the shape `expected`."""
    if value.shape != expected:
        raise ValueError(f"[{op}] {name} must have shape {expected}, got {value.shape}")


def output(
    op: str,
    name: str,
    value: object,
    dtype: Dtypes[_Scalar],
    expected: tuple[int, ...],
    launch: Launch = HOST,
) -> npt.NDArray[_Scalar]:
    """`value`'s own memory, writable, contiguous and of the expected shape; a new array where it is None.

    It lies on the launch's device; a new one is of the first dtype. The caller gets back `value` itself,
    see `returned`.
    """
    if value is None:
        return launch.empty(expected, dtype[0] if isinstance(dtype, tuple) else dtype)
    view = cast("npt.NDArray[_Scalar]", _arrays.writable_view(op, name, value))
    shape(op, name, view, expected)
    _require_dtype(op, name, view, dtype)
    if isinstance(view, DeviceArray):
        device, writable, contiguous = device_name(view), view.writable, view.is_contiguous
    else:
        device, writable, contiguous = "cpu", view.flags.writeable, view.flags.c_contiguous
    if device != launch.device:
        raise ValueError(f"[{op}] {name} must lie on {launch.device} with the inputs, got {device}")
    if not writable:
        raise ValueError(f"[{op}] {name} must be writable, got a read-only array")
    if not contiguous:
        raise ValueError(f"[{op}] {name} must be C-contiguous, got strides {view.strides}")
    if isinstance(view, DeviceArray):
        launch.use(view)
    return view


def float_output(
    op: str, name: str, value: object, expected: tuple[int, ...], launch: Launch = HOST
) -> npt.NDArray[Any]:
    """`output` of float32 or float16; float32 where it is new."""
    return output(op, name, value, _FLOATS, expected, launch)


def optional_output(
    op: str,
    name: str,
    value: object,
    dtype: Dtypes[_Scalar],
    expected: tuple[int, ...],
    launch: Launch = HOST,
) -> tuple[npt.NDArray[_Scalar] | None, object]:
    """An output that a bool asks for or leaves out, or that is an array; and the caller's array, if any."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return (output(op, name, None, dtype, expected, launch) if value else None), None
    return output(op, name, value, dtype, expected, launch), value


def native(op: str, name: str, value: npt.NDArray[Any] | None, *expected: int) -> Any:
    """An array as the native op takes it: contiguous, in another shape, of which one extent may be -1.

    On CUDA nothing is copied. None stays None.
    """
    if value is None:
        return None
    if type(value) is not DeviceArray:  # isinstance takes as long as the rest of this
        return np.ascontiguousarray(value).reshape(expected)
    if not value.is_contiguous:
        raise ValueError(f"[{op}] {name} must be C-contiguous on CUDA, got strides {value.strides}")
    return value.lend(expected)


def returned(value: object, result: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """The object that the caller gave as `out`, or the array that `output` made."""
    return result if value is None else cast("npt.NDArray[_Scalar]", value)


def outputs(
    op: str,
    out: object,
    kind: type[_Record],
    launch: Launch,
    specs: Specs,
    *inputs: npt.NDArray[Any] | None,
) -> _Record:
    """The result of an op with several arrays: those of `out` where it is given, else new ones.

    Args:
        op: its name, for errors.
        out: None or a `kind`, whose arrays must not overlap the inputs.
        kind: the class of the result, a dataclass.
        launch: device of the arrays.
        specs: dtype and shape of each array; other fields of `kind` are None.
        inputs: arrays that the op reads.
    """
    absent = [name for name in kind.__annotations__ if name not in specs]
    given = record(op, out, kind, absent)
    arrays: dict[str, Any] = dict.fromkeys(absent)
    for name, (dtype, expected) in specs.items():
        arrays[name] = array = output(op, f"out.{name}", given.get(name), dtype, expected, launch)
        if given:
            disjoint(op, array, *inputs)
    return kind(**arrays)


def record(op: str, out: object, kind: type[Any], absent: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of `out`, an op's result of several arrays, by name; {} where it is None.

    Exactly those that the call does not make, `absent`, must be None.
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


def strided(value: npt.NDArray[_Scalar], ndim: int) -> npt.NDArray[_Scalar]:
    """An array as a native op takes it that reads any strides: with dimensions of 1 in front."""
    extra = ndim - value.ndim
    if not isinstance(value, DeviceArray):
        return value[(None,) * extra]
    return cast("npt.NDArray[_Scalar]", value.lend_strided(extra))


def disjoint(op: str, out: npt.NDArray[Any], *inputs: npt.NDArray[Any] | None) -> None:
    """Raises where `out` overlaps an input: a batch would overwrite rows that it has yet to read."""
    for value in inputs:
        if value is not None and overlap(out, value):
            raise ValueError(f"[{op}] out must not overlap an input, got memory that both use")


def overlap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two arrays may share memory."""
    if isinstance(a, DeviceArray) or isinstance(b, DeviceArray):
        return isinstance(a, DeviceArray) and isinstance(b, DeviceArray) and a.overlaps(b)
    return np.may_share_memory(a, b)


def same_memory(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two contiguous arrays of one shape are one and the same."""
    if isinstance(a, DeviceArray) and isinstance(b, DeviceArray):
        return a.is_contiguous and a.pointer == b.pointer
    return not isinstance(a, DeviceArray) and a.flags.c_contiguous and a.ctypes.data == b.ctypes.data


def inverse(op: str, name: str, value: object) -> float:
    """`value` as a float, above 0 and neither so small nor so large that its float32 inverse is lost."""
    value = number(op, name, value)
    with np.errstate(divide="ignore", over="ignore"):
        single = np.float32(value)
        usable = single > 0 and 0 < np.float32(1) / single < np.inf
    if not usable:
        raise ValueError(f"[{op}] {name} must be above 0, with a finite inverse in float32, got {value}")
    return value


def choice(op: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises unless `value` is one of `allowed`."""
    if value not in allowed:
        raise _not_among(op, name, value, allowed)


def member(op: str, name: str, value: str, choices: type[_Choice]) -> _Choice:
    """The member of an enum of the C face that `value` names."""
    try:
        return choices[value]
    except (KeyError, TypeError):  # TypeError: it has no hash
        raise _not_among(op, name, value, choices.__members__) from None


def _not_among(op: str, name: str, value: object, allowed: Iterable[str]) -> ValueError:
    return ValueError(f"[{op}] {name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def number(op: str, name: str, value: object) -> float:
    """`value` as a float, which may be NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"[{op}] {name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"[{op}] {name} must be a number that a float can hold, got {value}") from None


def integer(op: str, name: str, value: object, low: int, high: int | None = None) -> int:
    """`value` as an int from `low` to `high`, which is 2^63 - 1 where it is None."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"[{op}] {name} must be an int, got {type(value).__name__}")
    if high is None and value < low:
        raise ValueError(f"[{op}] {name} must be at least {low}, got {value}")
    largest = _LARGEST_INTEGER if high is None else high
    if not low <= value <= largest:
        raise ValueError(f"[{op}] {name} must be {low} to {largest}, got {value}")
    return int(value)


def id_count(op: str, value: object, pixels: int) -> int:
    """`value` as the number of ids in a map: 0 to what its pixels can hold, or 65,536 where they are few."""
    count = integer(op, "count", value, 0)
    if count > max(pixels, _IDS_OF_SMALL_MAPS):
        raise ValueError(f"[{op}] count must be at most the {pixels} pixels of a map, or 65536, got {count}")
    return count


def few_pixels(op: str, name: str, size_hw: tuple[int, int]) -> tuple[int, int]:
    """`size_hw` of an image to make, which must have fewer than 2^31 - 1 pixels."""
    if size_hw[0] * size_hw[1] >= 2**31 - 1:
        raise ValueError(f"[{op}] {name} must be below 2^31 - 1 pixels, got {size_hw}")
    return size_hw


def pair_hw(op: str, name: str, value: object) -> tuple[int, int]:
    """`value` as (height, width), both at least 1."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"[{op}] {name} must be (height, width), got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"[{op}] {name} must be (height, width), got {len(value)} numbers")
    return integer(op, f"{name}[0]", value[0], 1), integer(op, f"{name}[1]", value[1], 1)
