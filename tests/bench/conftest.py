from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from bench.machine import Machine
from bench.rows import Row

_FIELDS: dict[str, Any] = {
    "date": datetime(2026, 1, 2, tzinfo=timezone.utc),
    "run": "r1",
    "commit": "abc",
    "machine": Machine(cpu="A", cores=2, memory_gb=8, system="Linux x86_64", isa="avx2"),
    "device": "cpu",
    "versions": {"python": "3.11.0"},
    "threads": 2,
    "load_1min": 0.0,
    "group": "frame",
    "case": "frame 224",
    "contender": "patchcut",
    "inside": "all of it",
    "shapes": {"frame": (480, 640, 3)},
    "dtype": "int8",
    "repeats": 3,
    "median_ms": 30.0,
    "p95_ms": 33.0,
    "std_ms": 1.0,
    "peak_memory_mb": None,
    "quality": {},
    "metrics": {},
    "bundle_sha256": None,
    "command": "python -m bench run frame --record",
}


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """make_row(day=1, **fields): a row of the frame case, `day` days after the first."""

    def make(day: int = 0, **fields: Any) -> Row:
        date = _FIELDS["date"] + timedelta(days=day)
        return Row.model_validate({**_FIELDS, "date": date, **fields})

    return make
