"""Protocol buffers in their text format, which Triton reads configurations in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

Value = object  # a message (a mapping), a list of values, Word, text, number or bool


class Word(str):
    """An enum's value, which stands without quotes."""

    __slots__ = ()


def to_text(message: Mapping[str, Value]) -> str:
    """A message in the text format, a field a line.

    Args:
        message: its fields by their names. A list is a repeated field; a map field is a list of messages with
            a key and a value, as `entries` makes it.
    Examples:
        >>> print(to_text({"name": "a", "input": [{"kind": Word("KIND_CPU"), "dims": [1, 2]}]}), end="")
        name: "a"
        input {
          kind: KIND_CPU
          dims: [1, 2]
        }
    """
    return "".join(f"{line}\n" for line in _lines(message))


def entries(values: Mapping[str, Value]) -> list[Value]:
    """A map field.

    Examples:
        >>> print(to_text({"parameters": entries({"k": {"string_value": "v"}})}), end="")
        parameters {
          key: "k"
          value {
            string_value: "v"
          }
        }
    """
    return [{"key": key, "value": value} for key, value in values.items()]


def _lines(message: Mapping[str, Value]) -> Iterator[str]:
    for name, value in message.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) and all(isinstance(one, int) for one in value):
            yield f"{name}: [{', '.join(map(_scalar, value))}]"
            continue
        for one in values:
            if isinstance(one, Mapping):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{name}: {_scalar(one)}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
