"""The head of concepts of a bundle that has none yet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchcut.bundle import Bundle
from patchcut.errors import OptionError
from patchcut.features import Features

CONCEPTS = "concepts"  # what the head is called
SEMANTIC = "semantic"  # and the feature set that tells what things are


class NoConcepts:
    """Finds nothing: all is background.

    Args:
        backbone: name of the backbone.
        needs: feature sets for concepts that will be added, and for the head for objects.
        foreground: name of that head; None where the bundle has none.
    """

    name = CONCEPTS
    labels = ("background",)
    devices = ("cpu",)
    named = True

    def __init__(self, backbone: str, needs: tuple[str, ...], foreground: str | None) -> None:
        self.backbone = backbone
        self.needs = needs
        self.foreground = foreground

    def __call__(self, features: Features) -> npt.NDArray[np.float32]:
        """[b, n, 1] float32, ones; as `Head`."""
        return np.ones((features.batch, features.default.shape[1], 1), np.float32)


def no_concepts(bundle: Bundle) -> NoConcepts:
    """The head of a bundle that has no concepts yet, on its first backbone.

    Raises:
        OptionError: the backbone has no feature set that tells what things are.
    """
    name, backbone = next(iter(bundle.spec.backbones.items()))
    if SEMANTIC not in backbone.features:
        held = ", ".join(backbone.features)
        what = f'"{CONCEPTS}" needs the feature set "{SEMANTIC}", {bundle.path} has {held}'
        remedy = "export its backbone again with --features, such as key,semantic=token@9"
        raise OptionError("head", what, remedy)
    objects = bundle.spec.head("objects")
    if objects is None or objects.backbone != name:
        return NoConcepts(name, (SEMANTIC,), None)
    return NoConcepts(name, tuple(dict.fromkeys((SEMANTIC, *objects.features))), objects.name)
