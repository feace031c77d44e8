"""Earlier frames to this one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench.cases import Target
from bench.cases.kernels.duel import DIM, Array, Duel, Side, difference

_TOPK = 5
_TEMPERATURE = 0.1
_CASE = "propagate 32x32, 6 frames"
TARGETS = (
    Target(_CASE, "times_as_fast", ">=", 10, "×", "propagate, times as fast as numpy"),
    Target(_CASE, "max_abs_difference", "<=", 1e-4, "", "propagate, largest difference to numpy's"),
)


def _propagate(side: int, frames: int, columns: int, radius: int) -> Duel:
    """On a scene that moves; torch masks the whole matrix, as DINO's eval_video_segmentation.py does."""
    features, memory, values = moving_scene(side, frames, columns)
    out = np.empty((side * side, columns), np.float32)
    by_rows = partial(_by_rows_of_the_grid, features, memory, values, radius)
    by_mask = _masked(features, memory, values, radius)

    def ours() -> Array:
        return pk.propagate(
            features,
            memory,
            values,
            (side, side),
            radius=radius,
            topk=_TOPK,
            temperature=_TEMPERATURE,
            out=out,
        )

    got = ours()
    return Duel(
        Side("patchcut", ours, "norms, cosines of the window, the largest and their values"),
        (
            Side("numpy", by_rows, "the same, a row of the grid at a time"),
            Side("torch, masked", by_mask, "norms, all cosines, mask, topk and values; the mask made before"),
        ),
        {"features": features.shape, "memory": memory.shape, "values": values.shape},
        {
            "max_abs_difference": difference(got, by_rows()),
            "max_abs_difference_torch": difference(got, by_mask()),
        },
        repeats=20,
    )


def moving_scene(side: int, frames: int, columns: int) -> tuple[Array, Array, Array]:
    """Features of a frame and of those before it, which show the same one patch further; and soft masks."""
    rng = np.random.default_rng(0)
    scene = rng.standard_normal((side, side, DIM))
    moved = [np.roll(scene, t, 1) + 0.5 * rng.standard_normal(scene.shape) for t in range(frames + 1)]
    rows = np.stack(moved).reshape(frames + 1, side * side, DIM).astype(np.float32)
    masks = rng.dirichlet(np.full(columns, 0.5), (frames, side * side)).astype(np.float32)
    return rows[0], rows[1:], masks


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def _by_rows_of_the_grid(features: Array, memory: Array, values: Array, radius: int) -> Array:
    """One product for each row of the grid, with the rows in its reach: half the work of all pairs."""
    frames, n, columns = values.shape
    side = int(n**0.5)
    queries = _unit(features).reshape(side, side, DIM)
    keys = _unit(memory).reshape(frames, side, side, DIM)
    of_keys = values.reshape(frames, side, side, columns)
    far = abs(np.arange(side)[:, None] - np.arange(side)) > radius
    out = np.empty((side, side, columns), np.float32)
    for y in range(side):
        reach = slice(max(0, y - radius), y + radius + 1)
        near = keys[:, reach].reshape(-1, DIM)
        cosines = queries[y] @ near.T
        cosines.reshape(side, -1, side)[np.broadcast_to(far[:, None], (side, len(near) // side, side))] = -1
        nearest = np.argpartition(cosines, -_TOPK, axis=1)[:, -_TOPK:]
        shares = np.exp(np.take_along_axis(cosines, nearest, axis=1) / np.float32(_TEMPERATURE))
        shares /= shares.sum(1, keepdims=True)
        out[y] = np.matmul(shares[:, None], of_keys[:, reach].reshape(-1, columns)[nearest])[:, 0]
    return out.reshape(n, columns)


def _masked(features: Array, memory: Array, values: Array, radius: int) -> Callable[[], Array]:
    """label_propagation of DINO's eval_video_segmentation.py."""
    import torch

    frames, n, columns = values.shape
    side = int(n**0.5)
    y, x = np.divmod(np.arange(n), side)
    near: npt.NDArray[np.float32] = np.maximum(abs(y[:, None] - y), abs(x[:, None] - x)) <= radius
    mask = torch.from_numpy(near.astype(np.float32)).unsqueeze(0)
    target, sources, masks = (torch.from_numpy(array) for array in (features, memory, values))

    def call() -> Array:
        with torch.inference_mode():
            rows = torch.nn.functional.normalize(target, dim=1, p=2)
            keys = torch.nn.functional.normalize(sources.transpose(1, 2), dim=1, p=2)
            affinity = torch.exp(torch.bmm(rows.unsqueeze(0).repeat(frames, 1, 1), keys) / _TEMPERATURE)
            affinity *= mask
            affinity = affinity.transpose(2, 1).reshape(-1, n)
            least = torch.topk(affinity, dim=0, k=_TOPK)[0].min(dim=0)[0]
            affinity[affinity < least] = 0
            affinity /= affinity.sum(dim=0, keepdim=True)
            carried: Array = torch.mm(masks.reshape(-1, columns).T, affinity).T.numpy()
            return carried

    return call


DUELS: dict[str, Callable[[], Duel]] = {_CASE: partial(_propagate, 32, 6, 4, 8)}
