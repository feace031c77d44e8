"""Maps that are smooth except at the edges of the frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array
from ._preprocess import Color

_OP = "bilateral_solver"
_FRAMES, _MAPS = ("[H, W, 3]", "[b, H, W, 3]"), ("[H, W]", "[b, H, W]")
_PIXEL_LIMIT = 2**29


def bilateral_solver(
    frame: Array,
    soft_map: Array,
    confidence: Array,
    *,
    sigma_spatial: float = 24.0,
    sigma_luma: float = 4.0,
    sigma_chroma: float = 4.0,
    smoothness: float = 256.0,
    iterations: int = 25,
    bistochastic_iterations: int = 10,
    color: Color = "bgr",
    out: Array | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> npt.NDArray[np.float32]:
    """Maps that are smooth where the frame is, and near `soft_map` where it is sure.

    The defaults are those that TokenCut refines its masks with; its confidence is 0.999 everywhere.

    Args:
        frame: [H, W, 3] or [b, H, W, 3] uint8, fewer than 2^29 pixels.
        soft_map: [H, W] or [b, H, W] float32, finite.
        confidence: as `soft_map`, finite, at least 0. Where it is 0 for a vertex of the
            grid and all that are joined to it, the result is 0.
        sigma_spatial: size of a cell of the grid in pixels, at least 1.
        sigma_luma: size of a cell in luma, of 256 levels, at least 1.
        sigma_chroma: size of a cell in either chroma, of 256 levels, at least 1.
        smoothness: weight of smoothness against confidence, the paper's lambda, at least 0.
        iterations: steps of conjugate gradients, 0 to 65,536; they end where nothing is left to gain.
        bistochastic_iterations: steps of the paper's algorithm 1, 0 to 65,536; all are run.
        color: order of channels of the frame.
        out: as `soft_map`, contiguous, may be `soft_map` or `confidence` itself; written and returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        As `soft_map`, in about its range.
    Raises:
        TypeError: "[bilateral_solver] frame must be uint8, got float32".
        ValueError: "[bilateral_solver] soft_map must have shape (480, 640), got (640, 480)".
        ValueError: "[bilateral_solver] map, confidence and smoothness overflow: ...", where products and sums
            of theirs leave float32.
    Maps below about 1e-12 come out as the means of their vertices: what is left to gain counts as nothing.
    min_x lambda / 2 sum_ij W_ij (x_i - x_j)^2 + sum_i c_i (x_i - t_i)^2, with W made bistochastic, in the
    simplified bilateral grid, by conjugate gradients with the Jacobi preconditioner: Barron, Poole, "The fast
    bilateral solver" (1511.03296), equations 1 to 9 and algorithm 1.
    Examples:
        >>> frame, soft_map = np.zeros((1, 2, 3), np.uint8), np.float32([[0, 1]])
        >>> pk.bilateral_solver(frame, soft_map, np.ones_like(soft_map)).tolist()
        [[0.5, 0.5]]
    """
    frame = _checks.array(_OP, "frame", frame, np.uint8, _FRAMES)
    if frame.shape[-1] != 3:
        raise ValueError(f"[{_OP}] frame must be {' or '.join(_FRAMES)}, got shape {frame.shape}")
    shape = frame.shape[:-1]
    if math.prod(shape[-2:]) >= _PIXEL_LIMIT:
        raise ValueError(f"[{_OP}] frame must have fewer than 2^29 pixels, got shape {frame.shape}")
    soft_map = _checks.array(_OP, "soft_map", soft_map, np.float32, _MAPS)
    _checks.shape(_OP, "soft_map", soft_map, shape)
    confidence = _checks.array(_OP, "confidence", confidence, np.float32, _MAPS)
    _checks.shape(_OP, "confidence", confidence, shape)
    sigmas = {"sigma_spatial": sigma_spatial, "sigma_luma": sigma_luma, "sigma_chroma": sigma_chroma}
    limits = {**dict.fromkeys(sigmas, 1.0), "smoothness": 0.0}
    for name, value in {**sigmas, "smoothness": smoothness}.items():
        if not limits[name] <= _checks.number(_OP, name, value) < _checks.LARGEST_FLOAT:
            raise ValueError(f"[{_OP}] {name} must be at least {limits[name]:g} and finite, got {value}")
    iterations = _checks.integer(_OP, "iterations", iterations, 0, _checks.MOST_ROUNDS)
    bistochastic_iterations = _checks.integer(
        _OP, "bistochastic_iterations", bistochastic_iterations, 0, _checks.MOST_ROUNDS
    )
    _checks.choice(_OP, "color", color, ("bgr", "rgb"))
    launch = _launch.prepare(_OP, stream, workspace, frame=frame, soft_map=soft_map, confidence=confidence)
    result = _checks.output(_OP, "out", out, np.float32, shape, launch)
    apart = [array for array in (soft_map, confidence) if not _checks.same_memory(array, result)]
    _checks.disjoint(_OP, result, frame, *apart)
    flat = (math.prod(shape[:-2]), *shape[-2:])
    _C.bilateral_solver(
        _checks.native(_OP, "frame", frame, *flat, 3),
        _checks.native(_OP, "soft_map", soft_map, *flat),
        _checks.native(_OP, "confidence", confidence, *flat),
        (sigma_spatial, sigma_luma, sigma_chroma),
        smoothness,
        iterations,
        bistochastic_iterations,
        _C.Color[color],
        _checks.native(_OP, "out", result, *flat),
        launch.context,
    )
    return _checks.returned(out, result)
