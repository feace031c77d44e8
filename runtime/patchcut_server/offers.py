"""`GET /v1/model`: what a request may choose, for those who show it to people."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from patchcut import Segmenter
from patchcut.errors import PatchcutError
from patchcut.heads import FITTED
from patchcut.heads.no_concepts import CONCEPTS
from patchcut.settings import MODES, REFINES
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from patchcut_server.backend import Backend
from patchcut_server.model import Model

# Of each segmenter as long as it is there: a loaded bundle offers the same until it is loaded again.
_HEADS: WeakKeyDictionary[Segmenter, list[dict[str, Any]]] = WeakKeyDictionary()


async def model_offers(backend: Backend, request: Request) -> Response:
    """The heads, modes, refiners and concepts that a request may choose, and what it may send."""
    offers = await asyncio.to_thread(offers_of, backend.model)
    limits = {"max_bytes": backend.options.max_bytes, "max_pixels": backend.model.settings.max_pixels}
    return JSONResponse({**offers, **limits})


def offers_of(model: Model) -> dict[str, Any]:
    """What the model offers; heads that need other features than the server was started for are left out.

    Examples:
        >>> from patchcut import Settings
        >>> offers = offers_of(Model(Settings()))
        >>> offers["head"], [one["name"] for one in offers["heads"]], offers["concepts"]
        ('gnn', ['gnn', 'gnn-fit', 'cc', 'ncut', 'kmeans'], None)
    """
    now, settings = model.now, model.settings
    if now not in _HEADS:
        _HEADS[now] = _heads_of(now)
    heads = _HEADS[now]
    offered = [one["name"] for one in heads]
    return {
        "name": model.name,
        "version": model.version,
        "heads": heads,
        "head": now.head.name,
        "modes": list(MODES),
        "mode": settings.mode,
        "refines": list(REFINES),
        "refine": settings.refine,
        "min_score": settings.min_score,
        "concepts": list(model.naming.concepts.names) if CONCEPTS in offered else None,
        "device": now.extractor.device,
    }


def _heads_of(now: Segmenter) -> list[dict[str, Any]]:
    """Those that work on its features, which is seen by opening them."""
    names = [spec.name for spec in now.spec.heads if spec.role != "parts"]
    heads = [_told(now.head.name, now)]
    for name in dict.fromkeys((*names, CONCEPTS, *FITTED)):
        opened = None if name == now.head.name else _opened(now, name)
        if opened is not None:
            heads.append(_told(name, opened))
    return heads


def _opened(now: Segmenter, name: str) -> Segmenter | None:
    try:
        return now.with_settings(head=name)
    except PatchcutError:
        return None


def _told(name: str, segmenter: Segmenter) -> dict[str, Any]:
    head = segmenter.head
    return {"name": name, "named": bool(getattr(head, "named", False))}
