"""Types of the specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int32]
