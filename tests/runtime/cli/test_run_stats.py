from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from patchcut.cli.run_stats import RunStats
from patchcut.cli.tables import objects_text

from tests.runtime.results import made_result


def test_objects_are_counted_once_and_those_of_each_video_by_themselves() -> None:
    stats = RunStats()
    for name, ids in (("a.mp4", [1, 2]), ("a.mp4", [2, 3]), ("a.mp4", [0, 1]), ("b.mp4", [1, 2])):
        result = dataclasses.replace(made_result(), name=name, track_ids=np.array(ids, np.int32))
        stats.add(result, save_ms=0.0)
    assert stats.summary().tracks == 5


def test_what_is_not_tracked_is_not_counted() -> None:
    stats = RunStats()
    stats.add(made_result(), save_ms=0.0)
    assert stats.summary().tracks is None
    nothing = dataclasses.replace(made_result(0), track_ids=np.zeros(0, np.int32))
    stats.add(nothing, save_ms=0.0)
    assert stats.summary().tracks == 0


@pytest.mark.parametrize(
    ("tracks", "text"), [(None, ""), (1, "1 object tracked, "), (3, "3 objects tracked, ")]
)
def test_the_summary_says_how_many(tracks: int | None, text: str) -> None:
    assert objects_text(tracks) == text
