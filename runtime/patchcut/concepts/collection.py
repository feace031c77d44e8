"""The concepts of a segmenter: what it can name, and how more are shown to it while it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchcut.bundle import ConceptsSpec, HeadSpec, open_bundle
from patchcut.bundle.tensors import dump_tensors
from patchcut.checks import check_path, shown
from patchcut.concepts.columns import changed, colors_of, free_color, joined, without
from patchcut.concepts.learning import Float32, common_mean, learn
from patchcut.concepts.names import check_name
from patchcut.concepts.shown import Shown, look, prompts_for
from patchcut.errors import OptionError
from patchcut.features import Features, to_host
from patchcut.frames import Frame
from patchcut.heads.base import Head
from patchcut.heads.chosen import ChosenNames
from patchcut.heads.live import LiveHead
from patchcut.heads.no_concepts import CONCEPTS, NoConcepts
from patchcut.heads.prototypes import Prototypes, PrototypesHead
from patchcut.sources.photos import read_photo
from patchcut.stages.canvas import Canvas
from patchcut.video.prompts import Prompt

MAX_CONCEPTS = 1023  # columns of a head less the background
SAMPLES = Path(__file__).parent.parent / "samples"
# Shares of cosines to the prototypes: softmax(cosine / T).
TEMPERATURE = 0.05
_FILE = "concepts.safetensors"
_SEEN = 0.5  # IoU of what is shown with a piece of the foreground
_logger = logging.getLogger("patchcut")

# Features of each frame on the host, and where it lies; whoever segments meanwhile goes on.
Extract = Callable[[Sequence[Frame]], list[tuple[Features, Canvas]]]
# What a segmenter takes as a frame, and its number.
Take = Callable[[object, int], Frame]


class Concepts:
    """What a segmenter can name. Made by `load(head="concepts")`; `seg.concepts`.

    Everything here may be called from any thread while frames are segmented and streams run. A frame keeps
    the concepts that it began with, and each result has its own `labels`.

    Examples:
        >>> seg = patchcut.load(head="concepts")
        >>> seg.concepts.names
        ()
        >>> seg.concepts.add("astronaut", images=[frame])
        >>> seg(frame).label_names[0]
        'astronaut'
        >>> seg.concepts.remove("astronaut")
    """

    def __init__(
        self,
        head: LiveHead,
        opened: PrototypesHead | NoConcepts,
        prior: tuple[Head, Head] | None,
        bundle: Path,
        extract: Extract,
        take: Take,
        hidden: Collection[str] = (),
    ) -> None:
        self.head = head
        self._opened = self._now = opened
        # The head for objects: for frames, and for what is shown meanwhile. Each computes in its own memory.
        self._foreground: Head | None = None if prior is None else prior[0]
        self._looking: Head | None = None if prior is None else prior[1]
        self._bundle = bundle
        self._extract, self._take = extract, take
        self._hidden = frozenset(hidden)
        self._changes, self._looks = threading.Lock(), threading.Lock()
        self._samples: list[Float32] = []  # mean features of the sample photos, once they are needed
        self._put(opened)

    def __repr__(self) -> str:
        return f"<Concepts: {', '.join(self.names) or 'none'}>"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order of the columns of `Result.labels`."""
        return self._now.labels[1:]

    @property
    def changed(self) -> bool:
        """Whether some were added or removed since the bundle was loaded."""
        return self._now is not self._opened

    def add(
        self,
        name: str,
        images: Sequence[object],
        *,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> None:
        """Adds a concept from images that show it; frames that begin from now on have its name.

        Of an image with neither box nor mask, what is shown is the largest piece of the foreground. A few
        images from several sides, before several backgrounds, are better than one.

        Args:
            name: what it is called; no path, no comma.
            images: at least one: what the segmenter takes as a frame, or the path of a photo.
            boxes: x0, y0, x1, y1 in pixels for each image, or None where it has none.
            masks: [H, W] bool or uint8 for each image, 0 is background, or None where it has none.
        Raises:
            OptionError: the name is there already, empty or a path; a box or mask is none; nothing was found
                on an image.
            FrameError: an image is none.
        Examples:
            >>> seg = patchcut.load(head="concepts")
            >>> seg.concepts.add("suit", [frame], boxes=[(100, 180, 420, 512)])
            >>> seg.concepts.names
            ('suit',)
        """
        check_name(name)
        self._check_new(name)
        prompts = prompts_for(_count(images), boxes, masks)
        shown = self._shown(name, self._frames(images), prompts)
        with self._changes:
            self._check_new(name)
            self._put(self._with(name, shown))

    def remove(self, name: str) -> None:
        """Removes a concept; frames that begin from now on do not have its name.

        Raises:
            OptionError: "[concepts] has no 'cup', it has mug, phone".
        Examples:
            >>> seg = patchcut.load(head="concepts")
            >>> seg.concepts.remove("cup")
            Traceback (most recent call last):
            patchcut.errors.OptionError: [concepts] has no 'cup', it has none
        """
        with self._changes:
            if name not in self.names:
                held = ", ".join(self.names) or "none"
                raise OptionError("concepts", f"has no {shown(name)}, it has {held}")
            self._put(self._without(name))

    def save(self, path: str | Path) -> None:
        """Writes the bundle that the segmenter was loaded from with the concepts as they are now.

        It is written beside `path` and renamed, so that it is there whole or not at all; `path` may be the
        bundle itself. `patchcut.load(path, head="concepts")` opens it.

        Raises:
            BundleError: the bundle that was loaded is not there any more, or damaged.
            OutputError: it cannot be written.
        Examples:
            >>> seg = patchcut.load(head="concepts")
            >>> seg.concepts.add("astronaut", [frame])
            >>> seg.concepts.save(folder / "mine.patchcut")
            >>> patchcut.load(folder / "mine.patchcut", head="concepts").concepts.names
            ('astronaut',)
        """
        from patchcut.bundle.writing import rewrite_bundle, with_head

        check_path("path", path, "the path of the bundle to write")
        now = self._now
        with open_bundle(self._bundle) as bundle:
            if isinstance(now, NoConcepts):
                left = tuple(head for head in bundle.spec.heads if head.name != CONCEPTS)
                rewrite_bundle(bundle, Path(path), bundle.spec.model_copy(update={"heads": left}))
                return
            spec = with_head(bundle.spec, now.spec)
            weights = dump_tensors(now.prototypes.tensors())
            rewrite_bundle(bundle, Path(path), spec, {now.spec.files["weights"]: weights})

    def _put(self, now: PrototypesHead | NoConcepts) -> None:
        self._now = now
        self.head.put(ChosenNames(now, self._hidden) if self._hidden else now)

    def _check_new(self, name: str) -> None:
        if name in self.names:
            what = f'has a concept "{name}" already'
            raise OptionError("concepts", what, "call it otherwise, or remove that one first")
        if len(self.names) >= MAX_CONCEPTS:
            raise OptionError("concepts", f"has {MAX_CONCEPTS} concepts, the limit", "remove some first")

    def _frames(self, images: Sequence[object]) -> list[Frame]:
        return [
            Frame(read_photo(Path(image))) if isinstance(image, str | Path) else self._take(image, i)
            for i, image in enumerate(images)
        ]

    def _shown(self, name: str, frames: list[Frame], prompts: Sequence[Prompt | None]) -> list[Shown]:
        """What the images show of a concept.

        Raises:
            OptionError: a prompt does not lie on its image, or an image shows nothing.
        """
        for frame, prompt in zip(frames, prompts, strict=True):
            if prompt is not None:
                prompt.check_frame(frame.image.shape[:2])
        each = zip(self._extract(frames), prompts, strict=True)
        shown = [self._look(features, canvas, prompt) for (features, canvas), prompt in each]
        empty = [str(i) for i, one in enumerate(shown) if not one.inside.any()]
        if empty:
            images = f"image {empty[0]}" if len(empty) == 1 else f"images {', '.join(empty)}"
            remedy = "give the object's box or mask there, or leave the image out"
            raise OptionError("concepts", f'nothing was found of "{name}" on {images}', remedy)
        return shown

    def _look(self, features: Features, canvas: Canvas, prompt: Prompt | None) -> Shown:
        with self._looks:
            return look(features, self._semantic, canvas, prompt, self._looking)

    @property
    def _semantic(self) -> str:
        """The feature set that tells what things are."""
        return self.head.needs[0]

    def _with(self, name: str, shown: list[Shown]) -> PrototypesHead:
        now = self._now
        if isinstance(now, NoConcepts):
            mean = common_mean([*self._sample_means(), *(one.rows.mean(axis=0) for one in shown)])
            spec, colors, dim = self._first_spec(now, shown), {}, len(mean)
            old = Prototypes(
                np.zeros((0, dim), np.float32), mean, np.zeros(0, np.int32), np.zeros(1, np.float32)
            )
            labels: tuple[str, ...] = ("background",)
        else:
            spec, old, labels, colors = now.spec, now.prototypes, now.labels, colors_of(now.spec)
        assert spec.concepts is not None
        if spec.concepts.foreground is not None and not _is_seen(shown):
            what = (
                f'{spec.concepts.foreground} does not find what was shown of "{name}" as a region of its own'
            )
            _logger.warning("[concepts] %s; there it is not named", what)
        learnt = learn(shown, old, by_region=spec.concepts.foreground is not None)
        spec = changed(
            spec,
            labels=(*labels, name),
            origins={**spec.concepts.origins, name: f"shown on {len(shown)} images"},
            colors={**colors, name: free_color(colors)},
        )
        return PrototypesHead(spec, joined(old, learnt, len(labels)), self._prior(spec))

    def _without(self, name: str) -> PrototypesHead | NoConcepts:
        now = self._now
        assert isinstance(now, PrototypesHead) and now.spec.concepts is not None
        column, concepts = now.labels.index(name), now.spec.concepts
        if len(now.labels) == 2:
            name_of_objects = None if self._foreground is None else self._foreground.name
            return NoConcepts(now.spec.backbone, now.needs, name_of_objects)
        spec = changed(
            now.spec,
            labels=tuple(label for label in now.labels if label != name),
            origins={key: text for key, text in concepts.origins.items() if key != name},
            colors={key: number for key, number in colors_of(now.spec).items() if key != name},
        )
        return PrototypesHead(spec, without(now.prototypes, column), self._prior(spec))

    def _sample_means(self) -> list[Float32]:
        """[d] float32 of each sample photo: with them the mean is not that of one scene."""
        if not self._samples:
            photos = [Frame(read_photo(path)) for path in sorted(SAMPLES.glob("*.jpg"))]
            each = self._extract(photos)
            self._samples = [to_host(features[self._semantic])[0].mean(axis=0) for features, _ in each]
        return self._samples

    def _prior(self, spec: HeadSpec) -> Head | None:
        return self._foreground if spec.concepts is not None and spec.concepts.foreground else None

    def _first_spec(self, now: NoConcepts, shown: list[Shown]) -> HeadSpec:
        """Of a head that comes to be: it looks at the foreground if what is shown is foreground."""
        return HeadSpec(
            name=CONCEPTS,
            kind="prototypes",
            role="names",
            backbone=now.backbone,
            features=now.needs,
            labels=("background", "none"),
            temperature=TEMPERATURE,
            method="the mean direction and clusters of the patches that were shown, and of what is around",
            concepts=ConceptsSpec(foreground=now.foreground if _is_seen(shown) else None),
            files={"weights": _FILE},
        )


def _is_seen(shown: list[Shown]) -> bool:
    """Whether the head for objects finds what is shown, on most images."""
    return float(np.median([one.seen for one in shown])) > _SEEN


def _count(images: Sequence[object]) -> int:
    """How many images there are.

    Raises:
        OptionError: there is none, or one that is in no list.
    """
    if isinstance(images, str | Path | Frame) or getattr(images, "ndim", 4) < 4:
        raise OptionError("images", "must be a list of frames or paths, got one", "images=[...]")
    if not len(images):
        raise OptionError("images", "must be at least one, got none", "show some")
    return len(images)
