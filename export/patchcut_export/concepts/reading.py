"""Where the photographs of concepts come from: folders, and what words find in an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from patchcut.bundle import Bundle
from patchcut.concepts.collection import SAMPLES
from patchcut.heads import Head
from patchcut.stages import Canvas, Extractor

from patchcut_export.concepts.archives import Archive, foreground_sides, read_archive
from patchcut_export.concepts.boxes import Boxes
from patchcut_export.concepts.image_features import ImageFeatures
from patchcut_export.concepts.language import Language, Words
from patchcut_export.errors import ExportError
from patchcut_export.progress import StepBar


@dataclass(frozen=True, eq=False)
class Archives:
    """Photographs of the concepts, and of what is not one.

    Attributes:
        concepts: one archive for each.
        negatives: of anything else: they tell how features differ, and what is refused.
        context: of what is around things.
        samples: photographs that only tell how features differ.
    """

    concepts: list[Archive]
    negatives: list[Archive] = field(default_factory=list)
    context: list[Archive] = field(default_factory=list)
    samples: list[Archive] = field(default_factory=list)

    @property
    def every(self) -> list[Archive]:
        """All of them, those of the concepts first, then the negatives."""
        return self.concepts + self.negatives + self.context + self.samples


@dataclass(frozen=True, eq=False)
class Reader:
    """Makes features of photographs, or reads those that were made before.

    Attributes:
        bundle, extractor: whose features they are.
        sets: the feature set that tells what things are, then those of the foreground.
        foreground: the head for objects, if there is one.
        language: the CLIP, if one is at hand.
        work: folder of the features.
        without: names of photographs that are left out.
        boxes: where the concepts of folders are, if that is told.
    """

    bundle: Bundle
    extractor: Extractor
    sets: tuple[str, ...]
    foreground: Head | None
    language: Language | None
    work: Path
    without: tuple[str, ...]
    bar: StepBar
    boxes: Boxes | None = None

    def read(self, folders: Mapping[str, Path], negatives: Path | None, words: Words | None) -> Archives:
        """All archives: those of words first, then those of folders. What is a concept is no context.

        Raises:
            PatchcutError: a folder or the index has fewer than two photographs for a name that can be used;
                or there are boxes, and none is on a photograph of a folder.
        """
        names = {} if words is None else words.names
        context = () if words is None or words.index is None else words.context
        shown = [
            self._guided(self._boxed(self._folder(name, folder, self.work / "features" / name)))
            for name, folder in folders.items()
        ]
        if self.boxes is not None:
            self.boxes.check_used(shown)
        said = {*names, *folders, *(text for texts in names.values() for text in texts)}
        return Archives(
            [self._found(name) for name in names] + shown,
            [] if negatives is None else [self._folder("negatives", negatives, self.work / "negatives")],
            [self._found(name) for name in context if name not in said],
            [self._folder("the samples", SAMPLES, self.work / "samples")],
        )

    def _folder(self, name: str, folder: Path, work: Path) -> Archive:
        advance = partial(self.bar.step, f"features of {name}")
        return read_archive(
            name,
            folder,
            self.bundle,
            self.extractor,
            self.sets,
            self.foreground,
            work,
            self.without,
            advance,
            self.bar.say,
        )

    def _found(self, name: str) -> Archive:
        """The archive of what the index has for a name."""
        assert self.language is not None
        paths = self.language.find(name, self.without, self.bar.say)
        images = ImageFeatures(self.work / "images", self.bundle, self.extractor, self.sets)
        kept, made = images.take(paths, partial(self.bar.step, f"features of {name}"), self.bar.say)
        if len(kept) < 2:
            what = f'{self.language.folder} has {len(kept)} images for "{name}" that can be read'
            raise ExportError("index", what, "index more images: a concept needs two at least")
        grid_hw = self.extractor.graph.grid_hw
        archive = Archive(
            name,
            self.language.folder,
            tuple(str(paths[i]) for i in kept),
            made[self.sets[0]],
            foreground_sides(self.foreground, made, grid_hw),
            grid_hw,
            origin=f"that {self.language.name} found by its name",
        )
        return self._guided(archive)

    def _boxed(self, archive: Archive) -> Archive:
        """The archive with what its boxes say, if there are any."""
        if self.boxes is None:
            return archive
        backbone, graph = self.extractor.backbone, self.extractor.graph
        told = self.boxes.told(archive, lambda size_hw: Canvas.of(size_hw, backbone, graph))
        self.bar.say(f"{archive.name}: {told.boxed} of {len(archive.images)} photographs have a box")
        return told

    def _guided(self, archive: Archive) -> Archive:
        """The archive with how much its name is where, if the CLIP can tell."""
        if self.language is None or not self.language.guides:
            return archive
        guide = self.language.guide(archive.name, archive.paths, archive.grid_hw, self.bar)
        return replace(archive, guide=guide)
