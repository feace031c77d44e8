from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import patchcut
import pytest
from patchcut import Settings, batch


@pytest.fixture
def make(toy_bundle: Path) -> Callable[..., batch.Outcome]:
    """`patchcut.batch.make` with the toy bundle, one worker, and tar files of four frames."""

    def made(sources: list[Path], dst: Path, **how: Any) -> batch.Outcome:
        settings = how.pop("settings", Settings(bundle=toy_bundle, device="cpu", threads=1))
        return batch.make(
            sources,
            dst,
            **{"format": "webdataset", "shard_size": 4, "workers": 1, "settings": settings, **how},
        )

    return made


@pytest.fixture
def row_of(toy_segmenter: patchcut.Segmenter) -> Callable[[patchcut.Frame], batch.FrameRow]:
    """The row that a frame must have: made in this process, without shards."""
    return lambda frame: batch.FrameRow.of(toy_segmenter(frame))
