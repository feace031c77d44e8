"""Scores: plain or calibrated, and the answer that there is nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patchcut import open_bundle
from patchcut.bundle import CalibrationSpec
from patchcut.cli.demo import SAMPLES
from patchcut.heads import FITTED
from patchcut.sources.photos import read_photo
from patchcut.stages.regions import Regions, Rules, divide, find_components, rank

from tests.runtime import toy_bundle as toy
from tests.runtime.results import check_consistent, made_result

CALIBRATION = CalibrationSpec(weights=(1.5, 0.4, -1.0, 2.0), bias=0.5, nothing_below=0.3)
SHAPE = (40, 60)


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """A label map with three regions, and the confidence of each pixel."""
    label_map = np.zeros(SHAPE, np.int32)
    label_map[:10, :20] = 1  # in a corner: two sides
    label_map[15:35, 25:45] = 2  # inside
    label_map[30:40, 50:60] = np.tri(10, dtype=np.int32)  # a triangle in another corner
    confidence = np.where(label_map == 1, 0.6, 0.9).astype(np.float32)
    return label_map, confidence


def find_regions(label_map: np.ndarray, confidence: np.ndarray, rules: Rules) -> Regions:
    return rank(find_components(label_map, confidence, 1), rules)


def expected_score(confidence: float, area: int, sides: int, extent: float) -> float:
    features = (np.log(confidence / (1 - confidence)), np.log(area / (SHAPE[0] * SHAPE[1])), sides, extent)
    logit = np.dot(features, CALIBRATION.weights) + CALIBRATION.bias
    return float(1 / (1 + np.exp(-logit)))


def test_a_calibration_weighs_what_a_region_looks_like() -> None:
    regions = find_regions(*blobs(), Rules(calibration=CALIBRATION))
    expected = {
        200: expected_score(0.6, 200, 2, 1.0),
        400: expected_score(0.9, 400, 0, 1.0),
        55: expected_score(0.6, 55, 2, 0.55),
    }
    assert dict(zip(regions.areas.tolist(), regions.scores.tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-4
    )
    assert np.all(np.diff(regions.scores) <= 0) and np.ptp(regions.scores) > 0.3


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_no_score_depends_on_pixels_that_are_kept(calibration: CalibrationSpec | None) -> None:
    """A hole in one region is filled, another region is kept whole; boxes stay, areas grow."""
    label_map, confidence = blobs()
    label_map[20:25, 30:35] = 0
    rules = Rules(calibration=calibration)
    plain = find_regions(label_map.copy(), confidence, rules)
    kept = np.zeros(SHAPE, bool)
    kept[20:25, 30:35] = kept[:10, :20] = True
    label_map[20:25, 30:35] = 2
    confidence = np.where(kept & (label_map == 2), 0.3, confidence).astype(np.float32)
    held = rank(find_components(label_map, confidence, 1, np.flatnonzero(kept)), rules)
    np.testing.assert_allclose(held.scores, plain.scores, rtol=1e-4)
    np.testing.assert_array_equal(held.boxes, plain.boxes)
    assert (held.areas - plain.areas).tolist() == np.where(held.region_labels == 2, 25, 0).tolist()
    assert held.scores.max() > find_regions(label_map, confidence, rules).scores.max() + 1e-3


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_regions_below_the_limit_are_none_whatever_is_beside_them(
    calibration: CalibrationSpec | None,
) -> None:
    everything = find_regions(*blobs(), Rules(calibration=calibration))
    best, worst = float(everything.scores[0]), float(everything.scores[-1])
    for limit, count in (
        (0.0, 3),
        (worst, 3),
        (worst + 1e-3, 2),
        (best, 1),
        (np.nextafter(best, 1) + 1e-6, 0),
    ):
        regions = find_regions(*blobs(), Rules(nothing_below=limit, calibration=calibration))
        np.testing.assert_array_equal(regions.scores, everything.scores[:count])
        kept = np.where(everything.region_ids <= count, everything.region_ids, 0)
        np.testing.assert_array_equal(regions.region_ids, kept)
        np.testing.assert_array_equal(regions.label_map > 0, kept > 0)


@given(asked=st.floats(0, 1, width=32), limit=st.floats(0, 1, width=32))
def test_the_higher_of_both_limits_holds(asked: float, limit: float) -> None:
    both = find_regions(*blobs(), Rules(min_score=asked, nothing_below=limit, calibration=CALIBRATION))
    alone = find_regions(*blobs(), Rules(min_score=max(asked, limit), calibration=CALIBRATION))
    np.testing.assert_array_equal(both.scores, alone.scores)
    np.testing.assert_array_equal(both.region_ids, alone.region_ids)


def test_a_region_is_one_or_none_whoever_stands_beside_it() -> None:
    label_map, confidence = blobs()
    both = find_regions(label_map.copy(), confidence, Rules(calibration=CALIBRATION))
    limit = float(both.scores[:2].mean())  # between the best region and the others
    rules = Rules(nothing_below=limit, calibration=CALIBRATION)
    best = both.region_ids == 1
    assert find_regions(label_map.copy(), confidence, rules).areas.tolist() == [both.areas[0]]
    without_best = np.where(best, 0, label_map).astype(np.int32)
    assert not len(find_regions(without_best, confidence, rules).areas)


def test_a_lowest_score_is_for_each_region() -> None:
    everything = find_regions(*blobs(), Rules(calibration=CALIBRATION))
    limit = float(everything.scores[1])
    regions = find_regions(*blobs(), Rules(min_score=limit, calibration=CALIBRATION))
    np.testing.assert_array_equal(regions.scores, everything.scores[:2])


def test_a_single_region_is_the_best() -> None:
    everything = find_regions(*blobs(), Rules(calibration=CALIBRATION))
    alone = find_regions(*blobs(), Rules(single=True, calibration=CALIBRATION))
    np.testing.assert_array_equal(alone.scores, everything.scores[:1])
    np.testing.assert_array_equal(alone.region_ids, np.where(everything.region_ids == 1, 1, 0))
    np.testing.assert_array_equal(alone.label_map > 0, alone.region_ids > 0)


def test_no_regions_have_no_scores() -> None:
    nothing = np.zeros(SHAPE, np.int32), np.ones(SHAPE, np.float32)
    assert find_regions(*nothing, Rules(nothing_below=0.5, calibration=CALIBRATION)).scores.shape == (0,)


@given(confidence=st.floats(0, 1, width=32), area=st.integers(1, 2400))
def test_calibrated_scores_are_probabilities(confidence: float, area: int) -> None:
    label_map = (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) < area).astype(np.int32)
    regions = find_regions(label_map, np.full(SHAPE, confidence, np.float32), Rules(calibration=CALIBRATION))
    assert regions.scores.dtype == np.float32 and 0 <= regions.scores[0] <= 1


def test_parts_have_the_score_of_their_object() -> None:
    label_map, confidence = blobs()
    objects = find_regions((label_map > 0).astype(np.int32), confidence, Rules(calibration=CALIBRATION))
    divided = np.where(objects.label_map > 0, 1, 3).astype(np.int32)
    divided[15:35, 25:30] = 2
    divided[20, 40] = 2  # a speck
    divided[:, :2] = np.where(divided[:, :2] == 3, 4, divided[:, :2])
    regions, owners = divide(objects, divided, confidence, min_area=4, background=(0, 3, 4))
    parts = regions.region_labels <= 2
    assert parts.tolist() == [True] * 4 + [False] * 2
    for i in range(4):
        owner = objects.region_ids[regions.region_ids == i + 1]
        assert regions.scores[i] == objects.scores[owner[0] - 1] and np.unique(owner) == owners[i]
    assert owners[4:].tolist() == [0, 0]
    assert regions.label_map[20, 40] == 2 and regions.region_ids[20, 40] == 0
    assert regions.areas[4] > regions.areas[5]
    sure = [confidence[regions.region_ids == i + 1].mean() for i in (4, 5)]
    shares = regions.areas[4:] / (regions.areas[4:] + 0.01 * label_map.size)
    np.testing.assert_allclose(regions.scores[4:], sure * shares, rtol=1e-5, err_msg="the background's own")


@pytest.fixture
def calibrated(tmp_path: Path) -> Any:
    """calibrated(nothing_below): the toy bundle with a calibration."""

    def make(nothing_below: float) -> Path:
        files = toy.members()
        spec = toy.manifest(files)
        spec["heads"][0]["calibration"] = {
            **CALIBRATION.model_dump(mode="json"),
            "nothing_below": nothing_below,
        }
        return toy.write(tmp_path / "calibrated.patchcut", files, spec)

    return make


def test_a_bundles_calibration_is_used(calibrated: Any, toy_bundle: Path, photo: np.ndarray) -> None:
    plain, probable = patchcut.load(toy_bundle)(photo), patchcut.load(calibrated(0.0))(photo)
    check_consistent(probable, photo.shape[:2])
    assert sorted(plain.areas) == sorted(probable.areas)
    assert np.any(np.sort(plain.scores) != np.sort(probable.scores))
    assert patchcut.load(calibrated(0.0)).describe().calibrated
    assert not patchcut.load(toy_bundle).describe().calibrated


def test_a_bundle_may_answer_nothing(calibrated: Any, photo: np.ndarray) -> None:
    path = calibrated(1.0)
    result = patchcut.load(path)(photo)
    assert (len(result), result.best_box) == (0, None) and not result.foreground.any()
    assert patchcut.load(path).describe().nothing_below == 1.0
    assert len(patchcut.load(path, nothing_below=0.0)(photo)) >= 3
    for mode in ("parts", "scene"):
        result = patchcut.load(path, mode=mode)(photo)
        assert not result.foreground.any() and result.best_box is None


@pytest.mark.parametrize("refine", ["none", "guided"])
@pytest.mark.parametrize("mode", ["foreground", "parts", "scene"])
def test_what_is_below_the_limit_is_background_in_every_map(
    embedded_bundle: Path, mode: str, refine: str
) -> None:
    frame = read_photo(SAMPLES / "astronaut.jpg")
    seg = patchcut.load(embedded_bundle, mode=mode, refine=refine)
    result, limit = seg(frame), seg.describe().nothing_below
    everything = patchcut.load(embedded_bundle, mode=mode, refine=refine, nothing_below=0.0)(frame)
    objects = ~np.isin(everything.region_labels, everything.background_columns)
    low = objects & (everything.scores < limit)
    assert 0 < low.sum() < objects.sum(), "crumbs beside an object"
    dropped = everything.masks[low].any(axis=0)
    assert not result.foreground[dropped].any() and (result.soft_mask[dropped] <= 0.5).all()
    assert np.isin(result.label_map[dropped], result.background_columns).all()
    kept = ~np.isin(result.region_labels, result.background_columns)
    np.testing.assert_array_equal(result.scores[kept], everything.scores[objects & ~low])
    np.testing.assert_array_equal(result.masks[kept], everything.masks[objects & ~low])
    assert result.to_dict()["regions"][0]["score"] >= limit


@pytest.mark.parametrize("head", FITTED)
def test_a_calibration_is_of_the_bundles_own_head(calibrated: Any, photo: np.ndarray, head: str) -> None:
    segmenter = patchcut.load(calibrated(1.0), head=head)
    described = segmenter.describe()
    assert (described.calibrated, described.nothing_below) == (False, 0.0)
    assert len(segmenter(photo))


def test_an_old_bundle_has_no_calibration(tmp_path: Path) -> None:
    files = toy.members()
    with open_bundle(toy.write(tmp_path / "old.patchcut", files, toy.old_manifest(files, 1))) as bundle:
        assert [(head.name, head.calibration) for head in bundle.spec.heads] == [("gnn", None)]


def test_the_best_box_is_of_the_foreground() -> None:
    result = made_result()
    np.testing.assert_array_equal(result.best_box, [0, 0, 3, 2])
    assert made_result(0).best_box is None
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    in_background = type(result)(**{**fields, "background_columns": (0, 2)})
    assert in_background.best_box is None  # the first region is of label 2
    assert in_background.foreground.sum() == 2
