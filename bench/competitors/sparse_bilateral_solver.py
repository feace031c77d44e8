"""The fast bilateral solver (1511.03296) in scipy: sparse matrices and `scipy.sparse.linalg.cg`.

Written from the paper: equations 1 to 10 on the simplified bilateral grid of section 3, bistochastised as
algorithm 1 says, solved by conjugate gradients with the Jacobi preconditioner.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import cg

Float64 = npt.NDArray[np.float64]

# Rows: Y, U, V of full-range BT.601 from R, G, B in [0, 255].
_YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float64)
_SMALLEST_DIAGONAL = 1e-5


def solve(
    frame: npt.NDArray[np.uint8],
    target: npt.NDArray[np.float32],
    confidence: npt.NDArray[np.float32],
    *,
    sigma_spatial: float,
    sigma_luma: float,
    sigma_chroma: float,
    smoothness: float,
    iterations: int,
    bistochastic_iterations: int,
    tolerance: float = 0.0,
) -> Float64:
    """[H, W] float64: the map that is smooth in bilateral space and near `target` where that is sure.

    Args:
        frame: [H, W, 3] uint8 BGR.
        target, confidence: [H, W] float32, the latter above 0.
        sigma_spatial, sigma_luma, sigma_chroma: cells of the grid, in pixels and in grey levels.
        smoothness: the paper's lambda.
        iterations, tolerance: where the conjugate gradients stop.
        bistochastic_iterations: rounds of algorithm 1.
    """
    splat, blur = make_grid(frame, (sigma_spatial, sigma_luma, sigma_chroma))
    mass, scale = bistochastize(splat @ np.ones(splat.shape[1]), blur, bistochastic_iterations)
    weights = confidence.ravel().astype(np.float64)
    weight_sums = splat @ weights
    scaled = sparse.diags_array(scale)
    smooth = sparse.diags_array(mass) - scaled @ blur @ scaled
    matrix = (smoothness * smooth + sparse.diags_array(weight_sums)).tocsr()
    right = splat @ (weights * target.ravel())
    jacobi = sparse.diags_array(1 / np.maximum(matrix.diagonal(), _SMALLEST_DIAGONAL))
    solution, _ = cg(matrix, right, right / weight_sums, rtol=tolerance, maxiter=iterations, M=jacobi)
    sliced: Float64 = (splat.T @ solution).reshape(target.shape)
    return sliced


def make_grid(
    frame: npt.NDArray[np.uint8], sigmas: tuple[float, float, float]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """The matrix [vertices, pixels] that sums pixels into vertices, and the blur [vertices, vertices]."""
    coordinates = bilateral_coordinates(frame, sigmas)
    # One spare bin at each end of an axis, so that the neighbour of a last bin is no other bin.
    sizes = coordinates.max(0) + 3
    strides = np.cumprod([1, *sizes[:-1]])
    keys, vertices = np.unique((coordinates + 1) @ strides, return_inverse=True)
    pixels = len(vertices)
    splat = sparse.csr_array((np.ones(pixels), (vertices, np.arange(pixels))), (len(keys), pixels))
    blur = 2 * len(strides) * sparse.eye_array(len(keys))
    for stride in strides:
        blur = blur + _shifts(keys, stride) + _shifts(keys, -stride)
    return splat, blur.tocsr()


def bilateral_coordinates(
    frame: npt.NDArray[np.uint8], sigmas: tuple[float, float, float]
) -> npt.NDArray[np.int64]:
    """[H * W, 5] bins of x, y, luma and both chromas."""
    height, width, _ = frame.shape
    y, x = np.mgrid[:height, :width]
    yuv = frame[..., ::-1] @ _YUV.T + (0, 128, 128)
    spatial, luma, chroma = sigmas
    position = np.stack([x, y], -1) / spatial
    # Sums of rounded thirds: a grey of 64 must not fall below 64.
    colour = (yuv + 1e-9) / (luma, chroma, chroma)
    return np.concatenate([position, colour], -1).astype(np.int64).reshape(-1, 5)


def _shifts(keys: npt.NDArray[np.int64], stride: int) -> sparse.csr_array:
    """1 where the vertex of a row has that of a column as its neighbour, `stride` keys away."""
    at = np.minimum(np.searchsorted(keys, keys + stride), len(keys) - 1)
    rows = np.flatnonzero(keys[at] == keys + stride)
    return sparse.csr_array((np.ones(len(rows)), (rows, at[rows])), (len(keys), len(keys)))


def bistochastize(mass: Float64, blur: sparse.csr_array, iterations: int) -> tuple[Float64, Float64]:
    """The diagonals D_m and D_n of equation 6, D_m corrected so that both sum alike after few iterations."""
    scale = np.ones_like(mass)
    for _ in range(iterations):
        scale = np.sqrt(scale * mass / (blur @ scale))
    return scale * (blur @ scale), scale
