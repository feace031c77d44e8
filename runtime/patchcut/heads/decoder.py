"""The mask decoder: an assignment on a finer grid than the patches', which the backbone's graph computes."""

from __future__ import annotations

from patchcut_kernels import cuda

from patchcut.bundle import Bundle, HeadSpec
from patchcut.features import Array, Features


class DecoderHead:
    """Gives the assignment that came with the features; there is nothing left to compute.

    Args:
        spec: its labels and features. The first features tell what resembles what, as those of every head;
            the last set is the assignment, of c * c cells a patch.
    """

    devices = ("cpu", "cuda")
    capturable = True  # on a GPU it only gives work to its stream, so that a graph can hold it

    def __init__(self, spec: HeadSpec) -> None:
        self.name = spec.name
        self.labels = spec.labels
        self.needs = spec.features
        self.named = spec.role == "names"

    def __call__(self, features: Features) -> Array:
        """[b, c * c * n, k] float32, rows on the simplex, on the features' device; fresh memory.

        Args:
            features: those of b frames, with the assignment, which the engine overwrites with its next run.
        Examples:
            >>> from patchcut.heads.decoder import DecoderHead
            >>> spec = bundle.spec.heads[0].model_copy(update={"features": ("key", "mask")})
            >>> sets = {"key": np.ones((1, 1, 8), np.float32), "mask": np.ones((1, 4, 2), np.float32)}
            >>> DecoderHead(spec)(patchcut.Features(sets, (1, 1))).shape
            (1, 4, 2)
        """
        assignment = features[self.needs[-1]]
        if isinstance(assignment, cuda.DeviceArray):
            made = cuda.empty(assignment.shape, device=assignment.device, stream=assignment.stream)
            assert made.stream is not None
            cuda.copy(assignment, made, stream=made.stream)
            return made
        own: Array = assignment.copy()
        return own


def open_head(bundle: Bundle, spec: HeadSpec) -> DecoderHead:
    """One of the bundle's decoders; `bundle.json` has been checked to name its assignment."""
    return DecoderHead(spec)
