"""Maps moved to the edges of the frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import patchcut_kernels as pk

from bench import subjects
from bench.cases import BenchError, Target
from bench.cases.kernels.duel import Array, Duel, Side, smooth_assignment

_RADIUS, _EPS = 8, 1e-3
_SOLVER = "bilateral_solver 640x480"
_GUIDED, _GUIDED_BY_4 = "guided_refine 640x480", "guided_refine 640x480 by 4"
TARGETS = (
    Target(_GUIDED, "times_as_fast", ">=", 1, "×", "guided_refine, times as fast as OpenCV's"),
    Target(_GUIDED, "max_abs_difference", "<=", 1 / 255, "", "guided_refine, largest difference to OpenCV's"),
    Target(
        _GUIDED_BY_4, "times_as_fast", ">=", 4, "×", "guided_refine by 4, times as fast as OpenCV's full one"
    ),
    Target(
        _GUIDED_BY_4, "mean_abs_difference", "<=", 2 / 255, "", "guided_refine by 4, mean difference to it"
    ),
    Target(_SOLVER, "times_as_fast", ">=", 20, "×", "bilateral_solver, times as fast as scipy.sparse"),
)


def _guided_refine(subsample: int) -> Duel:
    ximgproc: Any = getattr(cv2, "ximgproc", None)
    if ximgproc is None:
        raise BenchError("it needs cv2.ximgproc, of opencv-contrib-python-headless; see CONTRIBUTING.md")
    frame, soft = subjects.frame(subjects.VGA_HW), _soft_map(subjects.VGA_HW)
    out, their_out = np.empty_like(soft), np.empty_like(soft)

    def ours() -> Any:
        return pk.guided_refine(frame, soft, _RADIUS, _EPS, subsample=subsample, out=out)

    def theirs(radius: int = _RADIUS, scale: float = 1.0) -> Any:
        return ximgproc.guidedFilter(frame, soft, radius, _EPS * 255**2, their_out, -1, scale)

    neighbours = [Side("cv2.ximgproc.guidedFilter", theirs, "colour guide, radius 8")]
    if subsample > 1:
        # It does not shrink the window with the image.
        fast = partial(theirs, _RADIUS // subsample, 1 / subsample)
        neighbours.append(Side(f"cv2.ximgproc.guidedFilter by {subsample}", fast, "the same, subsampled"))
    apart = np.abs(ours() - theirs())
    inside = "colour guide, radius 8" + (", subsampled" if subsample > 1 else "")
    return Duel(
        Side("patchcut", ours, inside),
        tuple(neighbours),
        {"frame": frame.shape, "map": soft.shape},
        {"max_abs_difference": float(apart.max()), "mean_abs_difference": float(apart.mean())},
    )


def _bilateral_solver() -> Duel:
    from bench.competitors import sparse_bilateral_solver

    frame, soft = subjects.frame(subjects.VGA_HW), _soft_map(subjects.VGA_HW)
    confidence = np.full_like(soft, 0.999)
    out = np.empty_like(soft)

    def ours() -> Any:
        return pk.bilateral_solver(frame, soft, confidence, out=out)

    def theirs() -> Any:
        return sparse_bilateral_solver.solve(
            frame,
            soft,
            confidence,
            sigma_spatial=24,
            sigma_luma=4,
            sigma_chroma=4,
            smoothness=256,
            iterations=25,
            bistochastic_iterations=10,
        )

    inside = "grid of 24 pixels, 4 luma, 4 chroma; 10 steps to bistochastic, 25 of conjugate gradients"
    apart = np.abs(ours() - theirs())
    return Duel(
        Side("patchcut", ours, inside),
        (Side("scipy.sparse, cg", theirs, f"the same in float64: {inside}"),),
        {"frame": frame.shape, "map": soft.shape},
        {"max_abs_difference": float(apart.max()), "mean_abs_difference": float(apart.mean())},
    )


def _soft_map(size_hw: tuple[int, int]) -> Array:
    """[H, W] float32 in [0, 1], a column of an assignment at the frame's size."""
    column = smooth_assignment(2, (28, 28))[:, 1].reshape(28, 28)
    return np.asarray(cv2.resize(column, size_hw[::-1]), np.float32)


DUELS: dict[str, Callable[[], Duel]] = {
    _GUIDED: lambda: _guided_refine(1),
    _GUIDED_BY_4: lambda: _guided_refine(4),
    _SOLVER: _bilateral_solver,
}
