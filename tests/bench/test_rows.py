from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import machine, rows
from bench.harness import Times
from bench.rows import RESULTS, Outcome, ResultsError, Row

# What the house style wants in every row.
WANTED = {
    "date",
    "commit",
    "device",
    "versions",
    "threads",
    "case",
    "shapes",
    "dtype",
    "repeats",
    "median_ms",
    "p95_ms",
    "std_ms",
    "peak_memory_mb",
    "quality",
    "bundle_sha256",
    "command",
}


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    bundle = tmp_path / "some.patchcut"
    bundle.write_bytes(b"abc")
    return Outcome(
        "case",
        "patchcut",
        "all",
        Times((1.0, 2.0, 3.0)),
        {"frame": (4, 5, 3)},
        "int8",
        {"IoU": 0.123456789},
        {"ratio": 1 / 3},
        bundle,
    )


def test_a_row_has_all_that_is_wanted(outcome: Outcome, tmp_path: Path) -> None:
    made = rows.make_rows("frame", [outcome], threads=2, load=0.1, command="python -m bench run frame")
    (path,) = rows.append(made, tmp_path)
    assert path.name == "frame.jsonl"
    (line,) = path.read_text().splitlines()
    fields = json.loads(line)
    assert fields.keys() >= WANTED
    assert (fields["median_ms"], fields["repeats"], fields["threads"]) == (2, 3, 2)
    assert fields["shapes"] == {"frame": [4, 5, 3]}
    assert fields["quality"] == {"IoU": 0.123457}
    assert fields["metrics"] == {"ratio": 0.333333}
    assert fields["bundle_sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fields["peak_memory_mb"] is None, "the process was shared"


def test_rows_are_read_as_they_were_written(outcome: Outcome, tmp_path: Path) -> None:
    made = rows.make_rows("frame", [outcome, outcome], threads=2, load=0.1, command="x")
    rows.append(made[:1], tmp_path)
    rows.append(made[1:], tmp_path)
    assert rows.read(tmp_path) == made
    assert len({row.run for row in made}) == 1


def test_a_line_that_is_no_row_is_named(make_row: Callable[..., Row], tmp_path: Path) -> None:
    rows.append([make_row()], tmp_path)
    with (tmp_path / "frame.jsonl").open("a") as file:
        file.write(make_row().model_dump_json().replace('"threads":2', '"threads":"many"') + "\n")
    with pytest.raises(ResultsError, match=r"\[bench\] frame.jsonl line 2 is no row: threads "):
        rows.read(tmp_path)


def test_unknown_fields_are_no_row(make_row: Callable[..., Row], tmp_path: Path) -> None:
    line = {**json.loads(make_row().model_dump_json()), "host": "mine"}
    (tmp_path / "frame.jsonl").write_text(json.dumps(line))
    with pytest.raises(ResultsError, match="host"):
        rows.read(tmp_path)


def test_values_are_found_by_name(make_row: Callable[..., Row]) -> None:
    row = make_row(quality={"IoU": 0.7}, metrics={"ratio": 0.5})
    assert [row.value(name) for name in ("IoU", "ratio", "median_ms", "nothing")] == [0.7, 0.5, 30, None]


def test_recorded_rows_are_rows_of_clean_commits_and_name_no_folder() -> None:
    recorded = rows.read(RESULTS)
    assert recorded, "bench/results is empty: python -m bench run all --record"
    for row in recorded:
        assert not row.commit.endswith("+"), f"{row.group} {row.date}: recorded with uncommitted changes"
        assert not re.search(r"(^|[\s=])/(?!v1/)", row.model_dump_json()), row.command  # /v1 is a server's


def test_this_machine_is_described() -> None:
    here = machine.this_machine()
    assert here.cores >= 1
    assert here.memory_gb >= 1
    assert here == machine.this_machine()
    assert str(here).startswith(here.cpu)
    assert machine.versions()["python"]
    assert re.fullmatch(r"[0-9a-f]{10}\+?|unknown", machine.commit())
