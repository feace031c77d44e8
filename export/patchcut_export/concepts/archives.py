"""Archives: the photographs of one concept, as features of patches and regions of their foreground."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels
from patchcut.bundle import Bundle
from patchcut.cells import patch_means
from patchcut.features import Features, to_host
from patchcut.heads import Head
from patchcut.heads.naming import region_means
from patchcut.stages import Extractor

from patchcut_export.errors import ExportError
from patchcut_export.training.feature_cache import cache_features

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# Added to each direction's variance, in shares of the mean one.
SHRINKAGE = 0.1
_MOST_PATCHES = 1 << 16  # whose variances are looked at


@dataclass(frozen=True, eq=False)
class Archive:
    """m photographs of one thing, or of anything but the concepts.

    Attributes:
        name: of the concept.
        folder: where the photographs lie, or the index that they were found in.
        images: their m names below it, or their paths.
        rows: [m, n, d] float16, features that tell what things are.
        sides: [m, n] float32 in [0, 1], how much patches are foreground; ones without a head for objects.
        grid_hw: rows and columns of the patch grid.
        guide: [m, n] float32 in [0, 1], how much the concept's name is there; None where nothing tells.
        origin: where the photographs are from, in words.
        boxed: how many photographs have a box, inside which `sides` is 1, and 0 elsewhere.
        unseen: whether the head for objects sees no such thing as is inside most boxes.
    """

    name: str
    folder: Path
    images: tuple[str, ...]
    rows: npt.NDArray[np.float16]
    sides: Float32
    grid_hw: tuple[int, int]
    guide: Float32 | None = None
    origin: str = "of a folder"
    boxed: int = 0
    unseen: bool = False

    @property
    def paths(self) -> list[Path]:
        """The photographs' files."""
        return [self.folder / image for image in self.images]


@dataclass(frozen=True, eq=False)
class Space:
    """How features are compared: less what all have in common, by directions in which few of them differ.

    Attributes:
        mean: [d] float32, of the patches of all archives, each of which counts alike.
        moments: [A, d, d] float64, of the unit rows of each archive, less `mean`.
        whitening: [d, d] float32, R with R R^T the inverse of what is whitened.
    """

    mean: Float32
    moments: npt.NDArray[np.float64]
    whitening: Float32

    @classmethod
    def of(cls, archives: Sequence[Archive]) -> Space:
        """That of all patches of archives, whitened by how they differ."""
        chosen = [one.rows.reshape(-1, one.rows.shape[-1]) for one in archives]
        mean = np.mean([rows.mean(axis=0, dtype=np.float64) for rows in chosen], axis=0).astype(np.float32)
        moments = np.zeros((len(chosen), len(mean), len(mean)))
        for i, rows in enumerate(chosen):
            step = -(-len(rows) * len(chosen) // _MOST_PATCHES)
            centred = unit_rows(rows[::step].astype(np.float32) - mean)
            moments[i] = centred.T @ centred / len(centred)
        return cls(mean, moments, inverse_root(moments.mean(axis=0), SHRINKAGE))

    @cached_property
    def fold(self) -> Float32:
        """[d, d] float32, symmetric: <R^T x, R^T m> = <x, fold m>."""
        fold: Float32 = self.whitening @ self.whitening.T
        return fold

    def centred(self, rows: npt.NDArray[np.floating]) -> Float32:
        """[..., d] float32, unit rows of features less the mean."""
        return unit_rows(rows.astype(np.float32) - self.mean)

    def folded(self, means: Float32) -> Float32:
        """[p, d] float32, unit; the directions whose cosine to centred features ranks as the whitened one.

        <R^T x, R^T m> = <x, R R^T m>: the whitening costs nothing when a head runs.

        Args:
            means: [p, d] float32, of centred features.
        """
        return unit_rows(means @ self.fold)


@dataclass(frozen=True, eq=False)
class Regions:
    """R regions of the foreground of the images of an archive.

    Attributes:
        means: [R, d] float32, unit, of centred features.
        images: [R] int64, the image of each.
        members: [m, n] int32, each patch's region, i + 1 of region i; 0 of none.
        rows: [m, n, d] float16, features of all patches.
        mean: [d] float32, what they are less where they are compared.
    """

    means: Float32
    images: npt.NDArray[np.int64]
    members: Int32
    rows: npt.NDArray[np.float16]
    mean: Float32

    def patches(self, region: int) -> Float32:
        """[q, d] float32, features of one region's patches, less the mean."""
        image = self.images[region]
        own = self.rows[image][self.members[image] == region + 1]
        centred: Float32 = own.astype(np.float32) - self.mean
        return centred


def inverse_root(moment: npt.NDArray[np.float64], shrinkage: float) -> Float32:
    """[d, d] float32, R with R R^T = (moment + shrinkage tr(moment) / d)^-1, of a trace d moment.

    Args:
        moment: [d, d] float64, symmetric; its scale does not matter.
    """
    dim = len(moment)
    scale = np.trace(moment) / dim
    factor = np.linalg.cholesky(moment / scale + shrinkage * np.eye(dim))
    root: Float32 = np.ascontiguousarray(np.linalg.inv(factor).T, np.float32)
    return root


def unit_rows(rows: Float32) -> Float32:
    """Rows of length 1; one of zeros stays."""
    length = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    made: Float32 = (rows / np.maximum(length, 1e-20)).astype(np.float32)
    return made


def read_archive(
    name: str,
    folder: Path,
    bundle: Bundle,
    extractor: Extractor,
    sets: Sequence[str],
    foreground: Head | None,
    work: Path,
    without: Collection[str],
    advance: Callable[[int, int], None],
    say: Callable[[str], None],
) -> Archive:
    """An archive, from the features in `work` as far as they are there already.

    Args:
        sets: the feature set that tells what things are, then those of the foreground.
        without: names of images that are left out, such as "005.jpg", or their paths below the folder.
        advance: called after each image with (done, total).
        say: is given a line about each file that could not be read.
    Raises:
        ExportError: fewer than two images are left.
        SourceError: the folder is not there, or none of its images can be read.
        OutputError: the cache cannot be written, or is of something else.
    """
    cached = cache_features(folder, bundle, extractor, work, advance, sets=list(dict.fromkeys(sets)))
    for problem in cached.problems:
        say(f"{name}: skipped {problem}")
    kept = [i for i, image in enumerate(cached.images) if not {image, Path(image).name} & set(without)]
    if len(kept) < 2:
        what = f'the folder of "{name}", {folder}, has {len(kept)} images that can be used'
        raise ExportError("archive", what, "a concept needs two at least, and 20 to 50 to be good")
    places = np.array(kept, np.int64)
    made = {one: cached.take(places, one) for one in dict.fromkeys(sets)}
    sides = foreground_sides(foreground, made, cached.grid_hw)
    return Archive(name, folder, tuple(cached.images[i] for i in kept), made[sets[0]], sides, cached.grid_hw)


def foreground_sides(
    foreground: Head | None, sets: Mapping[str, npt.NDArray[np.float16]], grid_hw: tuple[int, int]
) -> Float32:
    """[m, n] float32 in [0, 1], how much the patches of m images are foreground; ones without a head.

    Args:
        sets: [m, n, d] float16 of each feature set that the head needs, and maybe of others.
    """
    first = next(iter(sets.values()))
    if foreground is None:
        return np.ones(first.shape[:2], np.float32)
    features = Features({one: sets[one].astype(np.float32) for one in foreground.needs}, grid_hw)
    each = (to_host(foreground(features.frame(i))) for i in range(len(first)))
    return np.stack([1 - patch_means(one, grid_hw)[0, :, 0] for one in each])


def find_regions(archive: Archive, space: Space) -> Regions:
    """The connected regions of the foreground, as the head of a bundle sees them."""
    means, images = [np.zeros((0, len(space.mean)), np.float32)], []
    members = np.zeros(archive.sides.shape, np.int32)
    nothing = np.zeros_like(space.mean)
    count = 0
    for i, (rows, side) in enumerate(zip(archive.rows, archive.sides, strict=True)):
        ids, found = kernels.connected_components((side > 0.5).astype(np.int32).reshape(archive.grid_hw))
        if not found:
            continue
        centred = rows.astype(np.float32) - space.mean
        means.append(region_means(centred, ids.ravel(), found, nothing))
        members[i] = np.where(ids.ravel() > 0, ids.ravel() + count, 0)
        images += [i] * found
        count += found
    return Regions(np.concatenate(means), np.array(images, np.int64), members, archive.rows, space.mean)
