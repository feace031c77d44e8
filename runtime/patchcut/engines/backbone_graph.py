"""A bundle's graph and its weights, as engines load them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.bundle.graph_outputs import keep_outputs
from patchcut.bundle.graph_weights import inline_weights
from patchcut.bundle.onnx_messages import GraphError
from patchcut.errors import BundleError


@dataclass(frozen=True)
class BackboneGraph:
    """A graph that makes the wanted feature sets and nothing else.

    Attributes:
        spec: what the bundle says of it.
        data: the bytes of its ONNX file.
        tensors: its external ones, by name.
        weights: precision that the weights are stored in.
    """

    spec: GraphSpec
    data: bytes
    tensors: dict[str, npt.NDArray[Any]]
    weights: str

    def inlined(self) -> BackboneGraph:
        """The same with its tensors in its bytes, for engines that know external ones from files only."""
        return replace(self, data=inline_weights(self.data, self.tensors), tensors={})


def read_graph(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec) -> BackboneGraph:
    """A graph of the bundle, without what only unwanted feature sets need.

    Args:
        backbone: one of the bundle's, with the feature sets that are wanted.
        graph: one of the backbone's.
    Raises:
        BundleError: the graph or its weights are not what `bundle.json` says.
    Examples:
        >>> backbone = bundle.spec.backbone
        >>> graph = patchcut.engines.backbone_graph.read_graph(bundle, backbone, backbone.graphs[0])
        >>> len(graph.inlined().data) > len(graph.data)
        True
    """
    tensors = _external_tensors(bundle, backbone, graph)
    data = bundle.read(graph.file)
    try:
        data, used = keep_outputs(data, [one.output for one in backbone.features.values()])
    except GraphError as error:
        what = f"{bundle.path} is foreign: {graph.file} does not give its feature sets: {error}"
        raise BundleError("bundle", what, "export the bundle again") from error
    tensors = {name: tensor for name, tensor in tensors.items() if name in used}
    in_8_bits = any(tensor.dtype in (np.int8, np.uint8) for tensor in tensors.values())
    return BackboneGraph(graph, data, tensors, "int8" if in_8_bits else graph.precision)


def _external_tensors(
    bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec
) -> dict[str, npt.NDArray[Any]]:
    """A graph's tensors out of the bundle's weights, by name."""
    weights, names = backbone.weights, graph.initializers
    if weights is None or not names:
        return {}
    tensors = bundle.read_tensors(weights)
    if missing := set(names) - set(tensors):
        what = f"{bundle.path} is damaged: {weights} lacks {', '.join(sorted(missing))} of {graph.file}"
        raise BundleError("bundle", what, "export the bundle again")
    for name in names:
        if tensors[name].dtype.kind == "f" and not np.isfinite(tensors[name]).all():
            what = f"{bundle.path} is damaged: {name} in {weights} is not finite"
            raise BundleError("bundle", what, "export the bundle again")
    return {name: tensors[name] for name in names}
