"""The tensors that lie outside a graph, as engines need them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.errors import BundleError


def external_tensors(
    bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec, used: Collection[str]
) -> dict[str, npt.NDArray[Any]]:
    """A graph's tensors out of the bundle's weights, by name.

    Args:
        used: names of the graph's initializers, inside and outside; weights that are not among them stay out.
    Raises:
        BundleError: one is not there, or not finite.
    Examples:
        >>> backbone = bundle.spec.backbone
        >>> graph = backbone.graphs[0]
        >>> tensors = patchcut.engines.graph_tensors.external_tensors(
        ...     bundle, backbone, graph, graph.initializers[:2])
        >>> len(tensors)
        2
    """
    weights = backbone.weights
    names = [name for name in graph.initializers if name in used]
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
