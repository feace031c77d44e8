from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.sources.files import encoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good photos at two depths; one cut short, one empty, one text; two that are not to be seen."""
    (tmp_path / "b").mkdir()
    (tmp_path / "img10.jpg").write_bytes(encoded(".jpg"))
    (tmp_path / "img2.JPG").write_bytes(encoded(".jpg"))
    (tmp_path / "b" / "übung [1].png").write_bytes(encoded(".png"))
    (tmp_path / "cut.jpg").write_bytes(encoded(".jpg")[:-200])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.jpg").write_text("hello")
    return tmp_path
