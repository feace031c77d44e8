"""Random numbers by counter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._types import Float64

Bits = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def mix_bits(x: Bits) -> Bits:
    """The finaliser of SplitMix64, modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def random_bits(seed: int, stream: int, indices: npt.ArrayLike) -> Bits:
    """64 random bits for each of `indices`, numbers of one stream of one seed.

    SplitMix64 (Steele, Lea and Flood 2014) from a state that is hashed from the seed and the stream.
    """
    at = np.asarray(indices, np.uint64)
    with np.errstate(over="ignore"):
        state = mix_bits(mix_bits(np.uint64(seed) + _STEP) + np.uint64(stream))
        return mix_bits(state + (at + np.uint64(1)) * _STEP)


def uniform(seed: int, stream: int, indices: npt.ArrayLike) -> Float64:
    """A multiple of 2^-24 in [0, 1) for each of `indices`."""
    return np.asarray((random_bits(seed, stream, indices) >> np.uint64(40)) * 2.0**-24, np.float64)
