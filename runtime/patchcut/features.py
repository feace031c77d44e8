"""Features: a row for each patch of each frame, on the device that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut_kernels.cuda import DeviceArray

# [...] float32, in host memory or on a CUDA device; the kernels take and give either.
Array = npt.NDArray[np.float32] | DeviceArray


def to_host(array: Any) -> npt.NDArray[Any]:
    """The array in host memory: itself where it is there already, a copy of one on a CUDA device.

    Examples:
        >>> patchcut.features.to_host(np.zeros(2, np.float32)).tolist()
        [0.0, 0.0]
    """
    host: npt.NDArray[Any] = array.numpy() if isinstance(array, DeviceArray) else array
    return host


@dataclass(frozen=True, eq=False)
class Features:
    """Features of b frames by the names of their sets; the first set is the default.

    Args:
        sets: name → [b, n, d] float32, n = h * w patches in reading order; d may differ from set to set. They
            are the engine's own memory, overwritten when the next frames run.
        grid_hw: rows and columns of the patch grid.
    Examples:
        >>> features = patchcut.Features({"key": np.ones((1, 6, 8), np.float32)}, (2, 3))
        >>> features["key"].shape, features.batch, features.device
        ((1, 6, 8), 1, 'cpu')
    """

    sets: Mapping[str, Array]
    grid_hw: tuple[int, int]

    def __repr__(self) -> str:
        sets = ", ".join(f"{name} {list(array.shape)}" for name, array in self.sets.items())
        return f"<Features: {sets} on {self.device}>"

    def __getitem__(self, name: str) -> Array:
        return self.sets[name]

    @property
    def default(self) -> Array:
        """[b, n, d] float32, the first set."""
        return next(iter(self.sets.values()))

    @property
    def batch(self) -> int:
        """Number of frames."""
        return self.default.shape[0]

    @property
    def device(self) -> str:
        """Where the arrays lie: "cpu" or "cuda"."""
        return "cuda" if isinstance(self.default, DeviceArray) else "cpu"

    def of(self, needs: tuple[str, ...]) -> Array:
        """[b, n, d] float32, the first set that a head needs; the default where it names none.

        Examples:
            >>> features.of(()).shape == features.of(("key",)).shape
            True
        """
        return self.sets[needs[0]] if needs else self.default

    def frame(self, i: int) -> Features:
        """Those of frame i alone, a batch of one, in the same memory.

        Examples:
            >>> features.frame(0).batch
            1
        """
        if self.batch == 1:
            return self
        alone = {name: array[i].reshape(1, *array.shape[1:]) for name, array in self.sets.items()}
        return Features(alone, self.grid_hw)

    def to(self, device: str) -> Features:
        """These features in the memory of a device, themselves where they are there already.

        Raises:
            ValueError: `device` is not "cpu": features are made on the engine's device and only come down.
        Examples:
            >>> features.to("cpu") is features
            True
        """
        if device == self.device:
            return self
        if device != "cpu":
            raise ValueError(f"[features] on {self.device} stay there or come to cpu, got device {device}")
        return Features({name: to_host(array) for name, array in self.sets.items()}, self.grid_hw)
