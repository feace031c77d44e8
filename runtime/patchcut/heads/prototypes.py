"""Prototypes: clusters or concepts, each with one stored vector or several that its patches resemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.bundle import Bundle, HeadSpec
from patchcut.cells import patch_means
from patchcut.errors import BundleError
from patchcut.features import Features, to_host
from patchcut.heads.base import Head, explained
from patchcut.heads.naming import RegionNamer, unit

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_REMEDY = "export the bundle again: its head and its backbone do not belong together"


@dataclass(frozen=True, eq=False)
class Prototypes:
    """p vectors of k columns.

    Attributes:
        vectors: [p, d] float32, unit, of features less `mean`.
        mean: [d] float32, what all features have in common.
        owners: [p] int32, the column of each vector. Of concepts, column 0 is background: its vectors are
            context, such as sky and road, and it may have none.
        thresholds: [k] float32, cosines which a column must exceed; None where something is always found.
        fold: [d, d] float32, symmetric; the vectors are directions m as fold m, since features are compared
            where they are whitened: <R^T x, R^T m> = <x, fold m> with fold = R R^T. None where they are not.
        presence: [k] float32, what `patchcut.heads.naming.presence` of a column must exceed in one of the
            regions that it names, or it is not there at all; -1 asks for nothing. None where none asks.
    """

    vectors: Float32
    mean: Float32
    owners: Int32
    thresholds: Float32 | None = None
    fold: Float32 | None = None
    presence: Float32 | None = None

    @classmethod
    def of_clusters(cls, vectors: Float32, mean: Float32) -> Prototypes:
        """One vector a column, none of which is background.

        Examples:
            >>> from patchcut.heads.prototypes import Prototypes
            >>> Prototypes.of_clusters(np.eye(2, dtype=np.float32), np.zeros(2, np.float32)).owners
            array([0, 1], dtype=int32)
        """
        return cls(vectors, mean, np.arange(len(vectors), dtype=np.int32))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a bundle keeps, as `read_prototypes` reads it.

        Examples:
            >>> from patchcut.heads.prototypes import Prototypes
            >>> one = Prototypes.of_clusters(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
            >>> sorted(one.tensors())
            ['mean', 'owners', 'prototypes']
        """
        made = {"prototypes": self.vectors, "mean": self.mean, "owners": self.owners}
        others = {"thresholds": self.thresholds, "fold": self.fold, "presence": self.presence}
        return made | {name: tensor for name, tensor in others.items() if tensor is not None}


class PrototypesHead:
    """A column for each cluster or concept; every column is a name.

    Args:
        spec: its labels, features and temperature T. Features are those of the prototypes, then those which
            only the foreground needs.
        prototypes: of its columns.
        foreground: the head whose foreground is named region by region; without one each patch is named.
    """

    devices = ("cpu",)
    named = True

    def __init__(self, spec: HeadSpec, prototypes: Prototypes, foreground: Head | None = None) -> None:
        self.name = spec.name
        self.labels = spec.labels
        self.needs = spec.features
        self.spec = spec
        self.label_colors = _label_colors(spec)
        self.prototypes = prototypes
        self.foreground = foreground
        self._namer = RegionNamer(
            unit(prototypes.vectors), prototypes.owners, prototypes.thresholds, prototypes.presence
        )

    def __call__(self, features: Features) -> Float32:
        """[b, n, k] float32, rows on the simplex.

        With the margins m_c(x) = max over the prototypes p of c of cos(x - mean, p), less c's threshold; that
        of the background is at least 0 where there are thresholds:

            without a foreground     softmax_c(m_c(x_i) / T)
            with one, s_i in [0, 1]  s_i at the column with the largest margin, 1 - s_i at the background;
                                     x is the mean of the region that patch i is in, where s is above 0.5

        A region whose best concept does not exceed its threshold, or which resembles context more, is
        background. So are all regions of a concept whose presence exceeds its limit in none of them: the
        threshold says what a region is called, the presence whether the frame has the thing at all.

        Args:
            features: those of b frames, on the host.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        if self.foreground is None:
            return self.per_patch(features)
        shares = patch_means(to_host(self.foreground(features)), features.grid_hw)
        return np.stack(
            [self._regions(features.frame(i), 1 - shares[i, :, 0]) for i in range(features.batch)]
        )

    def per_patch(self, features: Features) -> Float32:
        """[b, n, k] float32, rows on the simplex: each patch by itself.

        Without a foreground it is what the head says. With one, the column with a patch's own largest margin
        has its share of the foreground: what one ONNX file of frame and head computes, without regions and
        so without asking for presence.

        Args:
            features: those of b frames, on the host.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        rows = to_host(features.of(self.needs))
        with explained(rows, _REMEDY):
            margins = self._namer.margins((rows - self.prototypes.mean).reshape(-1, rows.shape[-1]))
        if self.foreground is not None:
            shares = patch_means(to_host(self.foreground(features)), features.grid_hw)
            side = 1 - shares[..., 0].ravel()
            return _one_column(margins.argmax(axis=1), side, margins.shape[1]).reshape(*rows.shape[:2], -1)
        margins -= margins.max(axis=1, keepdims=True)
        margins /= np.float32(self.spec.temperature)
        soft: Float32 = np.exp(margins, out=margins)
        soft /= soft.sum(axis=1, keepdims=True)
        return soft.reshape(*rows.shape[:2], -1)

    def _regions(self, features: Features, side: Float32) -> Float32:
        """[n, k] float32 of one frame, whose patches are foreground by `side` [n]."""
        rows = to_host(features.of(self.needs))[0]
        with explained(rows, _REMEDY):
            centred = rows - self.prototypes.mean
            columns = self._namer(centred, np.zeros_like(self.prototypes.mean), side > 0.5, features.grid_hw)
        return _one_column(columns, side, len(self.labels))


def _one_column(columns: npt.NDArray[np.integer[Any]], side: Float32, k: int) -> Float32:
    """[n, k] float32: of each patch its column has so much as `side` [n], and the background the rest."""
    assignment = np.zeros((len(columns), k), np.float32)
    named = np.where(columns > 0, side, 0)
    assignment[:, 0] = 1 - named
    assignment[np.arange(len(columns)), columns] += named
    return assignment


def _label_colors(spec: HeadSpec) -> tuple[int, ...]:
    """The number of each label's colour; () where those are the columns."""
    colors = spec.concepts.colors if spec.concepts is not None else {}
    numbers = tuple(colors.get(label, column) for column, label in enumerate(spec.labels))
    return numbers if colors else ()


def open_head(bundle: Bundle, spec: HeadSpec) -> PrototypesHead:
    """One of the bundle's heads of prototypes, with the head of its foreground.

    Raises:
        BundleError: as `read_prototypes` does, or as the other head does.
    """
    from patchcut.heads import open_head as open_any

    prototypes = read_prototypes(bundle, spec)
    if spec.concepts is None or spec.concepts.foreground is None:
        return PrototypesHead(spec, prototypes)
    other = next(head for head in bundle.spec.heads if head.name == spec.concepts.foreground)
    return PrototypesHead(spec, prototypes, open_any(bundle, other))


def read_prototypes(bundle: Bundle, spec: HeadSpec) -> Prototypes:
    """The prototypes of one of the bundle's heads.

    Raises:
        BundleError: an array is missing, unknown, not finite or of a wrong shape; or a column has no
            prototype, or a prototype no column.
    """
    file = spec.files["weights"]
    tensors = bundle.read_tensors(file)
    dim = bundle.spec.backbones[spec.backbone].features[spec.features[0]].dim
    try:
        return _checked(tensors, dim, len(spec.labels), concepts=spec.concepts is not None)
    except ValueError as error:
        what = f"{bundle.path} is foreign: {file} holds no such head: {error}"
        raise BundleError("bundle", what, "export the bundle again") from error


def _checked(tensors: dict[str, npt.NDArray[Any]], dim: int, k: int, *, concepts: bool) -> Prototypes:
    count = len(tensors["prototypes"]) if tensors.get("prototypes", np.zeros(())).ndim == 2 else k
    known: dict[str, tuple[int, ...]] = {
        "prototypes": (count, dim),
        "mean": (dim,),
        "owners": (count,),
        "thresholds": (k,),
        "fold": (dim, dim),
        "presence": (k,),
    }
    tensors = {"owners": np.arange(k, dtype=np.int32), **tensors}
    if not {"prototypes", "mean"} <= tensors.keys() <= known.keys():
        raise ValueError(f"it has the arrays {', '.join(sorted(tensors))}")
    for name, tensor in tensors.items():
        if tensor.shape != known[name] or not np.isfinite(tensor).all():
            shape, expected = list(tensor.shape), list(known[name])
            raise ValueError(f"{name} is {shape}, expected {expected} of finite numbers")
    owners = tensors["owners"]
    if set(owners.tolist()) - {0} != set(range(1, k)) or not (concepts or (owners == 0).any()):
        raise ValueError(f"each of the {k} columns must have a prototype, and each prototype a column")
    thresholds, fold, presence = (
        tensors[name].astype(np.float32) if name in tensors else None
        for name in ("thresholds", "fold", "presence")
    )
    return Prototypes(
        tensors["prototypes"].astype(np.float32),
        tensors["mean"].astype(np.float32),
        owners.astype(np.int32),
        thresholds,
        fold,
        presence,
    )
