"""What the pages say: short enough, no dead links, and every example works on this tree."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from .conftest import ROOT

MAX_README_BYTES = 12_288
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= MAX_README_BYTES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    dead = [link for link in links if "://" not in link and not leads_somewhere(page, link)]
    assert dead == []


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.is_file() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_of_the_tree_are_there(page: Path) -> None:
    named = re.findall(r"`((?:kernels|runtime|export|bench|tests|docs)/[\w./-]+)`", page.read_text("utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_navigation_names_every_page() -> None:
    named = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_api_page_has_every_public_name() -> None:
    import patchcut

    text = (ROOT / "docs/api.md").read_text("utf-8")
    modules = {"bundle", "engines", "heads", "output", "sources", "stages"}
    names = {name for name in patchcut.__all__ if not name.endswith(("Error", "__"))} - modules
    assert [name for name in sorted(names) if f"::: patchcut.{name}\n" not in text] == []


def test_sections_of_docstrings_come_out_as_sections() -> None:
    griffe = pytest.importorskip("griffe", reason="needs patchcut[docs]")
    extensions = griffe.load_extensions(str(ROOT / "docs/docstrings.py"))
    folders = [ROOT / "runtime", ROOT / "kernels"]
    options = {"extensions": extensions, "search_paths": folders, "docstring_parser": "google"}
    patchcut, kernels = (griffe.load(name, **options) for name in ("patchcut", "patchcut_kernels"))
    for function in (patchcut["segmenter.load"], patchcut["segmenter.Segmenter.stream"], kernels["ncut"]):
        kinds = [section.kind.value for section in function.docstring.parsed]
        assert {"parameters", "raises", "examples"} <= set(kinds), (function.path, kinds)
    described = {one.name: one.value for one in patchcut["settings.Settings"].docstring.parsed[1].value}
    assert described["device"] == "'auto'" and described["min_score"] == "0.0"


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        every = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        texts = [text for name, text in every if name == language]
        found += [pytest.param(text, id=f"{name_of(page)}-{i}") for i, text in enumerate(texts, 1)]
    return found


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs patchcut[cpu]")
    if "import torch" in block:
        pytest.importorskip("torch", reason="the example is about torch")
    monkeypatch.chdir(tmp_path)
    photo = ROOT / "runtime/patchcut/samples/astronaut.jpg"
    shutil.copy(photo, "photo.jpg")
    video = cv2.VideoWriter("video.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 25, (128, 128))
    for _ in range(6):
        video.write(np.ascontiguousarray(cv2.resize(cv2.imread(str(photo)), (128, 128))))
    video.release()
    if '"results/' in block:
        write_all("photo.jpg", "results")
    exec(block, {})


def write_all(photo: str, folder: str) -> None:
    import patchcut
    from patchcut.output.folder import OutputFolder

    from tests.runtime.output.made_folders import WORDS

    with patchcut.open_source(photo) as source, OutputFolder(folder, WORDS) as out:
        for result in patchcut.load().results(source):
            out.write(result)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_names_its_language(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.M)
    assert set(fences[::2]) <= {"sh", "python", "text", "cmake", "cpp"} and not any(fences[1::2])


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in str(block.values[0]).splitlines()]
    found = [command.strip() for line in lines for command in line.partition(" #")[0].split("&&")]
    commands = {command for command in found if command.startswith(("patchcut ", "python -m bench "))}
    assert len(commands) > 20
    return sorted(commands)


@pytest.mark.parametrize("line", commands())
def test_commands_have_the_options_that_are_shown(line: str) -> None:
    from patchcut.cli.app import app as patchcut
    from patchcut_export.cli import app as export
    from patchcut_server.cli import app as serve

    from bench.__main__ import app as bench

    words = shlex.split(line.removeprefix("python -m "))
    starts = {"patchcut": patchcut, "bench": bench}
    added = {"export": export, "serve": serve}
    app = added.get(words[1]) if words[0] == "patchcut" else None
    del words[: 1 if app is None else 2]
    app = app or starts[line.removeprefix("python -m ").split()[0]]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)
