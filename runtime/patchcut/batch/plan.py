"""Which frames go into which shard: decided once, before the first one is made.

A plan is a file of JSON lines, one a shard, so that neither whoever makes it nor whoever follows it has all
of it in memory. An item of a shard is a photo, a piece of a video from key frame to key frame, or a whole
video where that cannot be cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchcut.batch.listing import Found
from patchcut.pixels import PixelRule
from patchcut.sources.av_videos import PacketTimes
from patchcut.sources.key_frames import groups_of


@dataclass(frozen=True)
class Item:
    """What is read from one file.

    Attributes:
        path: relative to the root of the plan.
        ticks: times of the frames, runs of [first, step, count]; None of a photo or a whole video.
        first: index of the first of these frames in its video.
        every: step between the indices.
        whole: a video that is read from its begin to its end, in a shard of its own.
        limit: frames of that at most; 0 is all.
    """

    path: str
    ticks: tuple[tuple[int, int, int], ...] | None = None
    first: int = 0
    every: int = 1
    whole: bool = False
    limit: int = 0

    @property
    def frames(self) -> int:
        """Frames that are known to be in it; a file that is read to its end counts as one."""
        return 1 if self.ticks is None else sum(count for _, _, count in self.ticks)

    def times(self) -> list[int]:
        """The times of its frames, in ticks."""
        return [first + step * i for first, step, count in self.ticks or () for i in range(count)]


@dataclass(frozen=True)
class Shard:
    """The items of one file of results.

    Attributes:
        number: from 0; the file is called by it.
        items: in the order of its rows.
    """

    number: int
    items: tuple[Item, ...]

    @property
    def frames(self) -> int:
        """Frames that are known to be in it."""
        return sum(item.frames for item in self.items)

    def line(self) -> str:
        """The shard as a line of a plan."""
        items = [_told(item) for item in self.items]
        return json.dumps({"shard": self.number, "items": items}, separators=(",", ":"))

    @classmethod
    def of_line(cls, line: str | bytes) -> Shard:
        """What `line` told.

        Raises:
            ValueError, TypeError, LookupError: it is no such line.
        """
        told = json.loads(line)
        return cls(int(told["shard"]), tuple(map(_item, told["items"])))


@dataclass(frozen=True)
class PlanRules:
    """How a plan is made.

    Attributes:
        shard_size: frames of a shard; it has more where key frames are further apart, or files hold several.
        every: take photos and frames of videos 0, every, 2 * every, ...
        limit: frames of the whole plan; None is all.
        pixels: which frames are refused.
    """

    shard_size: int
    every: int
    limit: int | None
    pixels: PixelRule


def shards_of(found: Iterable[Found], rules: PlanRules) -> Iterator[Shard]:
    """The shards of what was found, in its order."""
    number, items, filled = 0, list[Item](), 0
    for item in _within(_items_of(found, rules.every), rules.limit):
        frames = rules.shard_size if item.whole else item.frames
        if items and filled + frames > rules.shard_size:
            yield Shard(number, tuple(items))
            number, items, filled = number + 1, [], 0
        _append(items, item)
        filled += frames
    if items:
        yield Shard(number, tuple(items))


def _items_of(found: Iterable[Found], every: int) -> Iterator[Item]:
    photos = 0
    for one in found:
        if one.kind == "photo":
            if photos % every == 0:
                yield Item(one.path, every=every)
            photos += 1
        elif one.times is None:
            yield Item(one.path, every=every, whole=True)
        else:
            yield from _pieces(one.path, one.times, every)


def _pieces(path: str, times: PacketTimes, every: int) -> Iterator[Item]:
    """A piece for each key frame after which a frame is taken."""
    index = 0
    for group in groups_of(times):
        first = -index % every
        if first < len(group):
            yield Item(path, _runs(group[first::every]), index + first, every)
        index += len(group)


def _within(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Items until there are as many frames; the last one is shortened."""
    if limit is None:
        yield from items
        return
    for item in items:
        if item.frames > limit:
            yield replace(item, ticks=_runs(np.array(item.times()[:limit], np.int64)))
            return
        yield replace(item, limit=limit) if item.whole else item
        limit -= item.frames
        if not limit:
            return


def _append(items: list[Item], item: Item) -> None:
    """Adds an item; one that goes on where the last one ends becomes a part of it."""
    last = items[-1] if items else None
    if last is None or last.ticks is None or item.ticks is None or last.path != item.path:
        items.append(item)
        return
    items[-1] = replace(last, ticks=_joined(last.ticks, item.ticks))


def _joined(
    runs: tuple[tuple[int, int, int], ...], more: tuple[tuple[int, int, int], ...]
) -> tuple[tuple[int, int, int], ...]:
    """Two lists of runs as one; a constant rate stays one run."""
    (first, step, count), (then, next_step, added) = runs[-1], more[0]
    step = then - first if count == 1 else step
    if then == first + step * count and (added == 1 or step == next_step):
        return (*runs[:-1], (first, step, count + added), *more[1:])
    return runs + more


def _runs(ticks: npt.NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """Rising times as runs of equal steps."""
    runs: list[tuple[int, int, int]] = []
    values: Sequence[int] = ticks.tolist()
    begin = 0
    while begin < len(values):
        end = begin + 1
        step = values[end] - values[begin] if end < len(values) else 1
        while end < len(values) and values[end] - values[end - 1] == step:
            end += 1
        runs.append((values[begin], step, end - begin))
        begin = end
    return tuple(runs)


def _told(item: Item) -> Any:
    if item == Item(item.path):
        return item.path
    told = {key: value for key, value in vars(item).items() if value != getattr(Item, key, None)}
    return {**told, "path": item.path}


def _item(told: Any) -> Item:
    if isinstance(told, str):
        return Item(told)
    ticks = told.get("ticks")
    return Item(**{**told, "ticks": None if ticks is None else tuple(map(tuple, ticks))})


def read_plan(path: Path) -> Iterator[Shard]:
    """The shards of a plan's file, one at a time.

    Raises:
        OSError: it cannot be read.
        ValueError, TypeError, LookupError: it is damaged.
    """
    with path.open("rb") as file:
        for line in file:
            yield Shard.of_line(line)
