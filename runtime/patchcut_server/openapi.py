"""What `/openapi.json` says of `POST /v1/segment`, whose query is made from the settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from patchcut import Settings

from patchcut_server.answers import OUTPUTS
from patchcut_server.model import OF_REQUESTS

_KINDS = {bool: "boolean", float: "number"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
    }
}


def _settings() -> list[dict[str, Any]]:
    known = {one.name: one.metadata for one in fields(Settings)}
    return [
        {
            "name": name,
            "in": "query",
            "description": known[name]["help"],
            "schema": {
                "type": _KINDS.get(known[name]["type"], "string"),
                **({"enum": list(known[name]["choices"])} if known[name]["choices"] else {}),
            },
        }
        for name in OF_REQUESTS
    ]


def _several(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "array", "items": {"type": "string"}}
    return {"name": name, "in": "query", "description": description, "schema": schema}


SEGMENT: dict[str, Any] = {
    "parameters": [
        *_settings(),
        _several("point", "X,Y of an object, in pixels; again for another object."),
        _several("box", "X0,Y0,X1,Y1 around an object, half-open; again for another."),
        {
            "name": "output",
            "in": "query",
            "description": "What to answer with, whatever Accept says.",
            "schema": {"type": "string", "enum": list(OUTPUTS)},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {"image/*": _BINARY, "multipart/form-data": _FORM},
    },
}
