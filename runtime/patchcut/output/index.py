"""A list of all results of a run, `index.json`, and a contact sheet of them, `index.html`."""

from __future__ import annotations

import html
import json
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from patchcut.frames import Frame
from patchcut.opencv import load_cv2
from patchcut.output.files import OutputFiles
from patchcut.output.manifest import words_of
from patchcut.output.overlay import draw_overlay
from patchcut.output.spools import Spool
from patchcut.result import Result
from patchcut.stages.regions import Regions
from patchcut.texts import one_line

THUMBNAIL_SIDE = 320
_MOST_LINKS = 9  # of one kind on a card

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }}
body {{ margin: 1.5rem }}
h1 {{ font-size: 1.2rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1.2rem }}
figure {{ margin: 0 }}
img {{ width: 100%; height: 13rem; object-fit: contain; background: #8882 }}
figcaption {{ overflow-wrap: anywhere }}
small {{ display: block; opacity: .75 }}
</style>
<h1>{title}</h1>
<main>
"""


class Index:
    """`index.json` and `index.html`, which are written when the run ends.

    Args:
        files: where they go; their links are relative, so that the folder may be moved.
    Examples:
        >>> files = patchcut.output.files.OutputFiles(folder)
        >>> index = patchcut.output.index.Index(files)
        >>> index.add({"name": "a.jpg", "regions": [], "files": {}})
        >>> index.close()
        >>> sorted(path.name for path in folder.glob("index.*"))
        ['index.html', 'index.json']
    """

    def __init__(self, files: OutputFiles) -> None:
        self._files = files
        self._entries, self._cards = Spool(files.root, ",\n"), Spool(files.root, "\n")

    def add(self, entry: dict[str, Any]) -> None:
        """Adds a photo or a video.

        Args:
            entry: its name, regions, files and thumbnail, or that of `VideoEntry.entry`.
        Raises:
            OutputError: "[output] cannot write DIR: No space left on device; ...".
        Examples:
            >>> index = patchcut.output.index.Index(patchcut.output.files.OutputFiles(folder))
            >>> index.add({"name": "a.jpg", "regions": [], "files": {"labels": ["labels/a.png"]}})
        """
        self._entries.add(json.dumps(entry))
        self._cards.add(_card(entry))

    def close(self) -> None:
        """Writes the two files, if there is anything to tell.

        Raises:
            OutputError: they cannot be written.
        Examples:
            >>> patchcut.output.index.Index(patchcut.output.files.OutputFiles(folder)).close()
            >>> (folder / "index.json").exists()
            False
        """
        count = self._entries.count
        try:
            if count:
                with self._files.whole_file("index.json") as path, path.open("wb") as file:
                    file.write(b'{"results": [\n')
                    self._entries.copy_to(file)
                    file.write(b"\n]}\n")
                title = "patchcut: 1 result" if count == 1 else f"patchcut: {count} results"
                with self._files.whole_file("index.html") as path, path.open("wb") as file:
                    file.write(_PAGE.format(title=title).encode())
                    self._cards.copy_to(file)
                    file.write(b"\n</main>\n</html>\n")
        finally:
            self._entries.close()
            self._cards.close()


class VideoEntry:
    """What the index tells of a video, gathered while its frames come.

    Args:
        name: of its results.
    Attributes:
        thumbnail: of its best frame.
    Examples:
        >>> video = patchcut.output.index.VideoEntry("walk")
        >>> video.add(result, ["masks/walk/000000/01.png"])
        >>> entry = video.entry(["overlay/walk.mp4"])
        >>> entry["frames"], entry["files"]
        (1, {'overlay': ['overlay/walk.mp4'], 'masks': ['masks/walk/']})
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.thumbnail: npt.NDArray[np.uint8] | None = None
        self._told: dict[str, Any] = {"name": name, "frames": 0, "frames_with_regions": 0}
        self._folders: dict[str, list[str]] = {}
        self._best = -1.0
        self._tracks: set[int] = set()

    def add(self, result: Result, item: Collection[str]) -> None:
        """Adds a frame.

        Args:
            item: its files.
        Examples:
            >>> patchcut.output.index.VideoEntry("walk").add(result, [])
        """
        told = self._told
        told["name"] = result.name or self.name
        told.setdefault("size_hw", list(result.label_map.shape))
        told["frames"] += 1
        if result.track_ids is not None:
            self._tracks.update(result.track_ids[result.track_ids > 0].tolist())
            told["tracks"] = len(self._tracks)
        found = result.best_box is not None
        told["frames_with_regions"] += found
        score = float(result.scores[0]) if found else 0.0
        if score > self._best:
            self._best = score
            self.thumbnail = thumbnail_of(result)
            told |= {"best_frame": result.index, "best_score": round(score, 4)}
        self._folders |= {word: [f"{word}/{self.name}/"] for word in files_by_word(item)}

    def entry(self, item: Collection[str]) -> dict[str, Any]:
        """The entry of the index.

        Args:
            item: files of the video as a whole; those of its frames are passed over for their folders.
        Examples:
            >>> patchcut.output.index.VideoEntry("walk").entry([])["frames"]
            0
        """
        frames = tuple(folder for folders in self._folders.values() for folder in folders)
        whole = files_by_word([path for path in item if not path.startswith(frames)])
        return {
            **self._told,
            "files": {**whole, **{k: v for k, v in self._folders.items() if k not in whole}},
        }


def files_by_word(item: Collection[str]) -> dict[str, list[str]]:
    """Paths by the sinks that wrote them.

    Examples:
        >>> patchcut.output.index.files_by_word(["masks/a/01.png", "masks/a/02.png", "json/a.json"])
        {'masks': ['masks/a/01.png', 'masks/a/02.png'], 'json': ['json/a.json']}
    """
    files: dict[str, list[str]] = {}
    for path in item:
        files.setdefault(words_of(path), []).append(path)
    return files


def thumbnail_of(result: Result) -> npt.NDArray[np.uint8] | None:
    """[h, w, 3] uint8 BGR: an overlay of 320 pixels at most, drawn at that size so that texts can be read.

    None where the result holds no frame.

    Examples:
        >>> patchcut.output.index.thumbnail_of(result).shape
        (320, 320, 3)
    """
    if result.frame is None:
        return None
    height, width = result.label_map.shape
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    small_hw = max(1, round(height * scale)), max(1, round(width * scale))
    cv2 = load_cv2()
    image = cv2.resize(np.ascontiguousarray(result.frame), small_hw[::-1], interpolation=cv2.INTER_AREA)
    rows, columns = (
        ((np.arange(few) + 0.5) * many / few).astype(int)
        for few, many in zip(small_hw, (height, width), strict=True)
    )
    small_wh = np.array(small_hw[::-1])
    corners = result.boxes.reshape(-1, 2, 2) * (small_wh / (width, height))
    first, last = np.floor(corners[:, 0]), np.minimum(np.ceil(corners[:, 1]), small_wh)
    regions = Regions(
        label_map=result.label_map[np.ix_(rows, columns)],
        region_ids=result.region_ids[np.ix_(rows, columns)],
        confidence=np.empty((0, 0), np.float32),
        boxes=np.concatenate([first, last], axis=1).astype(np.float32),
        scores=result.scores,
        areas=result.areas,
        region_labels=result.region_labels,
    )
    if result.color == "rgb":
        image = np.ascontiguousarray(image[..., ::-1])
    drawn: dict[str, Any] = {
        "by_label": result.by_label,
        "numbers": result.track_ids,
        "label_colors": result.label_colors,
        "named": result.named,
    }
    return draw_overlay(regions, result.labels, Frame(image), result.background_columns, **drawn)


def _card(entry: dict[str, Any]) -> str:
    """The entry as one line of HTML; whatever a name holds, it stays text, and links lead to its files."""
    picture = ""
    if "thumbnail" in entry:
        best = entry["files"].get("overlay") or [entry["thumbnail"]]
        picture = (
            f'<a href="{_link(best[0])}"><img src="{_link(entry["thumbnail"])}" loading="lazy" alt=""></a>'
        )
    name = html.escape(one_line(entry["name"]))
    links = " · ".join(_links(word, paths) for word, paths in entry["files"].items() if paths)
    lines = [f"<small>{text}</small>" for text in (_found(entry), links) if text]
    return f"<figure>{picture}<figcaption>{name}{''.join(lines)}</figcaption></figure>"


def _links(word: str, paths: list[str]) -> str:
    """Links to what one sink wrote; several are called by their numbers, as masks are."""
    if len(paths) == 1:
        return f'<a href="{_link(paths[0])}">{word}</a>'
    numbers = [f'<a href="{_link(path)}">{i}</a>' for i, path in enumerate(paths[:_MOST_LINKS], start=1)]
    return f"{word} {' '.join(numbers)}{' …' if len(paths) > _MOST_LINKS else ''}"


def _link(path: str) -> str:
    return html.escape(quote(path))


def _found(entry: dict[str, Any]) -> str:
    if "frames" in entry:
        tracked = f", {entry['tracks']} tracked" if "tracks" in entry else ""
        return f"{entry['frames']} frames, something found in {entry['frames_with_regions']}{tracked}"
    scores = [region["score"] for region in entry["regions"]]  # best first
    regions = "1 region" if len(scores) == 1 else f"{len(scores)} regions"
    return f"{regions}, best {scores[0]:.2f}" if scores else "nothing found"
