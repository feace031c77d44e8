"""Prototypes: each patch belongs to the stored vectors that it resembles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import Bundle, HeadSpec
from patchcut.errors import BundleError
from patchcut.features import Features, to_host
from patchcut.heads.base import explained

Float32 = npt.NDArray[np.float32]


class PrototypesHead:
    """A column for each prototype, such as the clusters of all images; every column is a name.

    Args:
        spec: its labels, features and temperature T.
        prototypes: [k, d] float32, of features less `mean`.
        mean: [d] float32, what all features have in common.
    """

    devices = ("cpu",)
    named = True

    def __init__(self, spec: HeadSpec, prototypes: Float32, mean: Float32) -> None:
        self.name = spec.name
        self.labels = spec.labels
        self.needs = spec.features
        self.prototypes = prototypes
        self.mean = mean
        self.temperature = spec.temperature

    def __call__(self, features: Features) -> Float32:
        """[b, n, k] float32, rows on the simplex: softmax_c(cos(x_i - mean, p_c) / T).

        Args:
            features: those of b frames, on the host.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        rows = to_host(features.of(self.needs))
        with explained(rows, "export the bundle again: its head and its backbone do not belong together"):
            shares = kernels.assign(
                rows - self.mean, self.prototypes, temperature=self.temperature
            ).assignment
        assert shares is not None
        return shares


def open_head(bundle: Bundle, spec: HeadSpec) -> PrototypesHead:
    """One of the bundle's heads of prototypes.

    Raises:
        BundleError: as `read_prototypes` does.
    """
    return PrototypesHead(spec, *read_prototypes(bundle, spec))


def read_prototypes(bundle: Bundle, spec: HeadSpec) -> tuple[Float32, Float32]:
    """The prototypes [k, d] and the mean [d] of one of the bundle's heads.

    Raises:
        BundleError: an array is missing, unknown, not finite or of a wrong shape.
    """
    file = spec.files["weights"]
    tensors = bundle.read_tensors(file)
    dim = bundle.spec.backbones[spec.backbone].features[spec.features[0]].dim
    shapes = {"prototypes": (len(spec.labels), dim), "mean": (dim,)}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes or not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        came = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(found.items())) or "nothing"
        what = f"{bundle.path} is foreign: {file} holds no such head: it has {came}"
        raise BundleError("bundle", what, "export the bundle again")
    return tensors["prototypes"], tensors["mean"]
