"""Bundles as they are written: whole or not at all, and what was in them stays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from patchcut import OutputError, open_bundle
from patchcut.bundle.writing import rewrite_bundle, with_head, write_archive

from tests.runtime import toy_bundle as toy


def test_a_copy_has_the_members_of_the_bundle_and_another_head(tmp_path: Path) -> None:
    with open_bundle(toy.write(tmp_path / "toy.patchcut")) as bundle:
        head = bundle.spec.heads[0].model_copy(
            update={"name": "other", "files": {"weights": "o.safetensors"}}
        )
        weights = {"o.safetensors": bundle.read("head.safetensors")}
        rewrite_bundle(bundle, tmp_path / "x.patchcut", with_head(bundle.spec, head), weights)
        with open_bundle(tmp_path / "x.patchcut") as copy:
            copy.verify()
            assert {one.name for one in copy.spec.heads} == {"gnn", "other"}
            for name in set(bundle.spec.files) - {"card.md"}:
                assert copy.read(name) == bundle.read(name)
            assert "## Head other" in copy.read("card.md").decode()


def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.patchcut"
    write_archive(path, "{}", {"a": b"1"})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        write_archive(path, "{}", {"a": b"2"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.patchcut"]
