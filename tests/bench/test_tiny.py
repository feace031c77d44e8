"""The case of the small bundle, small: a few frames and no data."""

from __future__ import annotations

from pathlib import Path

import pytest
from patchcut import Settings

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from bench.cases import BenchError, Options, tiny


def test_both_bundles_are_timed() -> None:
    rows = list(tiny.run(Options(Settings(device="cpu", threads=1), repeats=3)))
    assert [(row.case, row.contender) for row in rows] == [
        (tiny.FRAME, "patchcut"),
        (tiny.FRAME, "patchcut, default"),
    ]
    assert rows[0].metrics["times_as_fast"] > 1 == rows[1].metrics["times_as_fast"]


def test_a_folder_without_data_sets_is_told(tmp_path: Path) -> None:
    options = Options(Settings(device="cpu", threads=1), repeats=1, data=tmp_path)
    with pytest.raises(BenchError, match=r"tiny needs in --data a folder that holds .*ecssd-dev"):
        list(tiny.run(options))
