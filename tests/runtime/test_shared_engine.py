"""Segmenters with other settings that work with one engine."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import Segmenter
from patchcut.errors import BundleError, OptionError

from tests.runtime import toy_bundle as toy


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "kmeans:k=3"},
        {"mode": "scene", "parts": "kmeans:k=2"},
        {"refine": "guided"},
        {"min_score": 0.3, "single": True},
        {"nothing_below": 0.2},
        {"color": "rgb"},
    ],
    ids=" ".join,
)
def test_it_finds_what_one_that_was_loaded_so_finds(
    toy_bundle: Path, toy_segmenter: Segmenter, photo: np.ndarray, changes: dict[str, object]
) -> None:
    before = toy_segmenter(photo)
    other = toy_segmenter.with_settings(**changes)
    want = patchcut.load(toy_bundle, **changes)(photo)
    assert len(before) > 1
    np.testing.assert_array_equal(other(photo).label_map, want.label_map)
    np.testing.assert_array_equal(other(photo).boxes, want.boxes)
    assert other.extractor is toy_segmenter.extractor
    assert all(getattr(other.settings, name) == value for name, value in changes.items())
    np.testing.assert_array_equal(toy_segmenter(photo).region_ids, before.region_ids)


def test_without_another_head_the_head_is_the_same(toy_segmenter: Segmenter) -> None:
    assert toy_segmenter.with_settings(min_score=0.5).head is toy_segmenter.head
    assert toy_segmenter.with_settings(head="kmeans").with_settings(single=True).head.name == "kmeans"


def test_calibrated_limits_come_back(embedded_segmenter: Segmenter) -> None:
    all_told = embedded_segmenter.with_settings(nothing_below=0.0)
    assert all_told.masks.rules.nothing_below == 0 < embedded_segmenter.masks.rules.nothing_below
    again = all_told.with_settings(nothing_below=None)
    assert again.masks.rules == embedded_segmenter.masks.rules


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"device": "cpu"},
            r"\[device\] is the engine's, which is shared; what may differ is head",
        ),
        ({"size": 168}, r"\[size\]"),
        ({"bundle": "default"}, r"\[bundle\]"),
        ({"nonsense": 1}, r"\[nonsense\]"),
        ({"min_score": 3}, r"\[min_score\] must be a number"),
        ({"head": "levels"}, r"\[head\]"),
    ],
)
def test_what_cannot_differ(toy_segmenter: Segmenter, changes: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        toy_segmenter.with_settings(**changes)


def test_a_head_that_needs_more_than_is_there(tmp_path: Path) -> None:
    members = toy.members(tokens=True)
    path = toy.write(tmp_path / "two.patchcut", members, toy.manifest(members, tokens=True))
    seg = patchcut.load(path)

    class OfTokens:
        name, labels, needs, devices = "mine", ("background", "it"), ("token",), ("cpu",)

        def __call__(self, features: object) -> object:
            raise AssertionError

    with pytest.raises(
        OptionError, match=r"\[head\] needs the features token, this segmenter was opened for"
    ):
        seg.with_settings(head=OfTokens())


def test_a_file_that_became_another_bundle(tmp_path: Path, toy_bundle: Path, embedded_bundle: Path) -> None:
    path = tmp_path / "x.patchcut"
    path.write_bytes(toy_bundle.read_bytes())
    seg = patchcut.load(path)
    path.write_bytes(embedded_bundle.read_bytes())
    assert seg.with_settings(single=True).settings.single, "that reads nothing of the file"
    with pytest.raises(BundleError, match=r"holds another bundle than when it was loaded; load it again"):
        seg.with_settings(head="kmeans")


def test_two_at_once_are_as_one_after_the_other(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    both = [toy_segmenter, toy_segmenter.with_settings(head="kmeans:k=3", refine="guided")]
    want = [seg(photo).label_map for seg in both]
    assert not np.array_equal(*want)
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(10) if not np.array_equal(both[i](photo).label_map, want[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_copy_of_one_is_opened_from_its_settings(toy_segmenter: Segmenter, photo: np.ndarray) -> None:
    import copy

    other = toy_segmenter.with_settings(head="kmeans:k=3")
    own = copy.copy(other)
    assert own.extractor is not other.extractor
    np.testing.assert_array_equal(own(photo).label_map, other(photo).label_map)
