"""The specification of every op: plain numpy, float64 inside, nothing clever.

Arguments and results are those of the public op of the same name, without batches, `out` and checks.
"""

from ._clusters import assign, correlation_cluster, cosegment, kmeans, kmeans_sums
from ._cuts import bipartition, cut_graph, cut_vectors, ncut, split
from ._fit import draw_fit_weights, gnn_fit
from ._images import area_matrix, content_xyxy, linear_matrix, nv12_to_rgb, preprocess
from ._masks import (
    connected_components,
    region_stats,
    relabel,
    rle_decode,
    rle_encode,
    rle_text,
    run_lengths,
    upsample,
    upsample_argmax,
)
from ._nodes import affinity, elu, gcn_forward, softmax, unit_rows
from ._random import mix_bits, random_bits, uniform
from ._refine import (
    bilateral_solver,
    bins,
    block_matrix,
    block_mean,
    box_mean,
    conjugate_gradients,
    grid_neighbours,
    guided_filter,
    guided_refine,
    yuv_levels,
)
from ._video import propagate

__all__ = [
    "affinity",
    "area_matrix",
    "assign",
    "bilateral_solver",
    "bins",
    "bipartition",
    "block_matrix",
    "block_mean",
    "box_mean",
    "conjugate_gradients",
    "connected_components",
    "content_xyxy",
    "correlation_cluster",
    "cosegment",
    "cut_graph",
    "cut_vectors",
    "draw_fit_weights",
    "elu",
    "gcn_forward",
    "gnn_fit",
    "grid_neighbours",
    "guided_filter",
    "guided_refine",
    "kmeans",
    "kmeans_sums",
    "linear_matrix",
    "mix_bits",
    "ncut",
    "nv12_to_rgb",
    "preprocess",
    "propagate",
    "random_bits",
    "region_stats",
    "relabel",
    "rle_decode",
    "rle_encode",
    "rle_text",
    "run_lengths",
    "softmax",
    "split",
    "uniform",
    "unit_rows",
    "upsample",
    "upsample_argmax",
    "yuv_levels",
]
