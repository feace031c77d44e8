from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

_Float = npt.NDArray[np.float32]
_FloatOrHalf = npt.NDArray[np.float32 | np.float16]
_Int = npt.NDArray[np.int32]

def default_threads(root: str) -> int: ...
def get_threads() -> int: ...
def set_threads(count: int, /) -> None: ...
def available_isas() -> list[str]: ...
def get_isa() -> str: ...
def set_isa(name: str, /) -> None: ...

class DeviceType(Enum):
    cpu = ...
    cuda = ...

class Color(Enum):
    bgr = ...
    rgb = ...
    nv12 = ...

class AffinityKind(Enum):
    cosine = ...
    dot = ...

class AffinityMode(Enum):
    ncut = ...
    cc = ...

class Metric(Enum):
    euclidean = ...
    cosine = ...

class CutGraph(Enum):
    affinity = ...
    thresholded = ...
    binary = ...
    cosine = ...

class Context:
    def __init__(
        self,
        device_type: DeviceType,
        device_index: int,
        stream: int,
        workspace: int,
        workspace_bytes: int,
        /,
    ) -> None: ...

def preprocess(
    frames: npt.NDArray[np.uint8],
    images: _FloatOrHalf,
    content: tuple[int, int, int, int],
    color: Color,
    scale: Sequence[float],
    offset: Sequence[float],
    context: Context,
    /,
) -> None: ...
def affinity(
    features: _FloatOrHalf,
    out: _FloatOrHalf,
    degrees: _Float | None,
    kind: AffinityKind,
    mode: AffinityMode,
    threshold: float,
    alpha: float,
    context: Context,
) -> None: ...

class PackedGcn:
    def __init__(
        self,
        normalize: bool,
        shift: _Float,
        scale: _Float,
        layers: Sequence[tuple[_Float, _Float | None, _Float]],
        mlp: Sequence[tuple[_Float, _Float]],
        temperature: float,
        context: Context,
        /,
    ) -> None: ...
    @property
    def isa(self) -> str: ...

def gcn_forward(
    features: _FloatOrHalf,
    affinity: _FloatOrHalf | None,
    degrees: _Float | None,
    out: _Float,
    weights: PackedGcn,
    context: Context,
) -> None: ...
def gnn_fit(
    features: _Float,
    affinity: _Float,
    out: _Float,
    losses: _Float,
    loss: AffinityMode,
    learning_rate: float,
    dropout: float,
    tolerance: float,
    seed: int,
    init: tuple[_Float, ...] | None,
    fitted: _Float | None,
    context: Context,
) -> None: ...
def kmeans(
    points: _FloatOrHalf,
    init: _Float | None,
    metric: Metric,
    iterations: int,
    restarts: int,
    seed: int,
    labels: _Int,
    centroids: _Float,
    inertia: _Float,
    context: Context,
) -> None: ...
def kmeans_sums(
    points: _FloatOrHalf,
    centroids: _Float,
    metric: Metric,
    labels: _Int,
    distances: _Float,
    sums: npt.NDArray[np.float64] | None,
    counts: npt.NDArray[np.int64],
    inertia: npt.NDArray[np.float64],
    context: Context,
) -> None: ...
def correlation_cluster(
    affinity: _FloatOrHalf,
    max_clusters: int,
    seed: int,
    labels: _Int,
    counts: _Int,
    objectives: _Float,
    context: Context,
) -> None: ...
def assign(
    features: _FloatOrHalf,
    prototypes: _Float,
    temperature: float,
    labels: _Int,
    similarity: _Float,
    assignment: _Float | None,
    context: Context,
) -> None: ...
def cosegment(
    features: _FloatOrHalf,
    offsets: npt.NDArray[np.int64] | None,
    weights: _Float | None,
    scores: _Float,
    seeds: _Int,
    embedding: _Float,
    context: Context,
) -> None: ...
def ncut(
    features: _FloatOrHalf,
    graph: CutGraph,
    k: int,
    threshold: float,
    floor: float,
    offset: float,
    iterations: int,
    seed: int,
    tolerance: float,
    start: _Float | None,
    eigenvalues: _Float,
    vectors: _Float,
    residuals: _Float,
    products: _Int,
    context: Context,
) -> None: ...
def bipartition(
    features: _FloatOrHalf,
    graph: CutGraph,
    threshold: float,
    floor: float,
    offset: float,
    iterations: int,
    seed: int,
    tolerance: float,
    connected: bool,
    start: _Float | None,
    masks: npt.NDArray[np.bool_],
    seeds: _Int,
    vectors: _Float | None,
    context: Context,
) -> None: ...
def upsample_argmax(
    assignment: _Float,
    grid_height: int,
    grid_width: int,
    labels: _Int,
    confidence: _Float | None,
    context: Context,
) -> None: ...
def connected_components(
    label_map: _Int,
    connectivity: int,
    min_area: int,
    ids: _Int,
    kept_labels: _Int | None,
    counts: _Int,
    context: Context,
) -> None: ...
def relabel(labels: _Int, table: _Int, out: _Int, context: Context, /) -> None: ...
def region_stats(
    ids: _Int,
    label_map: _Int | None,
    confidence: _Float | None,
    area: npt.NDArray[np.int64],
    boxes_xyxy: _Float,
    mean_confidence: _Float | None,
    label: _Int | None,
    context: Context,
) -> None: ...
def rle_encode(
    masks: npt.NDArray[np.bool_],
    runs: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    context: Context,
    /,
) -> None: ...
def rle_encode_ids(
    ids: _Int,
    count: int,
    runs: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    context: Context,
    /,
) -> None: ...
def rle_decode(
    runs: npt.NDArray[np.uint32],
    offsets: npt.NDArray[np.int64],
    masks: npt.NDArray[np.bool_],
    context: Context,
    /,
) -> None: ...
def rle_write_text(runs: npt.NDArray[np.uint32], /) -> bytes: ...
def rle_read_text(text: bytes, runs: npt.NDArray[np.uint32], /) -> int: ...
def guided_refine(
    frames: npt.NDArray[np.uint8],
    maps: _Float,
    radius: int,
    eps: float,
    subsample: int,
    out: _Float,
    context: Context,
    /,
) -> None: ...
def guided_refine_labels(
    frames: npt.NDArray[np.uint8],
    label_maps: _Int,
    count: int,
    radius: int,
    eps: float,
    subsample: int,
    out: _Int,
    context: Context,
    /,
) -> None: ...
def bilateral_solver(
    frames: npt.NDArray[np.uint8],
    maps: _Float,
    confidence: _Float,
    sigmas: tuple[float, float, float],
    smoothness: float,
    iterations: int,
    bistochastic_iterations: int,
    color: Color,
    out: _Float,
    context: Context,
    /,
) -> None: ...

class cuda:
    """A module of the extension."""

    @staticmethod
    def device_count() -> int: ...
    @staticmethod
    def why_unavailable() -> str: ...
    @staticmethod
    def device_name(device: int, /) -> str: ...
    @staticmethod
    def compute_capability(device: int, /) -> int: ...
    @staticmethod
    def device_of(memory: int, /) -> int: ...
    @staticmethod
    def last_workspace_bytes() -> int: ...
    @staticmethod
    def allocate(device: int, nbytes: int, stream: int, /) -> int: ...
    @staticmethod
    def free(device: int, memory: int, stream: int, /) -> None: ...
    @staticmethod
    def host_allocate(device: int, nbytes: int, /) -> int: ...
    @staticmethod
    def host_free(device: int, memory: int, /) -> None: ...
    @staticmethod
    def copy(device: int, to: int, source: int, nbytes: int, stream: int, /) -> None: ...
    @staticmethod
    def lend(
        memory: int,
        shape: Sequence[int],
        strides: Sequence[int],
        kind: str,
        bits: int,
        device: int,
        owner: object,
        /,
    ) -> Any: ...
    @staticmethod
    def borrow(
        array: object, /
    ) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[str, int], int, bool, object]: ...
    @staticmethod
    def stream_create(device: int, /) -> int: ...
    @staticmethod
    def stream_destroy(device: int, stream: int, /) -> None: ...
    @staticmethod
    def stream_synchronize(device: int, stream: int, /) -> None: ...
    @staticmethod
    def stream_wait(device: int, stream: int, before: int, /) -> None: ...
    @staticmethod
    def event_create(device: int, /) -> int: ...
    @staticmethod
    def event_destroy(device: int, event: int, /) -> None: ...
    @staticmethod
    def event_record(device: int, event: int, stream: int, /) -> None: ...
    @staticmethod
    def event_synchronize(device: int, event: int, /) -> None: ...
    @staticmethod
    def event_elapsed_ms(device: int, begin: int, end: int, /) -> float: ...
    @staticmethod
    def capture_begin(device: int, stream: int, /) -> None: ...
    @staticmethod
    def capture_end(device: int, stream: int, /) -> int: ...
    @staticmethod
    def graph_memory_begin(device: int, stream: int, /) -> int: ...
    @staticmethod
    def graph_memory_end(device: int, memory: int, /) -> None: ...
    @staticmethod
    def graph_memory_destroy(device: int, memory: int, /) -> None: ...
    @staticmethod
    def graph_launch(device: int, graph: int, stream: int, /) -> None: ...
    @staticmethod
    def graph_destroy(device: int, graph: int, /) -> None: ...

def propagate(
    features: _FloatOrHalf,
    memory: _FloatOrHalf,
    values: _Float,
    frames: int,
    grid_height: int,
    grid_width: int,
    radius: int,
    topk: int,
    temperature: float,
    out: _Float,
    context: Context,
) -> None: ...
