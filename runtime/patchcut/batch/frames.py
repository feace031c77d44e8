"""The frames of a shard, read from its items; what cannot be read becomes a failure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from patchcut.batch.plan import Item, Shard
from patchcut.batch.records import Failure
from patchcut.errors import PatchcutError, SourceError
from patchcut.frames import Frame
from patchcut.pixels import PixelRule
from patchcut.sources.key_frames import frames_at
from patchcut.sources.several import relative_name
from patchcut.sources.single import open_file
from patchcut.texts import name_text

# How often a worker may die at one frame before that is left out.
MOST_DEATHS = 3


@dataclass(frozen=True, order=True)
class Place:
    """Where a worker is in a shard: at a frame of an item, from before it is read until it is segmented."""

    item: int = 0
    frame: int = 0


class ShardFrames:
    """The frames of a shard, in the order of its rows.

    Args:
        shard: which.
        root: the folder that its items' paths are relative to.
        rule: how pixels are read, and how many a frame may have.
        deadly: places that a worker has died at; of a video all from there on are left out.
    Attributes:
        failures: what could not be read; complete once iteration ends.
    """

    def __init__(self, shard: Shard, root: Path, rule: PixelRule, deadly: Collection[Place] = ()) -> None:
        self.failures: list[Failure] = []
        self._shard, self._root, self._rule = shard, root, rule
        self._deadly = {place.item: place.frame for place in deadly}

    def __iter__(self) -> Iterator[Place | Frame]:
        """Before each frame comes its place.

        Raises:
            SourceError: the root is gone: no other file can be read either.
        """
        for number, item in enumerate(self._shard.items):
            yield Place(number)
            last = self._deadly.get(number)
            read = self._file if item.ticks is None else self._piece
            yield from read(number, item, last)

    def _piece(self, number: int, item: Item, last: int | None) -> Iterator[Place | Frame]:
        """The frames of a piece of a video, `last` at most, each followed by the place of the next."""
        path, name = self._root / item.path, self._name(item)
        why: PatchcutError = SourceError(name, "a frame could not be decoded", "play the video to check")
        left = dict.fromkeys(range(item.frames))
        try:
            frames = frames_at(path, name, item.times(), rule=self._rule)
            for count, (place, frame) in enumerate(islice(frames, last), 1):
                del left[place]
                yield replace(frame, index=item.first + place * item.every)
                yield Place(number, count)
        except Exception as error:  # whatever a reader raises is about this file alone
            self._check_root(path)
            why = told_of(name, error)
        else:
            why = why if last is None else _deadly(name)
        self.failures += [Failure(name, item.first + place * item.every, str(why)) for place in left]

    def _file(self, number: int, item: Item, last: int | None) -> Iterator[Place | Frame]:
        """The frames of a photo, or of another file that is read to its end."""
        path, name = self._root / item.path, self._name(item)
        if last is not None:
            self.failures.append(Failure(name, last or None, str(_deadly(name))))
        if last == 0:
            return
        try:
            with open_file(path, every=item.every, rule=self._rule) as source:
                own, source.name = source.name, name
                for count, frame in enumerate(islice(source, last or item.limit or None), 1):
                    yield replace(frame, name=name) if frame.name == own else frame
                    yield Place(number, count)
                self.failures += [Failure(name, None, problem) for problem in source.problems]
        except Exception as error:  # whatever a reader raises is about this file alone
            self._check_root(path)
            self.failures.append(Failure(name, None, str(told_of(name, error))))

    def _name(self, item: Item) -> str:
        return relative_name(self._root / item.path, self._root)

    def _check_root(self, path: Path) -> None:
        """Tells a file that is gone from all of them being gone.

        Raises:
            SourceError: they are.
        """
        if not path.exists() and not self._root.is_dir():
            what = "is gone, with all that is left to do"
            remedy = "bring it back where every machine has it, and run the same again"
            raise SourceError(name_text(self._root), what, remedy)


def told_of(name: str, error: Exception) -> PatchcutError:
    """An error as one about the file of that name."""
    if isinstance(error, PatchcutError):
        return type(error)(name, error.what, error.remedy)
    if isinstance(error, OSError):
        return SourceError(name, f"cannot be read: {error.strerror or error}", "check the file")
    return SourceError(name, f"{type(error).__name__}: {error}", "look at it with `patchcut run`")


def _deadly(name: str) -> SourceError:
    return SourceError(name, f"ended its worker {MOST_DEATHS} times", "look at it with `patchcut run`")
