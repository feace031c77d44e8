"""`POST /v1/segment` and what every request of one picture has in common: a place, a body, an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from patchcut.errors import PatchcutError
from starlette.requests import Request
from starlette.responses import Response

from patchcut_server.answers import OUTPUTS, choose_output
from patchcut_server.backend import Backend
from patchcut_server.bodies import read_body
from patchcut_server.gate import client_of
from patchcut_server.model import OF_REQUESTS, changes_of
from patchcut_server.pictures import decode_picture, picture_in, server_timing
from patchcut_server.pipeline import Job
from patchcut_server.refusals import Refusal, bad_request, refusal_of
from patchcut_server.tracing import request_span, tell_refusal, tell_stages

Words = list[tuple[str, str]]

# Objects that one request points at; each takes a frame's time.
_MOST_PROMPTS = 32


async def segment(backend: Backend, request: Request) -> Response:
    """The result of a picture, as the request likes it."""
    async with taken(backend, request, "segment") as (body, span):
        words = list(request.query_params.multi_items())
        settings, prompts, output = _read_words(words)
        job = Job(
            partial(
                decode_picture,
                picture_in(request.headers.get("content-type", ""), body),
                backend.model.settings.pixel_rule,
            ),
            choose_output(output, request.headers.get("accept", "")),
            changes_of(settings, backend.model.settings),
            prompts,
        )
        media_type, data = await answered(backend, request, job, span)
    timing = {"Server-Timing": server_timing(job.timings_ms)}
    return Response(data, media_type=media_type, headers=timing)


@asynccontextmanager
async def taken(backend: Backend, request: Request, name: str) -> AsyncIterator[tuple[bytes, Any]]:
    """A request that has its place: its body, and its span where there are any.

    Raises:
        Refusal: 429 before the body is read; else what is wrong with that.
    """
    options = backend.options
    with request_span(name, request.headers) as span:
        try:
            wait_s = backend.pipeline.wait_s(backend.gate.taken)
            with backend.gate.place(client_of(request.scope), wait_s):
                yield await read_body(request, options.max_bytes, options.slow_s), span
        except Exception as error:
            refusal = refusal_of(error)
            tell_refusal(span, 500 if refusal is None else refusal.status, str(error))
            raise


async def answered(backend: Backend, request: Request, job: Job, span: Any) -> Any:
    """What the pipeline answers to a job; it is given up where the client leaves before that."""
    answer = asyncio.wrap_future(backend.pipeline.submit(job))
    left = asyncio.ensure_future(_client_left(request))
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise Refusal(499, PatchcutError("client", "has left"), "left")
        return answer.result()
    finally:
        left.cancel()
        tell_stages(span, job.stages)


def read_settings(words: Words, others: tuple[str, ...]) -> tuple[dict[str, str], Words]:
    """The settings of a query, and what else it says.

    Raises:
        Refusal: 400, a word is none of the settings or of `others`, or a setting comes twice.
    Examples:
        >>> read_settings([("refine", "guided"), ("point", "1,2")], ("point",))
        ({'refine': 'guided'}, [('point', '1,2')])
    """
    settings: dict[str, str] = {}
    rest = []
    for name, text in words:
        if name in others:
            rest.append((name, text))
        elif name not in OF_REQUESTS:
            known = ", ".join((*OF_REQUESTS, *others))
            raise bad_request("query", f"has no {name[:60]!r}; there are {known}")
        elif name in settings:
            raise bad_request("query", f"has {name} twice")
        else:
            settings[name] = text
    return settings, rest


def _read_words(words: Words) -> tuple[dict[str, str], dict[str, list[list[float]]], str | None]:
    """Settings, prompts and the output of a query."""
    settings, rest = read_settings(words, ("output", "point", "box"))
    found = {kind: [text for name, text in rest if name == kind] for kind in ("output", "point", "box")}
    if len(found["output"]) > 1:
        raise bad_request("query", f"has output twice; it is one of {', '.join(OUTPUTS)}")
    prompts = {
        "points": [numbers_of("point", "X,Y", text) for text in found["point"]],
        "boxes": [numbers_of("box", "X0,Y0,X1,Y1", text) for text in found["box"]],
    }
    if sum(map(len, prompts.values())) > _MOST_PROMPTS:
        raise bad_request("query", f"points at more than {_MOST_PROMPTS} objects")
    output = found["output"][0] if found["output"] else None
    return settings, {name: given for name, given in prompts.items() if given}, output


def numbers_of(where: str, wanted: str, text: str) -> list[float]:
    """The numbers of a word such as "10,20".

    Args:
        where: what the word is called.
        wanted: how it is written, such as "X,Y".
    Raises:
        Refusal: 400, it has others.
    Examples:
        >>> numbers_of("point", "X,Y", "10,20.5")
        [10.0, 20.5]
    """
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(wanted.split(",")):
        raise bad_request(where, f"must be {wanted} in pixels, got {text[:60]!r}")
    return numbers


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
