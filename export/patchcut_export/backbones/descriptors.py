"""What is made of activations: several joined, several scales on one grid, neighbourhoods in log bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Axis:
    """Points on one side of an image.

    Attributes:
        count: how many.
        first, step: where the first lies and how far it is to the next, in sides of the image.
    """

    count: int
    first: float
    step: float

    @staticmethod
    def of_pixels(side: int) -> Axis:
        """Centres of pixels."""
        return Axis(side, 0.5 / side, 1 / side)

    @staticmethod
    def of_patches(side: int, patch: int, stride: int) -> Axis:
        """Centres of the patches that lie wholly in the image."""
        return Axis((side - patch) // stride + 1, 0.5 * patch / side, stride / side)

    def points(self) -> torch.Tensor:
        return self.first + self.step * torch.arange(self.count, dtype=torch.float64)


def interpolation(source: Axis, target: Axis) -> torch.Tensor:
    """[target.count, source.count] float32, what turns values at the source's points into the target's.

    Linear, antialiased where the target's points lie farther apart, the outermost value repeated beyond its
    point; rows sum to 1. Between pixels this is torch's `interpolate(mode="bilinear", antialias=True)`.
    """
    points = source.points()
    wanted = target.points().clamp(points[0], points[-1])
    reach = max(source.step, target.step)
    weights = (1 - (wanted[:, None] - points).abs() / reach).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


class Resample(nn.Module):
    """Brings the rows and columns of square maps [..., s, s] to other points, bilinearly: [..., t, t].

    Two products with a constant on their left: every engine has them, which cannot be said of an antialiased
    Resize, and the 8-bit export, which turns constants on the right into 8 bits, leaves them as they are.
    """

    weights: torch.Tensor

    def __init__(self, source: Axis, target: Axis) -> None:
        super().__init__()
        self.register_buffer("weights", interpolation(source, target), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        rows = self.weights @ maps
        return (self.weights @ rows.transpose(-1, -2)).transpose(-1, -2)


def to_map(features: torch.Tensor) -> torch.Tensor:
    """[b, d, side, side] of features [b, side * side, d]."""
    count, dim = features.shape[1:]
    side = round(count**0.5)
    return features.transpose(1, 2).reshape(-1, dim, side, side)


def to_rows(maps: torch.Tensor) -> torch.Tensor:
    """[b, h * w, d] of maps [b, d, h, w]."""
    return maps.flatten(2).transpose(1, 2)


def join_components(components: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """[..., sum of d_i] of components [..., d_i]: each made unit length, times the root of its weight.

    The product of two rows is the weighted sum of the components' cosines.
    """
    units = [functional.normalize(one, dim=-1) for one in components]
    return torch.cat([unit * weight**0.5 for unit, weight in zip(units, weights, strict=True)], dim=-1)


def join_scales(scales: Sequence[torch.Tensor], how: str) -> torch.Tensor:
    """Features [b, n, d] of one grid at several scales as one: their "mean" [b, n, d], or "concat"."""
    if how == "concat":
        return join_components(scales, [1 / len(scales)] * len(scales))
    return torch.stack([functional.normalize(scale, dim=-1) for scale in scales]).mean(0)


def log_bins(features: torch.Tensor, rings: int) -> torch.Tensor:
    """[b, n, (1 + 8 * rings) * d] of features [b, n, d] on a square grid: each patch and what is around it.

    Ring r adds the eight neighbours at a distance of 3^r patches, each the mean of the 3^r by 3^r patches
    around it; the first nine bins are the 3 by 3 patches themselves, row by row. Means leave out what is
    beyond the grid; neighbours beyond it are the nearest on it. Amir et al. (2112.05814), section 3.2, with
    the order of bins of its code.
    """
    grid = to_map(features)
    side = grid.shape[-1]
    bins = []
    for ring in range(rings):
        reach = 3**ring
        means = functional.avg_pool2d(grid, reach, stride=1, padding=reach // 2, count_include_pad=False)
        padded = functional.pad(means, [reach] * 4, mode="replicate")
        for top in (0, reach, 2 * reach):
            for left in (0, reach, 2 * reach):
                if ring == 0 or (top, left) != (reach, reach):
                    bins.append(padded[:, :, top : top + side, left : left + side])
    return to_rows(torch.cat(bins, dim=1))
