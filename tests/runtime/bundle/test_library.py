"""Names of bundles."""

from __future__ import annotations

from pathlib import Path

import patchcut
import pytest
from patchcut import BundleError
from patchcut.bundle import embedded_bundles, find_bundle, library


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with the bundles "default" and "tiny", and an empty working directory."""
    (tmp_path / "embedded").mkdir()
    (tmp_path / "here").mkdir()
    for name in ("tiny.patchcut", "default.patchcut", "SOURCES.md"):
        (tmp_path / "embedded" / name).touch()
    monkeypatch.setattr(library, "FOLDER", tmp_path / "embedded")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "embedded"


def test_embedded_bundles_are_found_by_name(folder: Path) -> None:
    assert embedded_bundles() == {
        "default": folder / "default.patchcut",
        "tiny": folder / "tiny.patchcut",
    }
    assert find_bundle() == find_bundle("default") == folder / "default.patchcut"
    assert find_bundle("tiny") == folder / "tiny.patchcut"


@pytest.mark.parametrize("path", ["tiny.patchcut", "./tiny", "some/tiny", "/tiny", "../embedded/tiny"])
def test_a_suffix_or_a_separator_makes_a_path(folder: Path, path: str) -> None:
    assert find_bundle(path) == Path(path)
    assert find_bundle(Path("a") / path) == Path("a") / path


def test_a_file_without_suffix_is_a_path_unless_a_bundle_is_called_so(folder: Path) -> None:
    for name in ("mine", "tiny"):
        Path(name).touch()
    assert find_bundle("mine") == Path("mine")
    assert find_bundle("tiny") == folder / "tiny.patchcut"


def test_an_unknown_name_is_told_the_known_ones(folder: Path) -> None:
    with pytest.raises(BundleError) as caught:
        patchcut.open_bundle("tinny")
    assert str(caught.value) == (
        '[bundle] no embedded bundle is called "tinny", and no file is; '
        "choose one of default, tiny, or pass the path of a .patchcut file"
    )


def test_no_embedded_bundle(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(BundleError, match="no embedded bundle; pass the path"):
        patchcut.load()


def test_the_packages_own(embedded_bundle: Path) -> None:
    assert embedded_bundles()["default"] == embedded_bundle
    with patchcut.open_bundle("default") as bundle:
        assert bundle.path == embedded_bundle
