from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench import report
from bench.report import END, START, ReportError
from bench.rows import Row

MakeRow = Callable[..., Row]


def test_a_section_has_times_quality_and_targets(make_row: MakeRow) -> None:
    rows = [
        make_row(metrics={"ratio_to_fp32": 0.5, "share_besides_backbone": 0.3}, quality={"IoU": 0.712}),
        make_row(contender="onnxruntime", inside="backbone", dtype="fp32", median_ms=60.0),
    ]
    (section,) = report.make_sections(rows)
    assert section.title == "A, 2 cores, avx2, 8 GB, Linux x86_64; 2 threads"
    targets, times, quality = (table[1] for table in section.tables)
    assert times == (
        ("frame 224", "patchcut", "all of it", "int8", "30 (33)", ""),
        ("", "onnxruntime", "backbone", "fp32", "60 (33)", "2×"),
    )
    assert quality == (("frame 224", "patchcut", "int8", "IoU 0.712"),)
    assert [(row[1], row[2]) for row in targets] == [("0.5", "met"), ("0.3", "**not met**")]
    assert section.notes == (
        "2026-01-02, commit abc, load before 0.0: `python -m bench run frame --record`",
        "Versions: python 3.11.0.",
    )


def test_machines_and_thread_counts_are_never_mixed(make_row: MakeRow) -> None:
    other = make_row().machine.model_copy(update={"cpu": "B"})
    rows = [make_row(0), make_row(1, machine=other, run="r2"), make_row(2, threads=1, run="r3")]
    sections = report.make_sections(rows)
    assert [section.title[0] for section in sections] == ["A", "B", "A"]
    threads = [section.title.rpartition("; ")[2] for section in sections]
    assert threads == ["1 thread", "2 threads", "2 threads"]
    assert all(len(section.tables[0][1]) == 1 for section in sections)


def test_only_the_newest_run_of_a_case_is_shown(make_row: MakeRow) -> None:
    old = [make_row(0, run="old", median_ms=90.0), make_row(0, run="old", contender="slow")]
    new = [make_row(1, run="new", median_ms=20.0)]
    assert report.newest_runs([*new, *old]) == new


def test_groups_keep_their_order(make_row: MakeRow) -> None:
    rows = [make_row(group="kernels", case="affinity"), make_row(group="frame"), make_row(group="head")]
    assert [row.group for row in report.newest_runs(rows)] == ["frame", "head", "kernels"]


def test_rows_without_times_show_only_quality(make_row: MakeRow) -> None:
    row = make_row(group="quality", median_ms=None, p95_ms=None, std_ms=None, quality={"CorLoc": 0.6})
    (section,) = report.make_sections([row])
    assert [headings[-1] for headings, _ in section.tables] == ["result"]


def test_both_renderings_hold_every_number(make_row: MakeRow) -> None:
    sections = report.make_sections([make_row(metrics={"ratio_to_fp32": 0.5}), make_row(contender="other")])
    screen = io.StringIO()
    report.print_sections(sections, Console(file=screen, width=200))
    markdown = report.to_markdown(sections)
    for text in ("30 (33)", "other", "0.5", "≤ 0.65", "commit abc"):
        assert text in screen.getvalue()
        assert text in markdown
    assert "| --- | --- |" in markdown


def test_the_page_has_the_kernels_last(make_row: MakeRow) -> None:
    text = report.to_page([make_row(), make_row(group="kernels", case="affinity 256x384")])
    first, last = text.split("## Each kernel beside its neighbours\n")
    assert first.startswith("## Frames, heads, quality and serving\n")
    assert "frame 224" in first and "affinity" not in first
    assert "affinity 256x384" in last and "frame 224" not in last
    assert "## Each kernel" not in report.to_page([make_row()])


def test_the_readme_shows_a_few_numbers_and_their_targets(make_row: MakeRow) -> None:
    metrics = {"share_besides_backbone": 0.3, "ratio_to_fp32": 0.5}
    rows = [
        make_row(metrics=metrics),
        make_row(contender="onnxruntime", median_ms=1.0),
        make_row(group="kernels", case="affinity 256x384"),
        make_row(
            1, group="quality", case="voc2007-dev 448 refine guided", commit="def", quality={"CorLoc": 0.7}
        ),
    ]
    lines = report.to_readme(rows).splitlines()
    assert lines[0] == "**A, 2 cores, avx2, 8 GB, Linux x86_64; 2 threads**"
    assert lines[4:] == [
        "| a frame to masks, at 224 | 30 ms (p95 33) |  |",
        "| share of a frame's time besides the backbone | 0.3 | ≤ 0.2, **not met** |",
        "| VOC 2007: CorLoc at 448, guided | 0.7 | ≥ 0.69, met |",
        "",
        "Measured 2026-01-02 at commit abc, 2026-01-03 at commit def.",
    ]


def test_the_readme_keeps_machines_apart(make_row: MakeRow) -> None:
    other = make_row().machine.model_copy(update={"cpu": "B"})
    metrics = {"share_besides_backbone": 0.1}
    rows = [make_row(metrics=metrics), make_row(1, machine=other, run="r2", median_ms=5.0, metrics=metrics)]
    newest, older = report.to_readme(rows).split("**A,")
    assert newest.startswith("**B,") and "5 ms" in newest and "5 ms" not in older


def test_every_number_of_the_readme_has_a_case() -> None:
    for fact in report.README_FACTS:
        assert fact.case in report.open_group(fact.group).CASES


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.6, "1,235"), (-0.00412, "-0.00412"), (3.14159, "3.14"), (99.96, "100"), (9e-7, "9e-07")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report._number(value) == text


def test_a_page_is_changed_between_the_markers_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    for _ in range(2):
        report.write_into(readme, "new\n")
        assert readme.read_text() == f"before\n{START}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["nothing", START, f"{END} {START}"])
def test_a_page_without_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ReportError, match=r"README.md must hold"):
        report.write_into(readme, "new")
    assert readme.read_text() == text
