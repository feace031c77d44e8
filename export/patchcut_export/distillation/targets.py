"""What a student learns to find: the masks of an ensemble of the teacher's heads, moved onto edges."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import BundleError
from patchcut.features import Features, to_host
from patchcut.frames import Frame
from patchcut.heads import Head, NcutHead, open_head
from patchcut.output.whole_files import output_error, write_whole
from patchcut.settings import Settings
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor

from patchcut_export.errors import TrainingError
from patchcut_export.memory_maps import give_back
from patchcut_export.training.checkpoints import damaged
from patchcut_export.training.feature_cache import CachedFeatures
from patchcut_export.training.pseudo_masks import REFINE_SIZE, cut_out

# Cells along a side of a mask, whatever the grid of the teacher or the student is.
TARGET_SIDE = 64
_FLUSH_EVERY = 32

Step = Callable[[str, int, int], None]
_Masks = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MaskTargets:
    """Masks of N images, in a file that is mapped into memory.

    Attributes:
        masks: [N, TARGET_SIDE, TARGET_SIDE] uint8, the share of a cell on the object in 255ths.
        weights: [N] float32 in [0, 1], how far the ensemble's mask and the one on edges agree (IoU); 0 where
            nothing was found.
    """

    masks: _Masks
    weights: npt.NDArray[np.float32]

    def take(self, row: int) -> npt.NDArray[np.float32]:
        """[TARGET_SIDE, TARGET_SIDE] float32 in [0, 1]."""
        taken: npt.NDArray[np.float32] = self.masks[row].astype(np.float32) / np.float32(255)
        give_back(self.masks)
        return taken


class Ensemble:
    """The mean foreground of the teacher's head and of `ncut`, each at every size of the teacher's graphs.

    On ECSSD it is better than any of its members, which err in different places: see docs/embedded-head.md.

    Args:
        bundle: the teacher, open.
        settings: how its backbone runs.
        first: its extractor at the size of the cached features, which are not computed again.
    Attributes:
        key: what its masks depend on, the sha256 of each of the teacher's files.
    Raises:
        BundleError: it has no head for objects.
    """

    def __init__(self, bundle: Bundle, settings: Settings, first: Extractor) -> None:
        spec = bundle.spec.head()
        if spec is None:
            what = f"{bundle.path} holds a backbone and no head for objects"
            raise BundleError("teacher", what, "train one with `patchcut export train`")
        self.heads: Sequence[Head] = (open_head(bundle, spec), NcutHead())
        self.needs = tuple(dict.fromkeys(name for head in self.heads for name in head.needs))
        backbone = bundle.spec.backbones[spec.backbone]
        named = {*spec.files.values(), *(graph.file for graph in backbone.graphs), backbone.weights}
        self.key = sorted(bundle.spec.files[name].sha256 for name in named if name)
        sizes = sorted({graph.size_hw[0] for graph in backbone.graphs} - {first.graph.size_hw[0]})
        self.others = [
            Extractor.open(bundle, replace(settings, size=size), backbone=spec.backbone, needs=self.needs)
            for size in sizes
        ]

    def __call__(self, cached: Features, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[TARGET_SIDE, TARGET_SIDE] float32 in [0, 1].

        Args:
            cached: the features of the image at the first size.
            image: [H, W, 3] uint8 BGR.
        """
        votes = np.zeros((TARGET_SIDE, TARGET_SIDE), np.float32)
        seen = [cached, *(extractor([Frame(image)]) for extractor in self.others)]
        for features in seen:
            for head in self.heads:
                foreground = 1 - to_host(head(features))[0, :, 0].reshape(features.grid_hw)
                votes += cv2.resize(foreground, votes.shape, interpolation=cv2.INTER_LINEAR)
        votes /= np.float32(len(seen) * len(self.heads))
        return votes


def cache_masks(
    images: Path, cached: CachedFeatures, ensemble: Ensemble, folder: Path, step: Step
) -> MaskTargets:
    """The ensemble's masks of the cached images, from `folder` as far as they are there already.

    The soft mask is cut out by GrabCut (Rother et al. 2004) between what the ensemble is sure of, which puts
    its border onto the image's edges.

    Args:
        images: the folder that the features were read from.
        cached: features of its images, among them all that the ensemble needs.
        ensemble: the teacher's.
        folder: where the masks are kept; made if missing.
        step: called with (title, done, total).
    Raises:
        TrainingError: the folder is damaged, or holds masks of another teacher.
        OutputError: it cannot be written.
    """
    count = len(cached.images)
    try:
        store = _Store.open(folder, count, ensemble.key)
        for row in range(store.done, count):
            image = read_photo(images / cached.images[row])
            rows = {name: cached.take(slice(row, row + 1), name) for name in cached.sets}
            features = {name: np.asarray(one, np.float32) for name, one in rows.items()}
            store.put(*_on_edges(image, ensemble(Features(features, cached.grid_hw), image)))
            step("masks of the ensemble", row + 1, count)
        return store.targets()
    except OSError as error:
        raise output_error(folder, error) from error


def _on_edges(image: npt.NDArray[np.uint8], soft: npt.NDArray[np.float32]) -> tuple[_Masks, float]:
    """The mask on edges in 255ths of a cell, and its IoU with the soft one at a half."""
    small = cv2.resize(image, (REFINE_SIZE, REFINE_SIZE), interpolation=cv2.INTER_AREA)
    fine = cv2.resize(soft, (REFINE_SIZE, REFINE_SIZE), interpolation=cv2.INTER_LINEAR)
    moved = cut_out(np.asarray(small, np.uint8), np.asarray(fine, np.float32)).astype(np.float32)
    shares = cv2.resize(moved, soft.shape, interpolation=cv2.INTER_AREA)
    own, after = soft > 0.5, shares > 0.5
    union = np.count_nonzero(own | after)
    agreement = np.count_nonzero(own & after) / union if own.any() else 0.0
    return np.round(shares * 255).astype(np.uint8), agreement


class _Store:
    """Masks and weights in a folder, row by row."""

    def __init__(self, folder: Path, key: list[str], masks: Any, weights: list[float]) -> None:
        self.folder = folder
        self.key = key
        self.masks = masks
        self.weights = weights

    @classmethod
    def open(cls, folder: Path, count: int, key: list[str]) -> _Store:
        folder.mkdir(parents=True, exist_ok=True)
        path, state = folder / "masks.npy", folder / "masks.json"
        shape = (count, TARGET_SIDE, TARGET_SIDE)
        if not state.is_file():
            return cls(folder, key, np.lib.format.open_memmap(path, "w+", np.uint8, shape), [])
        try:
            fields = json.loads(state.read_text("utf-8"))
            theirs, weights = fields["key"], [float(one) for one in fields["weights"]]
            masks = np.lib.format.open_memmap(path, "r+")
            if masks.shape != shape or masks.dtype != np.uint8 or len(weights) > count:
                raise ValueError(f"it is {masks.dtype} {masks.shape}, not uint8 {shape}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(path, error) from error
        if theirs != key:
            remedy = "name another --work folder, or delete it"
            raise TrainingError("distill", f"{folder} holds masks of another teacher", remedy)
        return cls(folder, key, masks, weights)

    @property
    def done(self) -> int:
        return len(self.weights)

    def put(self, mask: _Masks, weight: float) -> None:
        self.masks[self.done] = mask
        self.weights.append(weight)
        if self.done % _FLUSH_EVERY == 0:
            self.flush()

    def flush(self) -> None:
        """Writes the masks, and then how many of them there are."""
        self.masks.flush()
        give_back(self.masks)
        write_whole(
            self.folder / "masks.json", json.dumps({"key": self.key, "weights": self.weights}).encode()
        )

    def targets(self) -> MaskTargets:
        self.flush()
        masks = np.load(self.folder / "masks.npy", mmap_mode="r")
        return MaskTargets(masks, np.asarray(self.weights, np.float32))
