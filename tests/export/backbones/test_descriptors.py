"""Log bins, resampled grids and joined features against plain loops and torch's own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.backbones.descriptors import (
    Axis,
    Resample,
    interpolation,
    join_components,
    join_scales,
    log_bins,
)
from torch.nn import functional


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def naive_log_bins(grid: np.ndarray, rings: int) -> np.ndarray:
    """[h, w, bins * d] of [h, w, d]: what Amir et al. (2112.05814) say, one patch and one bin at a time."""
    height, width, _ = grid.shape

    def mean_around(y: int, x: int, reach: int) -> np.ndarray:
        half = reach // 2
        rows, columns = slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1)
        return grid[rows, columns].mean((0, 1))

    def descriptor(y: int, x: int) -> np.ndarray:
        bins = []
        for ring in range(rings):
            reach = 3**ring
            for i in (y - reach, y, y + reach):
                for j in (x - reach, x, x + reach):
                    if (i, j) != (y, x) or ring == 0:
                        inside = min(max(i, 0), height - 1), min(max(j, 0), width - 1)
                        bins.append(mean_around(*inside, reach))
        return np.concatenate(bins)

    return np.stack([[descriptor(y, x) for x in range(width)] for y in range(height)])


@pytest.mark.parametrize("side", [1, 2, 5, 11])
@pytest.mark.parametrize("rings", [1, 2, 3])
def test_log_bins_are_the_neighbours(side: int, rings: int) -> None:
    features = random(2, side * side, 3)
    got = log_bins(features, rings)
    expected = [naive_log_bins(one.numpy().reshape(side, side, 3), rings) for one in features]
    assert got.shape == (2, side * side, (1 + 8 * rings) * 3)
    np.testing.assert_allclose(got.numpy(), np.stack(expected).reshape(got.shape), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(224, 112), (224, 98), (64, 160), (50, 50), (1, 7), (9, 1)])
def test_between_pixels_it_is_torchs_antialiased_bilinear(source: int, target: int) -> None:
    maps = random(2, 3, source, source)
    got = Resample(Axis.of_pixels(source), Axis.of_pixels(target))(maps)
    expected = functional.interpolate(maps.double(), (target, target), mode="bilinear", antialias=True)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [98, 112, 448])
@pytest.mark.parametrize("stride", [3, 7, 14])
def test_patches_of_two_sizes_meet_where_they_lie(side: int, stride: int) -> None:
    source, target = Axis.of_patches(side, 14, stride), Axis.of_patches(224, 14, stride)
    starts = range(0, 224 - 14 + 1, stride)
    np.testing.assert_allclose(target.points(), [(start + 7) / 224 for start in starts], atol=1e-12)
    weights = interpolation(source, target).double()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(starts)).double())
    reach = max(source.step, target.step)
    inner = (target.points() > source.points()[0] + reach) & (target.points() < source.points()[-1] - reach)
    if source.step >= target.step:  # a ramp stays where it is; an antialiased one does but for rounding
        torch.testing.assert_close(
            (weights @ source.points())[inner], target.points()[inner], atol=1e-6, rtol=0
        )
    assert inner.any()


def test_what_lies_beyond_all_sources_is_the_nearest() -> None:
    sparse, dense = Axis.of_patches(64, 16, 2), Axis.of_patches(256, 16, 2)
    weights = interpolation(sparse, dense)
    assert dense.points()[0] < sparse.points()[0] - sparse.step
    assert weights[0].argmax() == 0 and weights[0, 0] == 1
    assert weights[-1].argmax() == sparse.count - 1 and weights[-1, -1] == 1


def test_joined_cosines_are_the_weighted_mean() -> None:
    components = [random(2, 9, 4), 100 * random(2, 9, 6)]
    joined = join_components(components, [0.25, 0.75])
    torch.testing.assert_close(joined.norm(dim=-1), torch.ones(2, 9))
    cosines = [functional.cosine_similarity(p[:, :, None], p[:, None], dim=-1) for p in components]
    torch.testing.assert_close(joined @ joined.mT, 0.25 * cosines[0] + 0.75 * cosines[1])


def test_scales_count_alike() -> None:
    scales = [random(1, 9, 4), 100 * random(2, 9, 4)[1:]]
    mean = join_scales(scales, "mean")
    torch.testing.assert_close(mean, sum(functional.normalize(s, dim=-1) for s in scales) / 2)
    both = join_scales(scales, "concat")
    assert both.shape == (1, 9, 8)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(1, 9))
