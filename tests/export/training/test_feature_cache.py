"""A cache that is interrupted, damaged, foreign, or on a full disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")
pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")

from patchcut.bundle import open_bundle
from patchcut.errors import OptionError, OutputError, PatchcutError, SourceError
from patchcut.frames import Frame
from patchcut.settings import Settings
from patchcut.sources.photos import read_frame
from patchcut.stages import Extractor
from patchcut_export.backbones.spec import Component, FeatureSpec
from patchcut_export.training import extraction, feature_cache
from patchcut_export.training.feature_cache import CachedFeatures, cache_features

Cache = Callable[..., CachedFeatures]


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def cache(backbone_bundle: Path, photos: Path, tmp_path: Path) -> Cache:
    """cache(...): the cache of six photos in tmp_path/features, with anything changed."""

    def make(
        *,
        images: Path = photos,
        folder: Path = tmp_path / "features",
        size: int = 64,
        advance: Callable[[int, int], None] = quiet,
    ) -> CachedFeatures:
        with open_bundle(backbone_bundle) as bundle:
            extractor = Extractor.open(bundle, Settings(size=size))
            return cache_features(images, bundle, extractor, folder, advance)

    return make


class Interruption(Exception):
    pass


def stop_at(number: int) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        if done == number:
            raise Interruption

    return advance


def test_rows_are_the_images_in_order(cache: Cache, photos: Path) -> None:
    seen = []
    cached = cache(advance=lambda done, total: seen.append((done, total)))
    assert cached.images == tuple(f"part{s % 2}/{s}.png" for s in (0, 2, 4, 1, 3, 5))
    assert cached.features.shape == (6, 16, 64)
    assert cached.features.dtype == np.float16
    assert cached.grid_hw == (4, 4)
    assert cached.problems == ()
    assert seen == [(i, 6) for i in range(1, 7)]
    alone = cache(images=photos / "part1", folder=photos.parent / "alone")
    np.testing.assert_array_equal(alone.features, cached.features[3:])
    assert np.ptp(cached.features.astype(np.float32), axis=0).max() > 0.1, "all images look the same"


@pytest.mark.parametrize("flush_every", [1, 2, 64])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_cache_goes_on(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_every: int, stop: int
) -> None:
    whole = cache(folder=tmp_path / "whole")
    monkeypatch.setattr(feature_cache, "_FLUSH_EVERY", flush_every)
    with pytest.raises(Interruption):
        cache(advance=stop_at(stop))
    seen: list[int] = []
    resumed = cache(advance=lambda done, total: seen.append(done))
    np.testing.assert_array_equal(resumed.features, whole.features)
    assert resumed.images == whole.images
    assert seen == list(range(stop // flush_every * flush_every + 1, 7))


def test_a_whole_cache_is_not_made_again(cache: Cache) -> None:
    first = cache()
    second = cache(advance=stop_at(0))
    np.testing.assert_array_equal(first.features, second.features)


def resident_bytes(file: Path) -> int:
    """How much of a file this process has mapped and in memory."""
    sizes, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            sizes += int(line.split()[1]) * 1024
    return sizes


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux's /proc/self/smaps")
def test_features_that_were_taken_do_not_stay_in_memory(cache: Cache, tmp_path: Path) -> None:
    cached = cache()
    everything = np.array(cached.features)
    assert resident_bytes(tmp_path / "features" / "features.npy") > 0
    for rows in (slice(2, 4), np.array([5, 0])):
        np.testing.assert_array_equal(cached.take(rows), everything[rows])
    assert resident_bytes(tmp_path / "features" / "features.npy") == 0
    in_memory = dataclasses.replace(cached, features=everything).take(slice(0, 1))
    in_memory[:] = 0
    assert np.any(everything[0] != 0), "a copy was asked for"


def test_unreadable_images_are_skipped_and_named(
    cache: Cache, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = cache(folder=tmp_path / "good")
    (photos / "part0" / "1.png").write_bytes(b"no picture")
    (photos / "part1" / "9.jpg").write_bytes(b"")
    monkeypatch.setattr(feature_cache, "_FLUSH_EVERY", 1)
    with pytest.raises(Interruption):
        cache(advance=stop_at(4))
    cached = cache()
    assert cached.images == good.images
    np.testing.assert_array_equal(cached.features, good.features)
    assert len(cached.problems) == 2
    assert "part0/1.png" in cached.problems[0]
    assert "part1/9.jpg" in cached.problems[1]


def test_only_unreadable_images_are_an_error(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(SourceError, match=r"none of its images can be read; .*a.png"):
            cache(images=folder)


def test_an_empty_folder_is_an_error(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no photos"):
        cache(images=tmp_path / "empty")


def test_another_size_or_folder_is_refused(cache: Cache, photos: Path) -> None:
    cache()
    for change in ({"size": 96}, {"images": photos / "part0"}):
        with pytest.raises(OutputError, match="other images, other sets or another backbone; name another"):
            cache(**change)


def test_other_images_under_the_same_name_of_folder_are_refused(cache: Cache, photos: Path) -> None:
    cache()
    (photos / "part0" / "2.png").rename(photos / "part0" / "new.png")
    with pytest.raises(OutputError, match="other images"):
        cache()


def replace_keeping_size_and_time(path: Path) -> None:
    """Another picture, whose file is as long and as old."""
    data, times = path.read_bytes(), path.stat()
    path.write_bytes(data[:-20] + b"x" * 8 + data[-12:])
    assert path.stat().st_size == times.st_size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("which", [["part1/5.png"], [f"part{s % 2}/{s}.png" for s in range(6)]])
def test_other_photos_under_the_same_names_are_refused(cache: Cache, photos: Path, which: list[str]) -> None:
    cached = cache()
    assert len(set(cached.contents)) == 6
    for name in which:
        replace_keeping_size_and_time(photos / name)
    with pytest.raises(OutputError, match="other images, other sets or another backbone; name another"):
        cache()


def test_photos_that_were_only_touched_are_the_same(cache: Cache, photos: Path) -> None:
    cached = cache()
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    assert cache(advance=stop_at(0)).contents == cached.contents


def test_a_cache_that_does_not_tell_what_the_photos_held_is_refused(cache: Cache, tmp_path: Path) -> None:
    cache()
    edit_state(tmp_path / "features", lambda fields: fields.pop("contents"))
    with pytest.raises(OutputError, match="other images"):
        cache()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b""),
        ("state.json", b"[1]"),
        ("state.json", b"{"),
        ("state.json", b'{"key": {"images": "x"}, "names": []}'),
        ("state.json", b"\xff\xfe"),
        ("features.npy", b""),
        ("features.npy", b"\x93NUMPY"),
        ("features.npy", None),
    ],
)
def test_a_damaged_cache_is_one_line(cache: Cache, tmp_path: Path, file: str, content: bytes | None) -> None:
    cache()
    path = tmp_path / "features" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(OutputError) as raised:
        cache()
    assert f"{path} is damaged" in str(raised.value)
    assert str(raised.value).endswith(f"delete {path.parent}")


def test_a_table_cut_short_or_of_another_shape_is_damaged(cache: Cache, tmp_path: Path) -> None:
    cache()
    path = tmp_path / "features" / "features.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(OutputError, match="is damaged"):
        cache()
    np.save(path, np.zeros((6, 16, 3), np.float16))
    with pytest.raises(OutputError, match=r"is damaged: it is float16 \(6, 16, 3\)"):
        cache()


def edit_state(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "state.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_a_state_that_names_an_image_twice_is_damaged(cache: Cache, tmp_path: Path) -> None:
    cache()
    edit_state(tmp_path / "features", lambda fields: fields["names"].append(fields["names"][0]))
    with pytest.raises(OutputError, match="is damaged: it names an image twice"):
        cache()


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", (0.5, 0.5, 0.5)), ("std", (0.5, 0.5, 0.5)), ("fit", "letterbox"), ("output", "tokens")],
)
def test_another_preprocessing_is_refused(cache: Cache, tmp_path: Path, name: str, value: object) -> None:
    cache()
    edit_state(tmp_path / "features", lambda fields: fields["key"].update({name: value}))
    with pytest.raises(OutputError, match="other images, other sets or another backbone"):
        cache()


@pytest.mark.parametrize(
    "change", [{"fit": "letterbox"}, {"mean": (0.1, 0.4, 0.4)}, {"std": (1.0, 1.0, 1.0)}]
)
def test_an_extractor_that_prepares_images_otherwise_is_refused(
    cache: Cache, backbone_bundle: Path, photos: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    cache()
    with open_bundle(backbone_bundle) as bundle:
        extractor = Extractor.open(bundle, Settings(size=64))
        other = Extractor(extractor.backbone.model_copy(update=change), extractor.engine)
        with pytest.raises(OutputError, match="other images, other sets or another backbone"):
            cache_features(photos, bundle, other, tmp_path / "features", quiet)


def test_a_cache_that_does_not_tell_its_preprocessing_is_read(cache: Cache, tmp_path: Path) -> None:
    made = cache()

    def forget(fields: dict[str, Any]) -> None:
        fields["seen"] = len(fields["names"])
        for name in ("mean", "std", "fit"):  # and no output, when every graph's was called "features"
            del fields["key"][name]

    edit_state(tmp_path / "features", forget)
    np.testing.assert_array_equal(cache(advance=stop_at(1)).features, made.features)


def test_resuming_decodes_only_what_is_missing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(feature_cache, "_FLUSH_EVERY", 1)
    with pytest.raises(Interruption):
        cache(advance=stop_at(4))
    decoded: list[str | None] = []

    def read(path: Path, name: str) -> Frame:
        decoded.append(name)
        return read_frame(path, name)

    monkeypatch.setattr(extraction, "read_frame", read)
    cache()
    assert decoded == ["part1/3.png", "part1/5.png"]
    cache()
    assert len(decoded) == 2


def test_folders_that_are_linked_to_are_looked_at(cache: Cache, photos: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "other").symlink_to(photos)
    images = cache(images=links).images
    assert len(images) == 6 and all(name.startswith("other/part") for name in images)


def test_hidden_files_are_no_images(cache: Cache, photos: Path) -> None:
    (photos / ".thumbnails").mkdir()
    for hidden in (photos / ".thumbnails" / "0.png", photos / "part0" / ".0.png"):
        hidden.write_bytes((photos / "part0" / "0.png").read_bytes())
    assert len(cache().images) == 6


def test_a_single_photo_is_no_folder(cache: Cache, photos: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"):
        cache(images=photos / "part0" / "0.png")


def test_a_full_disk_is_one_line(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError) as raised:
        cache()
    assert isinstance(raised.value, PatchcutError)
    assert "No space left on device; free some space" in str(raised.value)
    assert list((tmp_path / "features").iterdir()) == []
    monkeypatch.undo()
    assert len(cache().images) == 6


def test_a_file_in_the_folders_place_is_one_line(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "features").touch()
    with pytest.raises(OutputError, match="is a file; choose a folder"):
        cache()


SETS = ("key", "early", "cls")


@pytest.fixture(scope="session")
def sets_bundle(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with keys of two layers, of 64 and 128 dimensions, and the class token."""
    early = FeatureSpec((Component("key", 0), Component("token", 0)))
    more = {"early": early, "cls": FeatureSpec((Component("cls", 1),))}
    return build(tmp_path_factory.mktemp("sets") / "sets.patchcut", sizes=(64,), precision="fp32", more=more)


@pytest.fixture
def cache_sets(sets_bundle: Path, photos: Path, tmp_path: Path) -> Cache:
    """cache_sets(*sets): some sets of six photos, in tmp_path/features."""

    def make(
        *sets: str,
        folder: Path = tmp_path / "features",
        advance: Callable[[int, int], None] = quiet,
        needs: tuple[str, ...] = SETS,
    ) -> CachedFeatures:
        with open_bundle(sets_bundle) as bundle:
            extractor = Extractor.open(bundle, Settings(), needs=needs)
            return cache_features(photos, bundle, extractor, folder, advance, sets or None)

    return make


def assert_same_sets(a: CachedFeatures, b: CachedFeatures) -> None:
    assert list(a.sets) == list(b.sets)
    for name in a.sets:
        np.testing.assert_array_equal(a.sets[name], b.sets[name])


def test_several_sets_come_from_one_pass(
    cache_sets: Cache, sets_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    cached = cache_sets(*SETS)
    assert {name: one.shape for name, one in cached.sets.items()} == {
        "key": (6, 16, 64),
        "early": (6, 16, 128),
        "cls": (6, 1, 64),
    }
    assert cached.features is cached.sets["key"]
    files = {path.name for path in (tmp_path / "features").iterdir()}
    assert files == {"features.npy", "features-early.npy", "features-cls.npy", "state.json"}
    with open_bundle(sets_bundle) as bundle:
        extractor = Extractor.open(bundle, Settings(), needs=SETS)
        for i, name in enumerate(cached.images):
            made = extractor([read_frame(photos / name, name)])
            for one in SETS:
                expected = np.asarray(made[one])[0].astype(np.float16)
                np.testing.assert_array_equal(cached.sets[one][i], expected)
    whole = cached.sets["cls"][:, 0].astype(np.float32)
    assert np.ptp(whole, axis=0).max() > 0.1, "all images look the same"


def test_rows_of_a_set_are_taken_by_its_name(cache_sets: Cache) -> None:
    cached = cache_sets(*SETS)
    rows = np.array([4, 1])
    for name in SETS:
        np.testing.assert_array_equal(cached.take(rows, name), cached.sets[name][rows])
    np.testing.assert_array_equal(cached.take(rows), cached.sets["key"][rows])


def test_the_first_set_may_be_any(cache_sets: Cache, tmp_path: Path) -> None:
    whole = cache_sets(*SETS)
    turned = cache_sets("cls", "key", folder=tmp_path / "turned")
    assert list(turned.sets) == ["cls", "key"]
    np.testing.assert_array_equal(turned.features, whole.sets["cls"])
    np.testing.assert_array_equal(turned.sets["key"], whole.features)


@pytest.mark.parametrize("flush_every", [1, 2, 64])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_cache_of_several_sets_goes_on(
    cache_sets: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_every: int, stop: int
) -> None:
    whole = cache_sets(*SETS, folder=tmp_path / "whole")
    monkeypatch.setattr(feature_cache, "_FLUSH_EVERY", flush_every)
    with pytest.raises(Interruption):
        cache_sets(*SETS, advance=stop_at(stop))
    seen: list[int] = []
    assert_same_sets(cache_sets(*SETS, advance=lambda done, total: seen.append(done)), whole)
    assert seen == list(range(stop // flush_every * flush_every + 1, 7))


def test_a_cache_of_one_set_from_before_there_were_more_is_read(cache_sets: Cache, tmp_path: Path) -> None:
    made = cache_sets("key")
    assert list(made.sets) == ["key"]
    edit_state(tmp_path / "features", lambda fields: fields["key"].pop("sets"))
    assert_same_sets(cache_sets("key", advance=stop_at(1)), made)
    assert_same_sets(cache_sets(advance=stop_at(1)), made)
    assert_same_sets(cache_sets(advance=stop_at(1), needs=("key",)), made)


@pytest.mark.parametrize(
    "others", [("key",), ("key", "early"), ("early", "key", "cls"), ("cls", "early", "key")]
)
def test_a_cache_of_other_sets_is_refused(cache_sets: Cache, others: tuple[str, ...]) -> None:
    cache_sets(*SETS)
    with pytest.raises(OutputError, match="other sets"):
        cache_sets(*others)
    assert_same_sets(cache_sets("key", "cls", "early", advance=stop_at(1)), cache_sets("key", "cls", "early"))


def test_a_set_that_is_not_made_is_named(cache_sets: Cache, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r'must be one of "key", "cls", got .early.'):
        cache_sets("key", "early", needs=("key", "cls"))
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_any_damaged_table_is_one_line(cache_sets: Cache, tmp_path: Path, content: bytes | None) -> None:
    cache_sets(*SETS)
    path = tmp_path / "features" / "features-cls.npy"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(OutputError) as raised:
        cache_sets(*SETS)
    assert f"{path} is damaged" in str(raised.value)
    np.save(path, np.zeros((6, 16, 64), np.float16))
    with pytest.raises(
        OutputError, match=r"is damaged: it is float16 \(6, 16, 64\), not float16 \(6, 1, 64\)"
    ):
        cache_sets(*SETS)


def test_a_disk_that_is_full_at_the_last_table_leaves_none(
    cache_sets: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate, calls = os.posix_fallocate, []

    def full(*where: int) -> None:
        calls.append(where)
        if len(calls) == len(SETS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(*where)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        cache_sets(*SETS)
    assert list((tmp_path / "features").iterdir()) == []
    monkeypatch.undo()
    assert len(cache_sets(*SETS).images) == 6


def test_a_set_may_have_a_name_that_no_file_can_have(
    cache_sets: Cache, sets_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    plain = cache_sets(*SETS)
    with open_bundle(sets_bundle) as bundle:
        extractor = Extractor.open(bundle, Settings(), needs=SETS)
        odd = {"key": "key", "early": "../../early", "cls": "cls/é"}
        features = {odd[name]: one for name, one in extractor.backbone.features.items()}
        renamed = extractor.backbone.model_copy(update={"features": features})

        def call(frames: list[Frame]) -> dict[str, object]:
            made = extractor(frames)
            return {odd[name]: made[name] for name in SETS}

        class Renamed:
            backbone, graph = renamed, extractor.graph
            __call__ = staticmethod(call)

        folder = tmp_path / "odd"
        cached = cache_features(photos, bundle, Renamed(), folder, quiet, tuple(features))  # type: ignore[arg-type]
    assert {path.parent for path in tmp_path.rglob("*early*.npy")} == {folder, tmp_path / "features"}
    for name in SETS:
        np.testing.assert_array_equal(cached.sets[odd[name]], plain.sets[name])


def test_only_the_named_images_are_looked_at(
    backbone_bundle: Path, photos: Path, tmp_path: Path, cache: Cache
) -> None:
    whole = cache(folder=tmp_path / "whole")
    names = ["part1/5.png", "part0/2.png", "part1/nowhere.png"]
    with open_bundle(backbone_bundle) as bundle:
        extractor = Extractor.open(bundle, Settings(size=64))

        def some(names: list[str]) -> CachedFeatures:
            return cache_features(photos, bundle, extractor, tmp_path / "some", quiet, names=names)

        found = some(names)
        assert found.images == ("part0/2.png", "part1/5.png")
        rows = [whole.images.index(name) for name in found.images]
        np.testing.assert_array_equal(found.features, whole.features[rows])
        with pytest.raises(OutputError, match="other images"):
            some(["part1/5.png", "part0/0.png"])
        with pytest.raises(OutputError, match="other images"):
            some([*whole.images])
