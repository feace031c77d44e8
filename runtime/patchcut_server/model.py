"""The bundle that is served: loaded, shared by requests with different settings, and loaded again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import fields, replace

import numpy as np
from patchcut import Segmenter, Settings
from patchcut.bundle import find_bundle, open_bundle
from patchcut.errors import OptionError
from patchcut.heads.no_concepts import CONCEPTS

# What a request may choose. Those of the first line open a head; all share the engine.
OF_HEADS = ("head", "concepts", "mode", "parts")
OF_REQUESTS = (*OF_HEADS, "refine", "min_score", "nothing_below", "single")
# Heads that are open besides the operator's; a head has megabytes at most.
_MOST_HEADS = 8
# The head to which concepts are added: it stays open, since it alone knows them.
_NAMING = (("head", CONCEPTS),)
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no")

# Settings of one request by their names, in a fixed order.
Changes = tuple[tuple[str, object], ...]

_TYPES = {one.name: one.metadata["type"] for one in fields(Settings) if one.name in OF_REQUESTS}


class Model:
    """A bundle that answers, and goes on answering while it is loaded again.

    Args:
        settings: what the operator chose; each load takes them.
    Attributes:
        name: by which clients ask for it: that of the embedded bundle, or of the file without its suffix.
        settings: the same.
    Examples:
        >>> model = Model(Settings(size=224))
        >>> model.name, model.version
        ('default', 1)
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = find_bundle(settings.bundle).stem
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._now, self._version = self._load(), 1
        self._heads: OrderedDict[Changes, Segmenter] = OrderedDict()

    @property
    def now(self) -> Segmenter:
        """The segmenter of the operator's settings."""
        return self._now

    @property
    def version(self) -> int:
        """How often the bundle was loaded."""
        return self._version

    def reload(self) -> int:
        """Loads the bundle again, and has requests that come after it answered by that; its version.

        Every member's checksum is looked at, and a frame goes through, before it takes over. Requests that
        are being answered end with the segmenter that they began with.

        Raises:
            PatchcutError: it cannot be loaded; the one before goes on answering.
        """
        with self._loading:
            with open_bundle(self.settings.bundle) as bundle:
                bundle.verify()
            loaded = self._load()
            with self._lock:
                self._now = loaded
                self._heads.clear()
                self._version += 1
                return self._version

    def segmenter(self, changes: Changes) -> Segmenter:
        """The segmenter for a request's settings; it works with the engine of `now`.

        Raises:
            OptionError: a setting has a value that is not allowed, or the bundle lacks what it names.
            BundleError: the file is another bundle than the one that was loaded.
        """
        of_heads = tuple(one for one in changes if one[0] in OF_HEADS)
        others = dict(one for one in changes if one[0] not in OF_HEADS)
        with self._lock:
            now = self._now
            found = self._heads.get(of_heads)
            if found is not None:
                self._heads.move_to_end(of_heads)
        if found is None:
            found = now.with_settings(**dict(of_heads)) if of_heads else now
            with self._lock:
                if of_heads and now is self._now:
                    self._heads[of_heads] = found
                while len(self._heads) > _MOST_HEADS:
                    del self._heads[next(one for one in self._heads if one != _NAMING)]
        return found.with_settings(**others) if others else found

    @property
    def naming(self) -> Segmenter:
        """The segmenter whose concepts are added and removed: what `head=concepts` is answered by.

        Raises:
            OptionError: the bundle, or what the server was started for, lacks the features.
        """
        return self.segmenter(_NAMING)

    def _load(self) -> Segmenter:
        segmenter = Segmenter.open(self.settings)
        segmenter(np.zeros((64, 64, 3), np.uint8))  # what a first frame has to make is made here
        return segmenter


def changes_of(words: dict[str, str], settings: Settings) -> Changes:
    """The settings of a request, of words.

    Heads come by their names, without settings of their own, which may ask for any amount of work; those of
    the operator are taken as they are spelled there.

    Args:
        words: settings of `OF_REQUESTS` by their names.
        settings: the operator's.
    Raises:
        OptionError: a word is no value of its setting.
    Examples:
        >>> changes_of({"min_score": "0.5", "head": "cc"}, Settings())
        (('head', 'cc'), ('min_score', 0.5))
    """
    found: list[tuple[str, object]] = []
    for name in OF_REQUESTS:
        if name not in words:
            continue
        text = words[name]
        if name in ("head", "parts") and ":" in text and text != getattr(settings, name):
            what = f"must be the name of a head, without settings of its own, got {text[:60]!r}"
            raise OptionError(name, what, "the operator chooses those: patchcut serve --head")
        found.append((name, _value(name, text)))
    changed = dict(found)
    replace(settings, **changed)  # type: ignore[arg-type]  # each value is checked there
    return tuple(found)


def _value(name: str, text: str) -> object:
    """What a word of a request means."""
    if _TYPES[name] is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise OptionError(name, f"must be true or false, got {text[:60]!r}")
        return text.lower() in _TRUE
    if _TYPES[name] is float:
        try:
            return float(text)
        except ValueError:
            raise OptionError(name, f"must be a number, got {text[:60]!r}") from None
    return text
