"""The kernels of patchcut: numpy in, numpy out, C++ between.

`patchcut_kernels.reference` holds the same ops in plain numpy; it is the specification.
"""

from . import cuda, reference
from ._affinity import affinity
from ._assign import PrototypeAssignment, assign
from ._bilateral_solver import bilateral_solver
from ._bipartition import Bipartition, bipartition
from ._connected_components import connected_components
from ._correlation_cluster import CorrelationClustering, correlation_cluster
from ._cosegment import Cosegmentation, cosegment
from ._gcn_forward import gcn_forward
from ._gcn_weights import GcnLayer, GcnWeights, LinearLayer
from ._gnn_fit import GnnFit, gnn_fit
from ._gnn_fit_weights import GnnFitWeights
from ._guided_refine import guided_refine
from ._isas import available_isas, get_isa, set_isa
from ._kmeans import KMeansClustering, kmeans
from ._kmeans_sums import KMeansSums, kmeans_sums
from ._ncut import NCut, ncut
from ._preprocess import letterbox_xyxy, preprocess
from ._propagate import propagate
from ._region_stats import RegionStats, region_stats
from ._relabel import relabel
from ._rle_decode import rle_decode
from ._rle_encode import Rle, RunLengths, rle_encode
from ._threads import default_threads, get_threads, set_threads
from ._upsample_argmax import upsample_argmax

__all__ = [
    "Bipartition",
    "CorrelationClustering",
    "Cosegmentation",
    "GcnLayer",
    "GcnWeights",
    "GnnFit",
    "GnnFitWeights",
    "KMeansClustering",
    "KMeansSums",
    "LinearLayer",
    "NCut",
    "PrototypeAssignment",
    "RegionStats",
    "Rle",
    "RunLengths",
    "affinity",
    "assign",
    "available_isas",
    "bilateral_solver",
    "bipartition",
    "connected_components",
    "correlation_cluster",
    "cosegment",
    "cuda",
    "default_threads",
    "gcn_forward",
    "get_isa",
    "get_threads",
    "gnn_fit",
    "guided_refine",
    "kmeans",
    "kmeans_sums",
    "letterbox_xyxy",
    "ncut",
    "preprocess",
    "propagate",
    "reference",
    "region_stats",
    "relabel",
    "rle_decode",
    "rle_encode",
    "set_isa",
    "set_threads",
    "upsample_argmax",
]
