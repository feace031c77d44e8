"""Making, updating and searching an index; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patchcut.bundle import open_bundle
from patchcut.errors import OptionError, SourceError
from patchcut.heads.naming import unit
from patchcut.settings import Settings
from patchcut_export.errors import ExportError
from patchcut_export.progress import StepBar
from patchcut_export.retrieval import embedding, indexing
from patchcut_export.retrieval import index as index_module
from patchcut_export.retrieval.index import ClipIdentity, ImageIndex, IndexedImage, open_index, write_index
from patchcut_export.retrieval.near_duplicates import first_like

Update = Callable[..., indexing.IndexUpdate]


def _rows(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32))


def _made(folder: Path, rows: np.ndarray, likes: dict[int, int] | None = None) -> ImageIndex:
    folder.mkdir(exist_ok=True)
    shas = [f"{i:064x}" for i in range(len(rows))]
    images = [IndexedImage(f"/x/{i}.png", 1, 2, sha, (likes or {}).get(i, -1)) for i, sha in enumerate(shas)]
    write_index(folder, ClipIdentity("k" * 64, "toy", "/toy"), ["/x"], images, rows, 0.97)
    return open_index(folder)


@pytest.fixture
def update(small_clips: Callable[[str], Path], photos: Path, tmp_path: Path) -> Update:
    """update(folder, ...): the index of the photos, made or brought up to date."""

    def run(*folders: Path, clip: Path | None = None, **changes: Any) -> indexing.IndexUpdate:
        settings = Settings(device="cpu", engine="onnxruntime", threads=1)
        with open_bundle(clip or small_clips("vit")) as bundle, StepBar() as bar:
            out = changes.pop("out", tmp_path / "index")
            request = indexing.IndexRequest(folders or (photos,), bundle, out, settings, **changes)
            return indexing.update_index(request, bar)

    return run


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_search_is_exact(tmp_path: Path, dtype: Any) -> None:
    rows = _rows(500).astype(dtype)
    index = _made(tmp_path / "i", rows)
    for query in _rows(5, seed=1):
        cosines = rows.astype(np.float64) @ query
        order = np.argsort(-cosines)[:7]
        hits = index.search(3 * query, 7)
        assert [hit.row for hit in hits] == order.tolist()
        assert np.allclose([hit.cosine for hit in hits], cosines[order], atol=1e-5)
    assert len(index.search(rows[0], 1000)) == 500


def test_repeats_are_left_out(tmp_path: Path) -> None:
    rows = np.repeat(_rows(20), 6, axis=0)
    likes = {i: i - i % 6 for i in range(len(rows)) if i % 6}
    index = _made(tmp_path / "i", rows, likes)
    assert sorted(hit.row for hit in index.search(rows[0], 20)) == list(range(0, 120, 6))
    assert {hit.row for hit in index.search(rows[0], 6, repeats=True)} == set(range(6))
    assert index.groups()[0] == [0, 1, 2, 3, 4, 5]


def test_large_ones_are_searched_by_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch", reason="needs patchcut[concepts]")
    monkeypatch.setattr(index_module, "EXACT_BELOW", 1000)
    rows = _rows(2000, 32)
    index = _made(tmp_path / "i", rows)
    assert list((tmp_path / "i").glob("neighbours-*.usearch"))
    found = wanted = 0
    for query in _rows(20, 32, seed=1):
        exact = set(np.argsort(-(rows @ query))[:10].tolist())
        hits = index.search(query, 10)
        found, wanted = found + len(exact & {hit.row for hit in hits}), wanted + 10
        assert np.allclose([hit.cosine for hit in hits], [rows[hit.row] @ query for hit in hits], atol=1e-5)
    assert found >= 0.9 * wanted
    next((tmp_path / "i").glob("neighbours-*.usearch")).unlink()
    again = open_index(tmp_path / "i").search(rows[5], 3)  # every row is looked at, and that is said
    assert again[0].row == 5


def test_near_duplicates_repeat_the_first() -> None:
    rng = np.random.default_rng(0)
    base = _rows(40, 32)
    which = rng.integers(0, 40, 300)
    rows = unit((base[which] + 0.01 * rng.standard_normal((300, 32))).astype(np.float32))
    likes = first_like(rows, 0.97, {})
    firsts = {int(one): int(np.flatnonzero(which == one)[0]) for one in set(which)}
    assert likes.tolist() == [-1 if firsts[w] == i else firsts[w] for i, w in enumerate(which.tolist())]
    known = dict(enumerate(likes[:200].tolist()))
    assert np.array_equal(first_like(rows, 0.97, known), likes)


def test_only_new_and_changed_files_are_looked_at(update: Update, photos: Path, paint: Any) -> None:
    first = update()
    assert (first.added, len(first.index.images), first.problems) == (6, 6, ())
    names = {Path(image.path).name: first.index.embeddings[i] for i, image in enumerate(first.index.images)}
    assert update().added == 0
    (photos / "part0" / "0.png").rename(photos / "moved.png")  # known by its content
    os.utime(photos / "part0" / "2.png")
    (photos / "part1" / "1.png").unlink()
    assert cv2.imwrite(str(photos / "part1" / "3.png"), paint(33)[0])
    assert cv2.imwrite(str(photos / "new.jpg"), paint(7)[0])
    second = update()
    assert (second.added, second.dropped, len(second.index.images)) == (2, 3, 6)
    now = {Path(image.path).name: second.index.embeddings[i] for i, image in enumerate(second.index.images)}
    assert np.array_equal(now["moved.png"], names["0.png"]) and np.array_equal(now["2.png"], names["2.png"])
    assert not np.array_equal(now["3.png"], names["3.png"])
    assert now.keys() == {"moved.png", "2.png", "4.png", "3.png", "5.png", "new.jpg"}
    left = {path.name for path in second.index.folder.iterdir()}
    assert left == {"index.json", second.index.embeddings_path.name}


def test_a_stopped_run_goes_on(
    update: Update, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_BATCH", 2)
    append, calls = indexing._append, []

    def stop(file: Any, records: Any) -> None:
        append(file, records)
        calls.append(len(records))
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(indexing, "_append", stop)
    with pytest.raises(KeyboardInterrupt):
        update()
    (unfinished,) = (tmp_path / "index").glob("unfinished-*")
    assert not (tmp_path / "index" / "index.json").exists()
    with unfinished.open("ab") as file:
        file.write(b"cut short")
    assert update().added == 2
    whole = update(out=tmp_path / "other").index
    assert np.array_equal(open_index(tmp_path / "index").embeddings, whole.embeddings)


def test_copies_are_one_image(update: Update, photos: Path) -> None:
    shutil.copy(photos / "part0" / "0.png", photos / "zz.png")
    (photos / "bad.png").write_bytes(b"no picture")
    made = update(alike=0.9999)
    assert len(made.index.images) == 7 and made.added == 6
    (problem,) = made.problems
    assert "bad.png" in problem and "\n" not in problem
    groups = [{Path(made.index.images[row].path).name for row in rows} for rows in made.index.groups()]
    assert {"0.png", "zz.png"} in groups


def test_what_is_wrong_is_said(
    update: Update, photos: Path, small_clips: Callable[[str], Path], tmp_path: Path
) -> None:
    out, empty = tmp_path / "index", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="has no images; name a folder of images"):
        update(empty)
    with pytest.raises(SourceError, match="is not a folder"):
        update(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="alike"):
        update(alike=2.0)
    with pytest.raises(ExportError, match=r"is no index: it has no index.json; make one with"):
        open_index(empty)
    assert not out.exists()
    made = update().index
    with pytest.raises(ExportError, match=r"was made with another CLIP \(vit\)"):
        update(clip=small_clips("resnet"))
    with pytest.raises(OptionError, match="must be 32 finite numbers"):
        made.search(np.ones(5))
    path = made.embeddings_path
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ExportError, match=r"is damaged or cut short: .*; delete it, and run"):
        open_index(out)
    path.unlink()
    with pytest.raises(ExportError, match=r"embeddings-\w+.npy has gone"):
        open_index(out)
    path.write_bytes(whole)
    manifest = json.loads((out / "index.json").read_text())
    for change in ({"version": 9}, {"images": manifest["images"][:-1]}, {"dtype": "float32"}, {"clip": {}}):
        (out / "index.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(ExportError, match=r"newer|has gone|damaged"):
            open_index(out)
    (out / "index.json").write_text(json.dumps(manifest)[:-20])
    with pytest.raises(ExportError, match=r"index.json is damaged"):
        open_index(out)
