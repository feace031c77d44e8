"""Heads: what turns features into an assignment. Each is one module and one line in `HEADS`.

A trained head has its weights in the bundle. A fitted one, such as `CcHead(alpha=5)`, needs none, runs on any
bundle's features, and is itself the place of its settings.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, cast

from patchcut.bundle import Bundle, HeadSpec
from patchcut.engines import check_choice
from patchcut.errors import BundleError, OptionError
from patchcut.heads.base import Head
from patchcut.heads.cc import CcHead
from patchcut.heads.fitted import FittedHead
from patchcut.heads.gnn_fit import GnnFitHead
from patchcut.heads.kmeans import KMeansHead
from patchcut.heads.ncut import NcutHead

__all__ = [
    "FITTED",
    "HEADS",
    "TRAINED",
    "CcHead",
    "FittedHead",
    "GnnFitHead",
    "Head",
    "KMeansHead",
    "NcutHead",
    "open_head",
    "open_parts",
    "set_up",
]

TRAINED = {"gnn": "patchcut.heads.gnn"}
FITTED: dict[str, type[FittedHead]] = {head.name: head for head in (GnnFitHead, CcHead, NcutHead, KMeansHead)}
HEADS = (*TRAINED, *FITTED)
# How many the foreground is divided into where nothing else is said.
PARTS = 4


def set_up(name: str, **settings: object) -> str | FittedHead:
    """The fitted head called `name` with some settings, or `name` itself where all of them are None.

    Raises:
        OptionError: there are settings for no such head, it has none of that name, or a value is out of its
            range.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if not given:
        return name
    if name not in FITTED:
        listed = ", ".join(FITTED)
        raise OptionError(next(iter(given)), f'is for heads that are fitted ({listed}), the head is "{name}"')
    known = [field.name for field in fields(cast("Any", FITTED[name]))]
    for key in given:
        if key not in known:
            raise OptionError(key, f'is no setting of the head "{name}", which has {", ".join(known)}')
    return FITTED[name](**given)


def open_head(bundle: Bundle, head: str | Head = "auto") -> Head:
    """The head asked for, ready to run.

    Args:
        head: a name, "auto" for the one that the bundle was made with, or a head of your own making.
    Raises:
        OptionError: no such head, or the bundle has no weights for it.
        BundleError: the bundle has no head, one of a newer patchcut, or weights of wrong shapes.
    """
    if not isinstance(head, str | type) and isinstance(head, Head):
        return head
    check_choice("head", head, ("auto", *HEADS))
    if head in FITTED:
        return FITTED[head]()
    spec = bundle.spec.head()
    if spec is None:
        remedy = f"use a bundle with a head, or one of the heads {', '.join(FITTED)}, which need no training"
        raise BundleError("head", f"{bundle.path} holds a backbone and no head", remedy)
    opened = _open_trained(bundle, spec)
    if head not in ("auto", spec.kind):
        raise OptionError("head", f'the bundle holds weights for "{spec.kind}", got "{head}"')
    return opened


def open_parts(bundle: Bundle, parts: str | FittedHead = "auto") -> Head:
    """The head that divides what another one found.

    Args:
        parts: a fitted head or its name; "auto" is the trained one of the bundle, and "kmeans" with k=4 where
            it has none.
    Raises:
        OptionError: no such head.
        BundleError: the bundle's head for parts is of a newer patchcut, or its weights have wrong shapes.
    """
    if isinstance(parts, FittedHead):
        return parts
    check_choice("parts", parts, ("auto", *FITTED))
    if parts == "auto":
        spec = bundle.spec.head("parts")
        return KMeansHead(k=PARTS) if spec is None else _open_trained(bundle, spec)
    return FITTED[parts]()


def _open_trained(bundle: Bundle, spec: HeadSpec) -> Head:
    if spec.kind not in TRAINED:
        what = f"its head is {spec.kind!r}, this one knows {', '.join(TRAINED)}"
        remedy = "upgrade patchcut: pip install -U patchcut"
        raise BundleError("head", f"{bundle.path} was made by a newer patchcut: {what}", remedy)
    module: Any = import_module(TRAINED[spec.kind])
    return cast("Head", module.open_head(bundle, spec))
