"""The multilevel clustering framework: dataset, category and image level vote; what is found gets a name.

"A Lightweight Clustering Framework for Unsupervised Semantic Segmentation" (2311.18628). Nothing is trained
but centres: `patchcut export levels` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.bundle import Bundle, HeadSpec
from patchcut.errors import BundleError
from patchcut.features import Features, to_host
from patchcut.heads.base import Voted, explained
from patchcut.heads.naming import RegionNamer, unit

Float32 = npt.NDArray[np.float32]

LEVELS = ("dataset", "category", "image")
IMAGE_STEPS = 5  # of Lloyd's, from the category's centres
NEIGHBOUR_STEPS = 4  # that the votes are averaged over patches which look alike
# In a stream a category must be so much more alike than the one before.
_HYSTERESIS = 0.05

_REMEDY = "export the bundle again: its head and its backbone do not belong together"


@dataclass(frozen=True, eq=False)
class Centres:
    """What `patchcut export levels` has found, for unit features: K clusters, G categories, C names.

    Attributes:
        dataset: [K, d] float32, of the patches of all images.
        foreground: [K] bool, which of the K clusters are foreground, of each level.
        categories: [G, e] float32, of class tokens less `token_mean`.
        token_mean: [e] float32, the mean of unit class tokens.
        category: [G, K, d] float32, of the patches of each category's images.
        names: [C, s] float32, of the mean features of regions less `name_mean`.
        name_mean: [s] float32, the mean of unit features that tell what things are.
        voters: [3] bool, which of the levels vote.
        temperature: of the votes.
        threshold: cosines of patches at or below it do not average their votes.
    """

    dataset: Float32
    foreground: npt.NDArray[np.bool_]
    categories: Float32
    token_mean: Float32
    category: Float32
    names: Float32
    name_mean: Float32
    voters: npt.NDArray[np.bool_]
    temperature: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Memory:
    """What a stream remembers of its last frame.

    Attributes:
        category: its category.
        centres: [K, d] float32, its image level's.
    """

    category: int
    centres: Float32


class LevelsHead:
    """Three levels of clusters vote whether a patch is foreground; regions of it have the nearest name.

    Args:
        spec: labels are "background", then the C names; features are those for the foreground, the class
            token, and those for names where they are others.
        centres: of `patchcut export levels`.
    """

    devices = ("cpu",)
    named = True

    def __init__(self, spec: HeadSpec, centres: Centres) -> None:
        self.name = spec.name
        self.labels = spec.labels
        self.needs = spec.features
        self.centres = centres
        self.spec = spec
        self._namer = RegionNamer(centres.names, np.arange(1, len(spec.labels), dtype=np.int32))
        self._memory: Memory | None = None
        self._remembers = False
        self._memory_of_edges = np.empty((0, 0), np.float32)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels that vote."""
        return tuple(name for name, votes in zip(LEVELS, self.centres.voters, strict=True) if votes)

    @property
    def sets(self) -> tuple[str, str, str]:
        """Names of the feature sets for the foreground, of the class token, and for names."""
        return self.needs[0], self.needs[1], self.needs[-1 if len(self.needs) == 3 else 0]

    def __call__(self, features: Features) -> Float32:
        """[b, n, 1 + C] float32, rows on the simplex; as `Head`."""
        return self.vote(features).assignment

    def of_stream(self) -> LevelsHead:
        """One for one stream: a frame's category stays until another is clearly more alike.

        Its image level begins with the centres of the frame before, while the category is the same.

        Examples:
            >>> from patchcut.heads.levels import LevelsHead
            >>> callable(LevelsHead.of_stream)
            True
        """
        stream = LevelsHead(self.spec, self.centres)
        stream._remembers = True
        return stream

    def begin_scene(self) -> None:
        """Lets the next frame be judged by itself."""
        self._memory = None

    def vote(self, features: Features) -> Voted:
        """The assignment, and how each level votes.

        With unit features x_i, and of each level l the K centres c and those F of them that are foreground:

            v_l(i) = sum over F of softmax_c(<x_i, c> / T)
            v(i)   = the mean of the v_l(i) of the levels that vote
            s      = (D^-1 A)^4 v,  A_ij = <x_i, x_j> where above the threshold, else 0

        A patch is foreground where s is above 0.5: the levels agree, and patches that look alike agree.

        Args:
            features: those of b frames, on the host.
        Raises:
            EngineError: the features are not finite, or the head cannot use them.
        """
        voted = [self._vote(features.frame(i)) for i in range(features.batch)]
        assignment, votes = (np.stack(each) for each in zip(*voted, strict=True))
        return Voted(assignment, votes)

    def per_patch(self, features: Features) -> Float32:
        """[b, n, 1 + C] float32: the dataset level alone, each patch with the name that is nearest to itself.

        What one ONNX file of frame and head computes; it takes no regions.

        Args:
            features: those of b frames, on the host.
        """
        assignment = []
        for i in range(features.batch):
            frame = features.frame(i)
            rows, semantic = to_host(frame[self.sets[0]])[0], to_host(frame[self.sets[2]])[0]
            side = foreground_share(rows, self.centres.dataset, self.centres)[:, None]
            nearest = likeness(semantic, self.centres.name_mean, self.centres.names).argmax(axis=1)
            named = side * np.eye(len(self.centres.names), dtype=np.float32)[nearest]
            assignment.append(np.concatenate([1 - side, named], axis=1))
        return np.stack(assignment)

    def _vote(self, features: Features) -> tuple[Float32, Float32]:
        rows, token, semantic = (to_host(features[name])[0] for name in self.sets)
        centres = self.centres
        with explained(rows, _REMEDY):
            category = self._category(token)
            own = self._image_centres(rows, category) if centres.voters[2] else centres.category[category]
            each = np.stack([centres.dataset, centres.category[category], own])[centres.voters]
            votes = np.stack([foreground_share(rows, one, centres) for one in each])
            side = agree_with_neighbours(rows, votes.mean(axis=0), centres.threshold, self._edges(len(rows)))
        with explained(semantic, _REMEDY):
            names = self._namer(semantic, centres.name_mean, side > 0.5, features.grid_hw)
        if self._remembers:
            self._memory = Memory(category, own)
        assignment = np.zeros((len(rows), len(self.labels)), np.float32)
        assignment[:, 0] = 1 - side
        assignment[np.arange(len(rows)), np.maximum(names, 1)] = side
        return assignment, votes

    def _edges(self, n: int) -> Float32:
        """[n, n] float32, memory that is kept from frame to frame."""
        if len(self._memory_of_edges) != n:
            self._memory_of_edges = np.empty((n, n), np.float32)
        return self._memory_of_edges

    def _category(self, token: Float32) -> int:
        """The category whose class tokens are the most alike."""
        alike = likeness(token, self.centres.token_mean, self.centres.categories)[0]
        best = int(alike.argmax())
        if self._memory is not None and alike[best] < alike[self._memory.category] + _HYSTERESIS:
            return self._memory.category
        return best

    def _image_centres(self, rows: Float32, category: int) -> Float32:
        """[K, d] float32, the means after some of Lloyd's steps from the category's, or the last frame's."""
        first = self.centres.category[category]
        if self._memory is not None and self._memory.category == category:
            first = self._memory.centres
        return image_centres(rows, first)


def foreground_share(rows: Float32, means: Float32, centres: Centres) -> Float32:
    """[n] float32 in [0, 1], how much patches belong to the clusters that are foreground.

    Args:
        rows: [n, d] float32.
        means: [K, d] float32, of one level.
    """
    shares = kernels.assign(rows, np.ascontiguousarray(means), temperature=centres.temperature).assignment
    assert shares is not None
    share: Float32 = shares[:, centres.foreground].sum(axis=1)
    return share


def image_centres(rows: Float32, first: Float32) -> Float32:
    """[K, d] float32, unit means of an image's patches [n, d] after a few of Lloyd's steps from `first`.

    An image of fewer patches than clusters keeps `first`.
    """
    if len(rows) < len(first):
        return first
    found = kernels.kmeans(
        rows, len(first), metric="cosine", iterations=IMAGE_STEPS, init=np.ascontiguousarray(first)
    )
    return found.centroids


def agree_with_neighbours(rows: Float32, votes: Float32, threshold: float, edges: Float32) -> Float32:
    """[n] float32, votes [n] averaged four times over the patches that each resembles, by their cosine.

    Args:
        rows: [n, d] float32.
        threshold: cosines at or below it count as 0.
        edges: [n, n] float32, memory to compute in.
    """
    _, degrees = kernels.affinity(rows, threshold=threshold, return_degrees=True, out=edges)
    side = votes
    for _ in range(NEIGHBOUR_STEPS):
        sums = np.einsum("ij,j->i", edges, side)  # a product of BLAS waits for threads of its own
        side = np.divide(sums, degrees, out=side.copy(), where=degrees > 0)
    return np.clip(side, 0, 1)


def likeness(features: Float32, mean: Float32, centres: Float32) -> Float32:
    """[m, G] float32, cosines of centres [G, e] to features [m, e] that are made unit, less their mean.

    Raises:
        ValueError: a feature is not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")
    found: Float32 = unit(unit(features) - mean) @ centres.T
    return found


def open_head(bundle: Bundle, spec: HeadSpec) -> LevelsHead:
    """One of the bundle's heads of levels.

    Raises:
        BundleError: as `read_centres` does.
    """
    return LevelsHead(spec, read_centres(bundle, spec))


def read_centres(bundle: Bundle, spec: HeadSpec) -> Centres:
    """The centres of one of the bundle's heads of levels.

    Raises:
        BundleError: an array is missing, unknown, not finite, or of a wrong shape; or its features are of
            another kind.
    """
    file = spec.files["weights"]
    tensors = bundle.read_tensors(file)
    sets = bundle.spec.backbones[spec.backbone].features
    try:
        kinds = [(sets[name].of_patches, sets[name].of_image) for name in spec.features]
        patches, image = (True, False), (False, True)
        if kinds not in ([patches, image], [patches, image, patches]):
            raise ValueError("its features are not those of patches, of the class token, and of patches")
        dims = [sets[name].dim for name in (spec.features + spec.features[:1])[:3]]
        return _centres(tensors, dims, len(spec.labels) - 1, spec)
    except ValueError as error:
        what = f"{bundle.path} is foreign: {file} holds no such head: {error}"
        raise BundleError("bundle", what, "export the bundle again") from error


def _centres(tensors: dict[str, Float32], dims: list[int], names: int, spec: HeadSpec) -> Centres:
    patch, token, semantic = dims
    clusters = tensors["dataset"].shape[0] if tensors.get("dataset", np.zeros(0)).ndim == 2 else 0
    categories = tensors["categories"].shape[0] if tensors.get("categories", np.zeros(0)).ndim == 2 else 0
    shapes: dict[str, tuple[int, ...]] = {
        "dataset": (clusters, patch),
        "foreground": (clusters,),
        "categories": (categories, token),
        "token_mean": (token,),
        "category": (categories, clusters, patch),
        "names": (names, semantic),
        "name_mean": (semantic,),
        "voters": (len(LEVELS),),
    }
    if tensors.keys() != shapes.keys():
        raise ValueError(f"it has the arrays {', '.join(sorted(tensors)) or 'of nothing'}")
    for key, shape in shapes.items():
        if tensors[key].shape != shape or not np.isfinite(tensors[key]).all():
            raise ValueError(f"{key} is {list(tensors[key].shape)}, expected {list(shape)} of finite numbers")
    foreground, voters = tensors["foreground"] > 0.5, tensors["voters"] > 0.5
    if not voters.any():
        raise ValueError("none of its levels votes")
    if clusters < 2 or foreground.all() or not foreground.any():
        raise ValueError("its clusters must be of both sides, foreground and background")
    directions = {key: unit(tensors[key]) for key in ("categories", "names")}
    arrays: dict[str, Any] = {**tensors, **directions, "foreground": foreground, "voters": voters}
    return Centres(**arrays, temperature=spec.temperature, threshold=spec.affinity.threshold)
