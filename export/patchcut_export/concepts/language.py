"""What words say about images: which of an index they find, and where in an image they are.

"ReCo: Retrieve and Co-segment for Zero-shot Transfer" (2206.07045), sections 3.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle, open_bundle
from patchcut.checks import check_whole
from patchcut.errors import OptionError
from patchcut.settings import Settings
from patchcut.stages import Extractor

from patchcut_export.concepts.archives import unit_rows
from patchcut_export.concepts.image_features import ImageFeatures
from patchcut_export.errors import ExportError
from patchcut_export.progress import StepBar
from patchcut_export.retrieval.index import ImageIndex, check_clip, open_index
from patchcut_export.retrieval.prompts import find_templates
from patchcut_export.retrieval.texts import TextEncoder

Float32 = npt.NDArray[np.float32]

CONTEXT = ("tree", "sky", "building", "road", "person")
DENSE = ("maskclip", "naclip")  # the first that a CLIP has is taken
_SHARPNESS = 10.0  # of the sigmoid, as the authors published it
_MAX_IMAGES = 10_000


@dataclass(frozen=True, kw_only=True)
class Words:
    """Names that become concepts, and what they are looked up in.

    Attributes:
        names: the texts that say each name, at least one; their embeddings are averaged.
        index: the folder of an index; None where all images come from folders.
        clip: a bundle of `patchcut export clip`; None for the one that the index was made with.
        k: images a name.
        prompts: the templates that texts are put into, as `find_templates` takes them.
        guided: whether patches count as much as the text is there; None where the CLIP can tell.
        context: names of what is around things, whose images are found, too.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index: Path | None = None
    clip: Path | None = None
    k: int = 50
    prompts: str = "plain"
    guided: bool | None = None
    context: tuple[str, ...] = CONTEXT

    def __post_init__(self) -> None:
        check_whole("k", self.k, 2, _MAX_IMAGES)
        find_templates(self.prompts)
        if self.names and self.index is None:
            name = next(iter(self.names))
            raise OptionError(
                "archive", f'has no folder for "{name}"', f"--archive '{name}=DIR', or --index INDEX"
            )


class Language:
    """A CLIP at hand.

    Args:
        clip: an open bundle with a text tower.
        words: what is asked.
        settings: device, threads and precision that its image tower runs with.
        work: folder for the dense features of images.
        fit: how the other backbone fits frames into its square.
    Raises:
        ExportError: the index is another CLIP's, or damaged; or guidance was asked for and is not possible.
        BundleError: the bundle has no text tower.
    """

    def __init__(self, clip: Bundle, words: Words, settings: Settings, work: Path, fit: str) -> None:
        self._words = words
        self._index: ImageIndex | None = None if words.index is None else open_index(words.index)
        if self._index is not None:
            check_clip(self._index, clip)
        self._encoder = TextEncoder.open(clip, threads=settings.threads)
        self.name = clip.spec.name
        self._vectors: dict[str, Float32] = {}
        self._dense = _dense_set(clip, words.guided, fit)
        self._grid_hw = (1, 1)
        if self._dense is not None:
            extractor = Extractor.open(clip, settings, needs=[self._dense])
            self._grid_hw = extractor.graph.grid_hw
            self._features = ImageFeatures(work, clip, extractor, [self._dense])

    @property
    def folder(self) -> Path:
        """The index's."""
        assert self._index is not None
        return self._index.folder

    @property
    def guides(self) -> bool:
        """Whether it tells where in an image a text is."""
        return self._dense is not None

    def find(self, name: str, without: Collection[str], say: Callable[[str], None]) -> list[Path]:
        """The k images of the index that are nearest to a name, near-duplicates left out.

        Args:
            without: names of files, or their paths, that are left out.
            say: is given a line where files have gone.
        Raises:
            ExportError: fewer than two are left.
        """
        assert self._index is not None
        hits = self._index.search(self.vector(name), self._words.k + len(without))
        crossed = set(without)
        paths = [hit.path for hit in hits if not {str(hit.path), hit.path.name} & crossed][: self._words.k]
        there = [path for path in paths if path.is_file()]
        gone = len(paths) - len(there)
        again = "run `patchcut export index` again"
        if gone:
            say(f"{name}: {gone} of {len(paths)} images that were found have gone: {again}")
        if len(there) < 2:
            what = f'{self._index.folder} has {len(there)} images for "{name}"'
            raise ExportError(
                "index", what, again if gone else "index more images: a concept needs two at least"
            )
        return there

    def vector(self, name: str) -> Float32:
        """[d] float32, unit; the mean over all texts of a name in all templates."""
        if name not in self._vectors:
            texts = self._words.names.get(name, (name,))
            rows = self._encoder.encode_names(texts, find_templates(self._words.prompts))
            self._vectors[name] = unit_rows(rows.mean(axis=0))
        return self._vectors[name]

    def guide(self, name: str, paths: Sequence[Path], grid_hw: tuple[int, int], bar: StepBar) -> Float32:
        """[m, n] float32 in [0, 1], how much a name is where the patches of images are.

            sigmoid(10 <x / |x|, t>)     x a patch of DenseCLIP, t the unit text; scaled to the grid, bilinear

        Args:
            paths: m image files that can be read.
            grid_hw: rows and columns of the patches, n = h * w.
        Raises:
            ExportError: a file has gone.
        """
        advance = partial(bar.step, f"where {name} is")
        kept, made = self._features.take(paths, advance, bar.say)
        assert self._dense is not None
        if len(kept) != len(paths):
            raise ExportError("guided", f'photographs of "{name}" went while they were read', "run it again")
        cosines = unit_rows(made[self._dense].astype(np.float32)) @ self.vector(name)
        maps = 1 / (1 + np.exp(-_SHARPNESS * cosines))
        h, w = grid_hw
        scaled = [
            cv2.resize(one.reshape(self._grid_hw), (w, h), interpolation=cv2.INTER_LINEAR) for one in maps
        ]
        return np.stack(scaled).reshape(len(paths), -1).clip(0, 1).astype(np.float32)


@contextmanager
def open_language(words: Words | None, settings: Settings, work: Path, fit: str) -> Iterator[Language | None]:
    """The CLIP that words are looked up with, until the context is left; None where none is at hand.

    Raises:
        OptionError: guidance was asked for, and there is no CLIP.
        PatchcutError: as `Language` does.
    """
    if words is None or (words.index is None and words.clip is None):
        if words is not None and words.guided:
            raise OptionError("guided", "needs a CLIP", "--clip FILE, a bundle of `patchcut export clip`")
        yield None
        return
    clip = words.clip or Path(open_index(words.index).clip.path) if words.index else words.clip
    if words.clip is None and clip is not None and not clip.is_file():
        what = f"{clip}, the CLIP that {words.index} was made with, has gone"
        raise ExportError("index", what, "name it with --clip FILE")
    own = replace(settings, bundle=str(clip), size=None, precision="auto")
    with open_bundle(clip) as bundle:
        yield Language(bundle, words, own, work, fit)


def _dense_set(clip: Bundle, guided: bool | None, fit: str) -> str | None:
    """The feature set that tells where texts are; None where there is none, or it is not to be used."""
    if guided is False:
        return None
    backbone = clip.spec.backbone
    found = next((name for name in DENSE if name in backbone.features), None)
    if found is not None and backbone.fit == fit:
        return found
    if guided:
        what = f"{clip.path} has no feature set {DENSE[0]}"
        if found is not None:
            what = f"{clip.path} fits images by {backbone.fit}, and the bundle by {fit}"
        raise ExportError(
            "guided", what, f"export one that has it: `patchcut export clip --dense {DENSE[0]}`"
        )
    return None
