from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of data sets and videos: $PATCHCUT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("PATCHCUT_DATA", Path(__file__).parents[1].parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; name its folder in PATCHCUT_DATA")
    return folder
