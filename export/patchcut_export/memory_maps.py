"""Files read as arrays, of which no more stays in memory than is looked at."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def is_mapped(array: npt.NDArray[Any]) -> bool:
    """Whether an array is a memory map, or a view of one."""
    return isinstance(_owner(array), mmap.mmap)


def give_back(array: npt.NDArray[Any]) -> None:
    """Takes a memory map's pages off the process; the system keeps them for as long as it has room.

    Nothing happens to an array that is no memory map.
    """
    owner = _owner(array)
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _owner(array: npt.NDArray[Any]) -> object:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner
