"""What the images of one concept have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _launch
from ._arrays import Array

_OP = "cosegment"


@dataclass(frozen=True, eq=False)
class Cosegmentation:
    """How well each patch of k images is found in all of them, and what is found best.

    Args:
        scores: [k, n] or [n] float32 in [-1, 1]: the mean over the images of the largest weight * cosine of a
            patch and one of that image; -1 of patches that do not count.
        seeds: [k] int32, the patch of the best score, counted within its image, the first on a tie; -1 of an
            image without patches that count.
        embedding: [d] float32, the mean of the seeds' unit rows, of length 1; zeros without a seed.
    """

    scores: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.int32]
    embedding: npt.NDArray[np.float32]


def cosegment(
    features: Array,
    *,
    offsets: Array | None = None,
    weights: Array | None = None,
    out: Cosegmentation | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> Cosegmentation:
    """What k images have in common: a score of each patch, a seed of each image, the mean of the seeds.

    Args:
        features: [k, n, d] float32 or float16, finite; or [n, d], the patches of images of any sizes, one
            image after the other, with `offsets`. The rows are divided by their norms here; a zero row has
            cosine 0 to every row.
        offsets: [k + 1] int64, where each image's patches start, from 0 to n, for features [n, d] alone.
        weights: [k, n] or [n] float32 in [0, 1], how much each patch counts as one that others find, such as
            the paper's map of where the text is; None for ones. A patch of weight 0 does not count at all: it
            is not found, and is no seed. A mask is weights of 0 and 1.
        out: contiguous arrays to write; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        Cosegmentation.
    Raises:
        TypeError: "[cosegment] features must be float32 or float16, got float64".
        ValueError: "[cosegment] offsets must be given for features [n, d]".
        ValueError: "[cosegment] weights must lie in [0, 1], got 1.500000"; on the CPU.
    ReCo (2206.07045), section 3: A = cosines of all patches of all images; of each patch the maximum of
    A * weights within each image, its own among them, as published, and their mean; the seed of an image is
    its best patch, the reference embedding the mean of the seeds. Here the seeds are averaged as unit rows,
    and an image without patches that count is left out of all means. A is never stored: the time grows with
    (k n)^2 d, the memory with k n (d + k).
    Examples:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.standard_normal((3, 5, 8)).astype(np.float32)
        >>> images[:, 2] = images[0, 2] + 0.1 * images[:, 1]  # one thing in all, at patch 2
        >>> found = pk.cosegment(images)
        >>> found.seeds.tolist()
        [2, 2, 2]
        >>> pk.cosegment(images.reshape(15, 8)[:13], offsets=np.int64([0, 5, 10, 13])).seeds.tolist()
        [2, 2, 2]
    """
    rows = _checks.floats(_OP, "features", features, ("[k, n, d]", "[n, d]"))
    *shape, d = rows.shape
    n = int(np.prod(shape))
    if d == 0:
        raise ValueError(f"[{_OP}] features must have at least one column, got shape {rows.shape}")
    starts = _offsets(offsets, len(shape))
    k = shape[0] if starts is None else starts.shape[0] - 1
    shares = (
        None if weights is None else _checks.array(_OP, "weights", weights, np.float32, ("[k, n]", "[n]"))
    )
    if shares is not None:
        _checks.shape(_OP, "weights", shares, tuple(shape))
    launch = _launch.prepare(_OP, stream, workspace, features=rows, offsets=starts, weights=shares)
    specs: _checks.Specs = {
        "scores": (np.float32, tuple(shape)),
        "seeds": (np.int32, (k,)),
        "embedding": (np.float32, (d,)),
    }
    result = _checks.outputs(_OP, out, Cosegmentation, launch, specs, rows, starts, shares)
    _C.cosegment(
        _checks.native(_OP, "features", rows, n, d),
        _checks.native(_OP, "offsets", starts, k + 1),
        _checks.native(_OP, "weights", shares, n),
        _checks.native(_OP, "out.scores", result.scores, n),
        _checks.native(_OP, "out.seeds", result.seeds, k),
        _checks.native(_OP, "out.embedding", result.embedding, d),
        launch.context,
    )
    return result if out is None else out


def _offsets(offsets: object, dimensions: int) -> npt.NDArray[np.int64] | None:
    if offsets is None:
        if dimensions == 1:
            raise ValueError(f"[{_OP}] offsets must be given for features [n, d]")
        return None
    if dimensions == 2:
        raise ValueError(f"[{_OP}] offsets must be None for features [k, n, d], whose images have one size")
    starts = _checks.array(_OP, "offsets", offsets, np.int64, ("[k + 1]",))
    if starts.shape[0] == 0:
        raise ValueError(f"[{_OP}] offsets must be [k + 1], got shape (0,)")
    return starts
