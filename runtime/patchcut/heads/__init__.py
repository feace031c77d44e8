"""Heads turn features into an assignment. Each is one module and one line in `TRAINED` or `FITTED`.

A trained head has its weights in the bundle. A fitted one, such as `CcHead(alpha=5)`, needs none, runs on any
bundle's features, and holds its own settings; `parse_head` reads it from words.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, cast, get_type_hints

from patchcut.bundle import Bundle, HeadSpec, Role
from patchcut.checks import check_choice, check_text
from patchcut.errors import BundleError, OptionError
from patchcut.heads.base import Head, StreamedHead, StreamHead, Voted, VotingHead
from patchcut.heads.cc import CcHead
from patchcut.heads.chosen import ChosenNames
from patchcut.heads.fitted import FittedHead
from patchcut.heads.following import Following
from patchcut.heads.gnn_fit import GnnFitHead
from patchcut.heads.kmeans import KMeansHead
from patchcut.heads.live import LiveHead
from patchcut.heads.ncut import NcutHead
from patchcut.heads.no_concepts import CONCEPTS, no_concepts

__all__ = [
    "FITTED",
    "HEADS",
    "TRAINED",
    "CcHead",
    "ChosenNames",
    "FittedHead",
    "Following",
    "GnnFitHead",
    "Head",
    "KMeansHead",
    "LiveHead",
    "NcutHead",
    "StreamHead",
    "StreamedHead",
    "Voted",
    "VotingHead",
    "check_head",
    "choose_head",
    "choose_parts",
    "open_head",
    "parse_head",
]

TRAINED = {
    "gnn": "patchcut.heads.gnn",
    "levels": "patchcut.heads.levels",
    "prototypes": "patchcut.heads.prototypes",
    "decoder": "patchcut.heads.decoder",
}
# The commands that make trained heads, by their kinds and by the names that the commands give them.
_MADE_BY = {
    "gnn": "patchcut export train",
    "decoder": "patchcut export distill",
    "levels": "patchcut export levels",
    "adapted": "patchcut export adapt",
    "prototypes": "patchcut export levels --dataset-only",
    "clusters": "patchcut export levels --dataset-only",
}
# What finds something in a frame; heads for parts divide what these find.
_FINDING: tuple[Role, ...] = ("objects", "names")
FITTED: dict[str, type[FittedHead]] = {head.name: head for head in (GnnFitHead, CcHead, NcutHead, KMeansHead)}
HEADS = (*TRAINED, *FITTED)
# The best of 16 runs is mostly the same however an 8-bit backbone rounds: with one grey level more in one
# pixel of 24 photographs 3 % of the background's patches change their cluster, with the best of 4 runs 7 %.
DEFAULT_PARTS = KMeansHead(k=4, restarts=16)


def parse_head(words: str, option: str = "head") -> FittedHead | str:
    """The fitted head that `words` describe; a name that is no fitted head's is given back as it is.

    Args:
        words: a name, or a fitted head's name, a colon and its settings, such as "cc:alpha=5,solver=gnn".
        option: where the words come from, for errors.
    Raises:
        OptionError: '[head] "cc" has no setting "beta", it has alpha, solver, kind, max_clusters, seed'.
    Examples:
        >>> patchcut.heads.parse_head("kmeans:k=6,metric=euclidean")
        KMeansHead(k=6, metric='euclidean', restarts=4, seed=0)
    """
    name, colon, listed = words.partition(":")
    if name not in FITTED:
        if colon:
            what = f'"{name}" has no settings; the heads that have some are {", ".join(FITTED)}'
            raise OptionError(option, what, f"leave out {colon + listed!r}")
        return words
    types = get_type_hints(FITTED[name])
    known = [field.name for field in fields(cast("Any", FITTED[name]))]
    settings: dict[str, object] = {}
    for pair in filter(None, listed.split(",")):
        key, equals, text = (word.strip() for word in pair.partition("="))
        if key not in known:
            raise OptionError(option, f'"{name}" has no setting "{key}", it has {", ".join(known)}')
        if key in settings:
            raise OptionError(option, f'gives "{key}" of "{name}" twice')
        if not equals:
            raise OptionError(option, f'must give "{key}" of "{name}" a value, got {pair!r}', f"{key}=VALUE")
        settings[key] = _value(types[key], text)
    try:
        return FITTED[name](**settings)
    except OptionError as error:
        raise OptionError(option, f'"{name}": {error.where} {error.what}', error.remedy) from error


def _value(type_: object, text: str) -> object:
    """What a word means for a setting; the word itself where it means nothing, for the head to refuse."""
    if type_ is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return type_(text) if type_ in (int, float) else text
    except ValueError:
        return text


def is_head(value: object) -> bool:
    """Whether `value` is a head itself, neither its name nor its class.

    Examples:
        >>> patchcut.heads.is_head(patchcut.heads.CcHead()), patchcut.heads.is_head("cc")
        (True, False)
    """
    return not isinstance(value, str | type) and isinstance(value, Head)


def check_head(option: str, value: object) -> None:
    """Checks that `value` is a head, or words that may describe one; whether the bundle has it is seen later.

    Raises:
        OptionError: '[head] must be one of "auto", "gnn", "levels", ..., got None'.
    Examples:
        >>> patchcut.heads.check_head("head", "ncut:threshold=2")
        Traceback (most recent call last):
        patchcut.errors.OptionError: [head] "ncut": threshold must be a number from 0 to 1, got 2.0
    """
    if isinstance(value, str):
        parse_head(value, option)
    elif not is_head(value):
        check_choice(option, value, ("auto", *HEADS))
    else:
        name = cast("Head", value).name
        check_text(f"{option}.name", name)
        if ":" in name:
            raise OptionError(option, f"must have a name without a colon, got {name!r}")


def choose_head(bundle: Bundle, head: str | Head) -> HeadSpec | Head:
    """The head asked for: one of the bundle's for objects or names, to be opened, or one that is ready.

    Args:
        head: the name of one of them, words that `parse_head` reads, "auto" for the first of them, those for
            objects before those for names, a kind for the first of that kind, or a head of your own making.
            "concepts" is there on every bundle whose features tell what things are; it may have none yet.
    Raises:
        OptionError: no such head; of a kind that is known it says which command makes one.
        BundleError: the bundle has no head.
    Examples:
        >>> patchcut.heads.choose_head(bundle, "auto").kind
        'gnn'
    """
    if not isinstance(head, str):
        return head
    specs = {spec.name: spec for role in _FINDING for spec in bundle.spec.heads if spec.role == role}
    if head in specs:
        return specs[head]
    if head == CONCEPTS:
        return next((spec for spec in specs.values() if spec.concepts is not None), None) or no_concepts(
            bundle
        )
    parsed = parse_head(head)
    if isinstance(parsed, FittedHead):
        return parsed
    check_choice("head", head, ("auto", *dict.fromkeys([*specs, *_MADE_BY, *HEADS])))
    found = [spec for spec in specs.values() if head in ("auto", spec.kind)]
    if found:
        return found[0]
    made = f"`{_MADE_BY[head]}` makes one" if head in _MADE_BY else ""
    if specs:
        held = ", ".join(f'"{name}"' for name in specs)
        raise OptionError("head", f'{bundle.path} holds {held}, got "{head}"', made)
    remedy = f"use a bundle with a head, or one of the heads {', '.join(FITTED)}, which need no training"
    raise BundleError("head", f"{bundle.path} holds a backbone and no head", made or remedy)


def choose_parts(bundle: Bundle, parts: str | Head) -> HeadSpec | Head:
    """The head that divides what another one found; as `choose_head`, of the heads for parts.

    Args:
        parts: "auto" is the bundle's first for parts, and "kmeans:k=4,restarts=16" where it has
            none.
    Raises:
        OptionError: no such head.
    Examples:
        >>> patchcut.heads.choose_parts(bundle, "auto")
        KMeansHead(k=4, metric='cosine', restarts=16, seed=0)
    """
    if not isinstance(parts, str):
        return parts
    specs = {spec.name: spec for spec in bundle.spec.heads if spec.role == "parts"}
    if parts in specs:
        return specs[parts]
    parsed = parse_head(parts, "parts")
    if isinstance(parsed, FittedHead):
        return parsed
    check_choice("parts", parts, ("auto", *specs, *FITTED))
    return next(iter(specs.values()), DEFAULT_PARTS)


def open_head(bundle: Bundle, head: HeadSpec | Head) -> Head:
    """A head ready to run; one that is already is given back.

    Raises:
        BundleError: the bundle's head is one of a newer patchcut, or has weights of wrong shapes.
    Examples:
        >>> patchcut.heads.open_head(bundle, bundle.spec.head("objects")).labels
        ('background', 'foreground')
    """
    if not isinstance(head, HeadSpec):
        return head
    if head.kind not in TRAINED:
        what = f"its head is {head.kind!r}, this one knows {', '.join(TRAINED)}"
        remedy = "install a newer patchcut"
        raise BundleError("head", f"{bundle.path} was made by a newer patchcut: {what}", remedy)
    module: Any = import_module(TRAINED[head.kind])
    return cast("Head", module.open_head(bundle, head))
