"""Safetensors, the same bytes for the same content, and where tensors lie in them."""

from __future__ import annotations

import json

import numpy as np


def safetensors_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of arrays."""
    from safetensors.numpy import save

    data: bytes = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    return data


def safetensors_extents(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each tensor's bytes lie in a safetensors file: name → (offset, length)."""
    header = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + header])
    extents = {}
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            extents[name] = (8 + header + begin, end - begin)
    return extents
