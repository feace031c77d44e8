"""MLPs of a ViT with fewer hidden units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from patchcut.errors import OptionError
from torch import nn


def slim_mlps(blocks: Any, share: float, see: Callable[[], object]) -> None:
    """Keeps a share of the hidden units of each MLP: those that vary most in what they add.

    What a unit that goes adds in the mean goes on in the bias: variance-based pruning (2507.12988). With
    three quarters of the units of a ViT-S/14, and nothing learned yet, its keys have a cosine of 0.93 to the
    whole one's; without one of its eleven blocks, which costs as much, 0.84.

    Args:
        blocks: of a ViT, with weights.
        share: in (0, 1].
        see: lets the ViT see some images.
    Raises:
        OptionError: an MLP is not of two layers.
    """
    seen: dict[int, _Moments] = {i: _Moments() for i in range(len(blocks))}
    hooks = [
        mlp.fc2.register_forward_pre_hook(lambda _, given, i=i: seen[i].add(given[0]))
        for i, mlp in enumerate(plain_mlps(blocks))
    ]
    see()
    for hook in hooks:
        hook.remove()
    for i, mlp in enumerate(plain_mlps(blocks)):
        mean, variance = seen[i].told()
        adds = variance.sqrt() * mlp.fc2.weight.norm(dim=0)
        order = adds.argsort(descending=True, stable=True)
        count = kept_units(mlp.fc1.out_features, share)
        kept, gone = order[:count].sort().values, order[count:]
        bias = mlp.fc2.bias + mlp.fc2.weight[:, gone] @ mean[gone]
        weights = (mlp.fc1.weight[kept], mlp.fc1.bias[kept]), (mlp.fc2.weight[:, kept], bias)
        _resize(mlp, count)
        for linear, (weight, its_bias) in zip((mlp.fc1, mlp.fc2), weights, strict=True):
            linear.weight.data.copy_(weight)
            linear.bias.data.copy_(its_bias)


def shrink_mlps(blocks: Any, share: float) -> None:
    """MLPs of the same shape as `slim_mlps` leaves them, with random weights.

    Raises:
        OptionError: an MLP is not of two layers.
    """
    for mlp in plain_mlps(blocks):
        _resize(mlp, kept_units(mlp.fc1.out_features, share))


def plain_mlps(blocks: Any) -> list[Any]:
    """The MLPs of a ViT's blocks.

    Raises:
        OptionError: one is not of two layers, such as those with a gate.
    """
    mlps = [block.mlp for block in blocks]
    for mlp in mlps:
        plain = all(isinstance(getattr(mlp, name, None), nn.Linear) for name in ("fc1", "fc2"))
        if not plain or mlp.fc1.out_features != mlp.fc2.in_features or mlp.fc1.bias is None:
            problem = f"mlp= keeps units of MLPs of two layers, got {type(mlp).__name__}"
            raise OptionError("student", problem, "leave mlp= out")
    return mlps


def kept_units(hidden: int, share: float) -> int:
    """How many of the hidden units are kept: a multiple of 8 where there are as many.

    Examples:
        >>> from patchcut_export.distillation.slimming import kept_units
        >>> kept_units(1536, 0.75), kept_units(1536, 1.0)
        (1152, 1536)
    """
    return hidden if share == 1 else min(hidden, max(8, round(share * hidden / 8) * 8))


class _Moments:
    """Mean and variance of rows [.., d] that come one after the other."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, rows: torch.Tensor) -> None:
        flat = rows.flatten(0, -2).double()
        self._count += len(flat)
        self._sum, self._squares = self._sum + flat.sum(0), self._squares + flat.square().sum(0)

    def told(self) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self._sum / self._count
        return mean.float(), (self._squares / self._count - mean.square()).clamp_min(0).float()


def _resize(mlp: Any, hidden: int) -> None:
    mlp.fc1 = nn.Linear(mlp.fc1.in_features, hidden)
    mlp.fc2 = nn.Linear(hidden, mlp.fc2.out_features)
