from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of data sets and videos: $PATCHCUT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("PATCHCUT_DATA", Path(__file__).parents[1].parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; name its folder in PATCHCUT_DATA")
    return folder


@pytest.fixture(scope="session")
def docs_block() -> Callable[[str, str], str]:
    """docs_block(page, language): the only code in that language on a page of the docs."""

    def read(page: str, language: str) -> str:
        text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
        (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
        return str(block)

    return read


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `patchcut ARGS...` in this process and returns its exit status."""
    from patchcut.cli import app as cli

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["patchcut", *map(str, args)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return int(exited.value.code or 0)

    return run
