from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patchcut.batch.listing import Found, Listing
from patchcut.batch.plan import Item, PlanRules, Shard, shards_of
from patchcut.errors import SourceError
from patchcut.output.folder import OutputFolder
from patchcut.pixels import AS_IT_COMES
from patchcut.sources.av_videos import PacketTimes

from tests.runtime.batch.made_sources import write_photos, write_video


def rules(shard_size: int = 10, every: int = 1, limit: int | None = None) -> PlanRules:
    return PlanRules(shard_size, every, limit, AS_IT_COMES)


def times_of(gaps: list[int], keys: list[bool]) -> PacketTimes:
    shown = np.cumsum(np.array(gaps, np.int64))
    wanted = np.array([True, *keys[1:]])[: len(shown)]
    return PacketTimes(shown, shown[wanted], Fraction(1, 1000))


def frames_of(shards: list[Shard]) -> list[tuple[str, int, int | None]]:
    """Path, index and tick of each frame that is known."""
    found = []
    for item in (item for shard in shards for item in shard.items):
        ticks = [None] if item.ticks is None else item.times()
        found += [(item.path, item.first + i * item.every, tick) for i, tick in enumerate(ticks)]
    return found


videos = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=60).map(
    lambda frames: times_of([gap for gap, _ in frames], [key for _, key in frames])
)
listings = st.lists(st.one_of(st.none(), videos), max_size=12)


@settings(deadline=None)
@given(listings, st.integers(1, 20), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 40)))
def test_each_frame_is_in_one_shard(
    listing: list[PacketTimes | None], shard_size: int, every: int, limit: int | None
) -> None:
    found = [
        Found(f"{i}", "photo") if times is None else Found(f"{i}", "video", times)
        for i, times in enumerate(listing)
    ]
    expected: list[tuple[str, int, int | None]] = []
    photos = 0
    for one in found:
        if one.times is None:
            expected += [(one.path, 0, None)] if photos % every == 0 else []
            photos += 1
        else:
            shown = one.times.shown.tolist()
            expected += [(one.path, i, shown[i]) for i in range(0, len(shown), every)]
    shards = list(shards_of(found, rules(shard_size, every, limit)))
    assert frames_of(shards) == expected[:limit]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert shard.items and Shard.of_line(shard.line()) == shard
        longest = max(item.frames for item in shard.items)
        assert shard.frames <= max(shard_size, longest)


def test_a_piece_begins_at_a_key_frame_and_fills_shards() -> None:
    times = times_of([40] * 100, [i % 12 == 0 for i in range(100)])
    shards = list(shards_of([Found("x.mp4", "video", times)], rules(30)))
    assert [shard.frames for shard in shards] == [24, 24, 24, 28]
    assert [shard.items[0].first for shard in shards] == [0, 24, 48, 72]
    assert shards[1].items == (Item("x.mp4", ((40 * 25, 40, 24),), 24),), "a constant rate is one run"


def test_intra_coded_video_of_a_constant_rate_is_one_run() -> None:
    times = times_of([40] * 90, [True] * 90)
    shards = list(shards_of([Found("x.mov", "video", times)], rules(50)))
    assert [shard.items[0].ticks for shard in shards] == [((40, 40, 50),), ((40 * 51, 40, 40),)]


def test_what_cannot_be_cut_is_a_shard_of_its_own() -> None:
    found = [Found("a", "photo"), Found("b.avi", "video"), Found("c", "photo"), Found("d", "photo")]
    shards = list(shards_of(found, rules(10)))
    assert [[item.path for item in shard.items] for shard in shards] == [["a"], ["b.avi"], ["c", "d"]]
    (_, limited) = list(shards_of(found, rules(10, limit=2)))
    assert limited.items == (Item("b.avi", whole=True, limit=1),)


def test_files_are_found_once_folder_by_folder(tmp_path: Path) -> None:
    write_photos(tmp_path / "a/deep", 2)
    write_photos(tmp_path / "a", 2)
    write_photos(tmp_path / "b", 1)
    (tmp_path / "a/.hidden.png").write_bytes(b"x")
    (tmp_path / "a/notes.txt").write_text("x")
    (tmp_path / "a/link").symlink_to(tmp_path / "b")
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "nowhere.png")
    named = [str(tmp_path / one) for one in ("a/0001.png", "a", "b", "a/deep", "a/*.png")]
    listing = Listing(named)
    assert listing.root == tmp_path
    paths = [one.path for one in listing]
    assert paths == ["a/0001.png", "a/0000.png", "a/deep/0000.png", "a/deep/0001.png", "b/0000.png"]
    assert len(listing.problems) == 1 and "gone.png] is a link that leads nowhere" in listing.problems[0]


def test_results_of_runs_are_left_out(tmp_path: Path, toy_segmenter: object) -> None:
    import patchcut

    write_photos(tmp_path, 2)
    assert isinstance(toy_segmenter, patchcut.Segmenter)
    with (
        patchcut.open_source(tmp_path) as source,
        OutputFolder(tmp_path / "out", ["overlay", "labels"]) as folder,
    ):
        for result in toy_segmenter.results(source):
            folder.write(result)
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    assert [one.path for one in Listing([str(tmp_path)])] == ["0000.png", "0001.png"]


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    write_photos(tmp_path, 1)
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "0000.png").rename(tmp_path / odd)
    shards = list(shards_of(Listing([str(tmp_path)]), rules()))
    assert Shard.of_line(shards[0].line()).items[0].path == odd


def test_videos_keep_their_place_among_photos(tmp_path: Path) -> None:
    write_photos(tmp_path, 1)
    write_video(tmp_path / "0000b.mp4", 20)
    (tmp_path / "0000c.mp4").write_bytes(b"no video")
    write_photos(tmp_path, 1, first=1)
    found = list(Listing([str(tmp_path)]))
    assert [(one.path, one.kind) for one in found] == [
        ("0000.png", "photo"),
        ("0000b.mp4", "video"),
        ("0000c.mp4", "video"),
        ("0001.png", "photo"),
    ]
    assert found[1].times is not None and len(found[1].times.shown) == 20
    assert found[2].times is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere", r"\[.*nowhere\] does not exist"),
        ("-", r"\[source\] - is no file, .*`patchcut run` takes the rest"),
        ("rtsp://host/x", r"\[source\] rtsp://host/x is no file"),
        ("*.jpg", r"matches no file"),
    ],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=told):
        Listing([text])
