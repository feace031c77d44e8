"""Patch features, or a graph, to normalised cuts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _C, _checks, _cut_graph, _launch
from ._arrays import Array

_OP = "ncut"
_Float = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NCut:
    """Eigenpairs of (D - W) x = λ D x; a batch is one more dimension in front.

    Args:
        eigenvalues: [k] float32, ascending; at least 0 where no weight is negative.
        vectors: [n, k] float32, one a column, xᵀ D x = 1; the entry of largest magnitude is positive, the
            first of equal ones.
        residuals: [k] float32, |D^-½ ((D - W) x - λ D x)|: about 1e-7 where the iterations were enough.
        products: [] int32, how often W was multiplied by a block of vectors.
    """

    eigenvalues: _Float
    vectors: _Float
    residuals: _Float
    products: npt.NDArray[np.int32]


def ncut(
    features: Array,
    k: int = 1,
    *,
    precomputed: bool = False,
    threshold: float | None = 0.0,
    binary: bool = False,
    floor: float = 1e-5,
    offset: float = 1.0,
    iterations: int = 10,
    tolerance: float = 0.0,
    start: Array | None = None,
    seed: int = 0,
    out: NCut | None = None,
    workspace: Array | None = None,
    stream: object = None,
) -> NCut:
    """The eigenvectors that cut a graph of patches best, smallest eigenvalue first.

    The constant vector, whose eigenvalue is 0, is not among them: k = 1 gives the vector that is often called
    the second smallest eigenvector.

    Args:
        features: [n, d] or [b, n, d] float32 or float16, finite, n at least 2; with `precomputed` the weights
            W, [n, n] or [b, n, n] float32 or float16, symmetric; the CPU reads one half of it.
        k: how many, 1 to n - 1.
        precomputed: `features` are weights; `threshold` to `offset` then have no meaning.
        threshold: at least 0: cosines S at or below it are no edge. None: W = S + offset, which is never
            stored; work and memory then grow with n, not n².
        binary: an edge weighs 1, not its cosine.
        floor: weight of a pair that is no edge, at least 0 and below 1; it joins the parts of a graph.
        offset: only without a threshold, at least 0; 1 makes every weight non-negative; 0 is the plain
            cosine, for which no row sum may be negative.
        iterations: products of W with a block of about k vectors, at least 1: fixed work without a tolerance.
            On CUDA iterations times k, or k + 1 with `start`, rounded up to an even number, is at most 2048.
        tolerance: at least 0: it ends early where all residuals are at most this, and no other Ritz value
            comes within three residuals of those found. 0: never. 1e-3 tells the sides of a cut.
        start: [n, k] or [b, n, k] float32, finite, vectors of any length to start from, such as `vectors` of
            the frame before; with a tolerance fewer products are made then. At least one random vector goes
            with them, and a thousandth of one with each: what they have no part of is found as without
            them, whether they are zeros, alike, or other eigenvectors. On CUDA, where values are not checked,
            one that is not finite is as zeros.
        seed: 0 to 2^64 - 1; draws the vectors that the iterations start from.
        out: contiguous arrays to write; returned.
        workspace: memory to compute in on CUDA, see `patchcut_kernels.cuda`.
        stream: the CUDA stream to run on, see `patchcut_kernels.cuda`.
    Returns:
        NCut. A node whose weights sum to 0 is 0 in every vector. Where W is not stored and has fewer
        eigenvectors below λ = 1 than k, the others are zeros with λ = 1.
    Raises:
        TypeError: "[ncut] features must be float32 or float16, got float64".
        ValueError: "[ncut] k must be 1 to 3, got 4".
        ValueError: "[ncut] start must be finite, got NaN or infinity".
        ValueError: "[ncut] the sum of a node's weights must be at least 0, ..."; on CUDA, where values are
            not checked, such a node has no edges.
    W = floor + (1 - floor) A with A = S (1 if `binary`) where S > threshold, else 0; D = diag(W 1). Shi and
    Malik, "Normalized cuts and image segmentation" (2000), equation 11; TokenCut (2202.11539): `binary` with
    threshold 0.2. Rayleigh-Ritz on the block Krylov space of D^-½ W D^-½, without the constant vector's
    direction D^½ 1. Residuals on the way are those of block Lanczos: Golub and Van Loan, "Matrix
    Computations" (4th edition), section 10.3.
    Examples:
        >>> features = np.float32([[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> (pk.ncut(features).vectors > 0).tolist()
        [[False], [False], [False], [True]]
    """
    graph = _cut_graph.checked(
        _OP,
        features,
        precomputed=precomputed,
        threshold=threshold,
        binary=binary,
        floor=floor,
        offset=offset,
    )
    *batch, n, d = graph.rows.shape
    k = _checks.integer(_OP, "k", k, 1, n - 1)
    iterations = _checks.integer(_OP, "iterations", iterations, 1, 2**63 - 1)
    tolerance = _cut_graph.checked_tolerance(_OP, tolerance)
    if start is not None:
        start = _checks.array(_OP, "start", start, np.float32, ("[n, k]", "[b, n, k]"))
        _checks.shape(_OP, "start", start, (*batch, n, k))
    seed = _checks.integer(_OP, "seed", seed, 0, 2**64 - 1)
    launch = _launch.prepare(_OP, stream, workspace, features=graph.rows, start=start)
    specs = {
        "eigenvalues": (np.float32, (*batch, k)),
        "vectors": (np.float32, (*batch, n, k)),
        "residuals": (np.float32, (*batch, k)),
        "products": (np.int32, tuple(batch)),
    }
    result = _checks.outputs(_OP, out, NCut, launch, specs, graph.rows, start)
    items = math.prod(batch)
    _C.ncut(
        _checks.native(_OP, "features", graph.rows, items, n, d),
        graph.kind,
        k,
        graph.threshold,
        graph.floor,
        graph.offset,
        iterations,
        seed,
        tolerance,
        _checks.native(_OP, "start", start, items, n, k),
        _checks.native(_OP, "out.eigenvalues", result.eigenvalues, items, k),
        _checks.native(_OP, "out.vectors", result.vectors, items, n, k),
        _checks.native(_OP, "out.residuals", result.residuals, items, k),
        _checks.native(_OP, "out.products", result.products, items),
        launch.context,
    )
    return result if out is None else out
