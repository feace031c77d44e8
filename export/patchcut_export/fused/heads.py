"""Trained heads as nodes of a graph; each kind is one function and one line in `FUSED`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from patchcut.bundle import BackboneSpec, Bundle, HeadSpec
from patchcut.cells import cells_of
from patchcut.heads.gnn import read_weights
from patchcut.heads.levels import open_head as open_levels
from patchcut.heads.prototypes import Prototypes, read_prototypes

from patchcut_export.fused.nodes import Nodes

# (nodes, features [b, n, d] of each set that the head needs, bundle, head, patch grid, name of the result)
# writes the assignment [b, n, k].
HeadWriter = Callable[[Nodes, dict[str, str], Bundle, HeadSpec, tuple[int, int], str], None]

# Unit rows divide by at least this: rows of zeros stay zeros, as in the kernels.
_TINY = 1e-20
_NEVER = -8.0  # below all margins


def add_decoder(
    nodes: Nodes,
    features: dict[str, str],
    bundle: Bundle,
    head: HeadSpec,
    grid_hw: tuple[int, int],
    output: str,
) -> None:
    """Calls the assignment that the backbone's graph makes, [b, c * c * n, k], by its name in the file."""
    nodes.add("Identity", features[head.features[-1]], output=output)


def add_gnn(
    nodes: Nodes,
    features: dict[str, str],
    bundle: Bundle,
    head: HeadSpec,
    grid_hw: tuple[int, int],
    output: str,
) -> None:
    """Writes the assignment of the trained GNN, as `patchcut_kernels.gcn_forward` computes it.

    Raises:
        BundleError: as `patchcut.heads.gnn.open_head` does.
    """
    weights = read_weights(bundle, head)
    rows = features[head.features[0]]
    unit = _unit_rows(nodes, rows)
    nodes_in = unit if weights.normalize else rows
    shifted = nodes.add("Sub", nodes_in, nodes.constant("shift", weights.shift))
    hidden = nodes.add("Mul", shifted, nodes.constant("scale", weights.scale))
    if weights.layers:
        edges, scales = _affinity(nodes, unit if head.affinity.kind == "cosine" else rows, head)
    for i, layer in enumerate(weights.layers):
        sent = nodes.add("MatMul", hidden, nodes.constant(f"gcn.{i}.theta", layer.theta))
        # D^-1/2 (W + I) D^-1/2 sent, without making that matrix
        scaled = nodes.add("Mul", sent, scales)
        gathered = nodes.add("Add", nodes.add("MatMul", edges, scaled), scaled)
        total = nodes.add("Mul", gathered, scales)
        if layer.root is not None:
            own = nodes.add("MatMul", hidden, nodes.constant(f"gcn.{i}.root", layer.root))
            total = nodes.add("Add", total, own)
        hidden = nodes.add("Elu", nodes.add("Add", total, nodes.constant(f"gcn.{i}.bias", layer.bias)))
    for i, linear in enumerate(weights.mlp):
        last = i == len(weights.mlp) - 1
        divisor = weights.temperature if last else 1.0
        product = nodes.add("MatMul", hidden, nodes.constant(f"mlp.{i}.weight", linear.weight / divisor))
        hidden = nodes.add("Add", product, nodes.constant(f"mlp.{i}.bias", linear.bias / divisor))
        if not last:
            hidden = nodes.add("Elu", hidden)
    nodes.add("Softmax", hidden, output=output, axis=-1)


def add_prototypes(
    nodes: Nodes,
    features: dict[str, str],
    bundle: Bundle,
    head: HeadSpec,
    grid_hw: tuple[int, int],
    output: str,
) -> None:
    """Writes each patch by itself, as `patchcut.heads.prototypes.PrototypesHead.per_patch` computes it.

    Raises:
        BundleError: as `patchcut.heads.prototypes.open_head` does.
    """
    prototypes = read_prototypes(bundle, head)
    centred = nodes.add("Sub", features[head.features[0]], nodes.constant("mean", prototypes.mean))
    cosines = _cosines(nodes, centred, prototypes.vectors, "prototypes", 1.0)
    margins = _margins(nodes, cosines, prototypes, len(head.labels))
    if head.concepts is None or head.concepts.foreground is None:
        divided = nodes.add("Div", margins, nodes.number("temperature", head.temperature))
        nodes.add("Softmax", divided, output=output, axis=-1)
        return
    objects = next(one for one in bundle.spec.heads if one.name == head.concepts.foreground)
    shares = f"{head.name}/of {objects.name}"
    FUSED[objects.kind](nodes, features, bundle, objects, grid_hw, shares)
    rows = assignment_rows(bundle.spec.backbones[head.backbone], objects, grid_hw)
    shares = _patch_means(nodes, shares, cells_of(rows, grid_hw), grid_hw, len(objects.labels))
    first, last, along = (nodes.constant(f"at{i}", np.array([i])) for i in (0, 1, 2))
    side = nodes.add("Sub", nodes.number("all", 1.0), nodes.add("Slice", shares, first, last, along))
    own = nodes.add("Mul", nodes.add("Hardmax", margins, axis=-1), side)
    end = nodes.constant("end", np.array([len(head.labels)]))
    named = nodes.add("Slice", own, last, end, along)
    background = nodes.add("Sub", nodes.number("rest", 1.0), nodes.add("ReduceSum", named, along))
    nodes.add("Concat", background, named, output=output, axis=-1)


def _patch_means(nodes: Nodes, assignment: str, cells: int, grid_hw: tuple[int, int], columns: int) -> str:
    """[b, n, k] of [b, c * c * n, k]: the mean over the cells of each patch; itself where those are one."""
    if cells == 1:
        return assignment
    sides = np.array([0, grid_hw[0], cells, grid_hw[1], cells, columns])
    each = nodes.add("Reshape", assignment, nodes.constant("cells", sides))
    sums = nodes.add("ReduceSum", each, nodes.constant("in patch", np.array([2, 4])), keepdims=0)
    means = nodes.add("Mul", sums, nodes.number("each", 1 / cells**2))
    return nodes.add("Reshape", means, nodes.constant("patches", np.array([0, -1, columns])))


def _margins(nodes: Nodes, cosines: str, prototypes: Prototypes, k: int) -> str:
    """[b, n, k] margins of cosines [b, n, p]: of each column the largest, less its threshold."""
    own = [np.flatnonzero(prototypes.owners == column) for column in range(k)]
    most = max(map(len, own))
    picked = np.stack([np.resize(one if len(one) else [0], most) for one in own], axis=1)  # some come twice
    each = [
        nodes.add("Gather", cosines, nodes.constant(f"picked{i}", one), axis=2)
        for i, one in enumerate(picked)
    ]
    thresholds = np.zeros(k) if prototypes.thresholds is None else prototypes.thresholds.copy()
    floor = np.full(k, _NEVER)
    floor[0] = _NEVER if prototypes.thresholds is None else 0.0
    if not len(own[0]):
        thresholds[0] = -_NEVER
    margins = nodes.add("Sub", nodes.add("Max", *each), nodes.constant("thresholds", thresholds))
    return nodes.add("Max", margins, nodes.constant("floor", floor))


def add_levels(
    nodes: Nodes,
    features: dict[str, str],
    bundle: Bundle,
    head: HeadSpec,
    grid_hw: tuple[int, int],
    output: str,
) -> None:
    """Writes the dataset level alone, as `patchcut.heads.levels.LevelsHead.per_patch` computes it.

    Raises:
        BundleError: as `patchcut.heads.levels.open_head` does.
    """
    opened = open_levels(bundle, head)
    centres = opened.centres
    cosines = _cosines(nodes, features[opened.sets[0]], centres.dataset, "dataset", centres.temperature)
    shares = nodes.add("Softmax", cosines, axis=-1)
    foreground = nodes.constant("foreground", centres.foreground.astype(np.float32)[:, None])
    side = nodes.add("MatMul", shares, foreground)
    semantic = _unit_rows(nodes, features[opened.sets[2]])
    centred = nodes.add("Sub", semantic, nodes.constant("name_mean", centres.name_mean))
    alike = _cosines(nodes, centred, centres.names, "names", 1.0)
    nearest = nodes.add("Mul", nodes.add("Hardmax", alike, axis=-1), side)
    background = nodes.add("Sub", nodes.number("one", 1.0), side)
    nodes.add("Concat", background, nearest, output=output, axis=-1)


def _cosines(nodes: Nodes, rows: str, targets: npt.NDArray[np.float32], name: str, divisor: float) -> str:
    """[b, n, c] cosines of rows to targets [c, d], over a divisor."""
    length = np.maximum(np.linalg.norm(targets, axis=1, keepdims=True), _TINY)
    return nodes.add("MatMul", _unit_rows(nodes, rows), nodes.constant(name, (targets / length / divisor).T))


def _unit_rows(nodes: Nodes, rows: str) -> str:
    squares = nodes.add(
        "ReduceSum", nodes.add("Mul", rows, rows), nodes.constant(f"last{len(nodes.nodes)}", np.array([-1]))
    )
    length = nodes.add("Sqrt", squares)
    return nodes.add("Div", rows, nodes.add("Max", length, nodes.number(f"tiny{len(nodes.nodes)}", _TINY)))


def _affinity(nodes: Nodes, rows: str, head: HeadSpec) -> tuple[str, str]:
    """[b, n, n] edges, and [b, n, 1] 1 / sqrt(degree + 1)."""
    similarity = nodes.add("MatMul", rows, nodes.add("Transpose", rows, perm=[0, 2, 1]))
    kept = nodes.add("Greater", similarity, nodes.number("threshold", head.affinity.threshold))
    edges = nodes.add("Where", kept, similarity, nodes.number("none", 0.0))
    degrees = nodes.add("ReduceSum", edges, nodes.constant("along", np.array([-1])))
    root = nodes.add("Sqrt", nodes.add("Add", degrees, nodes.number("self", 1.0)))
    return edges, nodes.add("Div", nodes.number("one", 1.0), root)


def assignment_rows(backbone: BackboneSpec, head: HeadSpec, grid_hw: tuple[int, int]) -> int:
    """Rows of a trained head's assignment: one a patch, or of a decoder as many as it has cells."""
    if head.kind == "decoder":
        return backbone.features[head.features[-1]].rows(grid_hw)
    return grid_hw[0] * grid_hw[1]


FUSED: dict[str, HeadWriter] = {
    "gnn": add_gnn,
    "levels": add_levels,
    "prototypes": add_prototypes,
    "decoder": add_decoder,
}
