"""`/v1/concepts`: things that are shown to the server and named, while it runs."""

from __future__ import annotations

import asyncio

from patchcut.errors import OptionError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from patchcut_server.backend import Backend
from patchcut_server.pictures import decode_picture, picture_in
from patchcut_server.refusals import bad_request
from patchcut_server.segmenting import numbers_of, taken

# Each has a few prototypes, with which every patch is compared.
_MOST_CONCEPTS = 64
_MOST_NAME = 64


async def add_concept(backend: Backend, request: Request) -> Response:
    """Adds the concept `name=` from a picture, or from what `box=X0,Y0,X1,Y1` shows of it."""
    async with taken(backend, request, "concepts") as (body, _):
        name, box = _read(request, ("name", "box"))
        picture = picture_in(request.headers.get("content-type", ""), body)
        return JSONResponse({"concepts": await asyncio.to_thread(_add, backend, name, box, picture)})


async def remove_concept(backend: Backend, request: Request) -> Response:
    """Removes the concept `name=`."""
    name, _ = _read(request, ("name",))
    return JSONResponse({"concepts": await asyncio.to_thread(_remove, backend, name)})


def _add(backend: Backend, name: str, box: str | None, picture: bytes) -> list[str]:
    concepts = backend.model.naming.concepts
    if len(concepts) >= _MOST_CONCEPTS:
        raise OptionError("concepts", f"are {len(concepts)}, as many as there may be", "remove one first")
    frame = decode_picture(picture, backend.model.settings.pixel_rule)
    boxes = None if box is None else [numbers_of("box", "X0,Y0,X1,Y1", box)]
    concepts.add(name, [frame], boxes=boxes)
    return list(concepts.names)


def _remove(backend: Backend, name: str) -> list[str]:
    concepts = backend.model.naming.concepts
    concepts.remove(name)
    return list(concepts.names)


def _read(request: Request, known: tuple[str, ...]) -> tuple[str, str | None]:
    """The words `name` and `box` of a query."""
    said: dict[str, str] = {}
    for word, text in request.query_params.multi_items():
        if word not in known or word in said:
            what = "twice" if word in said else f"which is none of {', '.join(known)}"
            raise bad_request("query", f"has {word[:60]!r}, {what}")
        said[word] = text
    name = said.get("name", "")
    if not 0 < len(name) <= _MOST_NAME:
        raise bad_request("name", f"must have 1 to {_MOST_NAME} letters, got {len(name)}")
    return name, said.get("box")
