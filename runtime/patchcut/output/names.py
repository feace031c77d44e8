"""What results are called: after their photo or video, and never two alike."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

from patchcut.sources.photos import PHOTO_SUFFIXES
from patchcut.sources.videos import VIDEO_SUFFIXES
from patchcut.texts import encodable

# Bytes of a name; the disk takes 255, and a suffix, a number and what makes it unique are still to come.
_LONGEST = 220
# A folder of that suffix could stand where another result's file goes.
_OF_RESULTS = frozenset({".jpg", ".png", ".json", ".html", ".mp4", ".avi", ".mkv", ".mov", ".webm"})
_OF_SOURCES = PHOTO_SUFFIXES | VIDEO_SUFFIXES | {".gif", ".apng"}
_PAGE = re.compile(r"(.+\.\w+)#(\d+)")


class OutputNames:
    """Names of results, unique in one run whatever the case of letters.

    A photo's is its own path in its source without the suffix. Photos that differ only in their suffix keep
    it: after x.jpg, which is `x`, x.png is `x-png`. Dots at the beginning become `_`, and names that are too
    long are cut and end in a hash.
    Examples:
        >>> names = patchcut.output.names.OutputNames()
        >>> [names.photo(name, 0) for name in ("a/x.jpg", "a/x.png", "...jpg", "")]
        ['a/x', 'a/x-png', '__', '000000']
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._folders: set[str] = set()
        self._videos: set[str] = set()
        self._next: dict[str, int] = {}

    def photo(self, name: str, index: int) -> str:
        """The name of a photo's results.

        Args:
            name: its path in its source, "" where it has none.
            index: its number in its source.
        """
        parts = [part for part in PurePosixPath(name).parts if part not in ("..", "/", "//")]
        if not parts:
            return self._unique(f"{index:06d}", "")
        *folders, last = parts
        page = _PAGE.fullmatch(last)
        last, number = (page[1], f"#{page[2]}") if page else (last, "")
        stem, suffix = _without_suffix(last)
        path = [*map(_safe, folders), _safe(stem + number)]
        short = _safe(suffix.replace(".", "-")).encode()[:9].decode(errors="ignore")
        return self._unique("/".join(path), short)

    def video(self, name: str) -> str:
        """The name of a video's results, which is also the folder of those of its frames.

        Args:
            name: its path in its source, or a camera's or stream's name.
        """
        parts = [name] if "://" in name else [part for part in name.split("/") if part not in ("", "..")]
        plain = [re.sub(r"[^\w.-]+", "-", part).strip("-.") or "video" for part in parts or ["video"]]
        *folders, last = plain
        stem, suffix = _without_suffix(last)
        if suffix.lower() not in _OF_SOURCES:
            stem, suffix = last, ""
        path = "/".join([*map(_safe, folders), _safe(stem)])
        return self._unique(path, suffix.replace(".", "-"), video=True)

    def _unique(self, name: str, suffix: str, *, video: bool = False) -> str:
        unique, longer = name, f"{name}{suffix}"
        if self._is_taken(name, video):
            number = self._next.get(_key(longer), 1)
            unique = longer if number == 1 and suffix else f"{longer}-{number}"
            while self._is_taken(unique, video):
                number += 1
                unique = f"{longer}-{number}"
            self._next[_key(longer)] = number + 1
        self._taken.add(_key(unique))
        self._folders |= {_key(str(folder)) for folder in PurePosixPath(unique).parents}
        if video:
            self._videos.add(_key(unique))
        return unique

    def _is_taken(self, name: str, video: bool) -> bool:
        key = _key(name)
        folder, _, last = key.rpartition("/")
        frame_of_video = last.isdecimal() and folder in self._videos
        return key in self._taken or frame_of_video or (video and key in self._folders)


def _without_suffix(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


def _safe(name: str) -> str:
    """A name that every disk takes, that hides nothing, and that is no file of other results."""
    text = "".join(map(_kept, encodable(name)))
    text = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), text)
    stem, suffix = _without_suffix(text)
    if suffix.lower() in _OF_RESULTS:
        text = stem + suffix.replace(".", "-")
    data = text.encode()
    if len(data) <= _LONGEST:
        return text
    return f"{data[: _LONGEST - 9].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


def _kept(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Zl", "Zp") or character in "\\/":
        return "".join(f"%{byte:02X}" for byte in character.encode())
    return character


def _key(name: str) -> str:
    """Equal for names that some disks take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
