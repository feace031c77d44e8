from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import BundleError, EngineError, Features, open_bundle
from patchcut.bundle import HeadSpec
from patchcut.heads import StreamedHead, VotingHead, choose_head, open_head
from patchcut.heads.levels import Centres, LevelsHead
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy

GRID_HW = (6, 8)
THINGS, SCENES = np.eye(8, dtype=np.float32)[:2], np.eye(8, dtype=np.float32)[4:6]


def centres(**changes: object) -> Centres:
    """Background is axis 7 and foreground axis 6; scenes are axes 4 and 5, names axes 0 and 1."""
    sides = np.eye(8, dtype=np.float32)[[7, 6]]
    made = Centres(
        dataset=sides,
        foreground=np.array([False, True]),
        categories=SCENES,
        token_mean=np.zeros(8, np.float32),
        category=np.stack([sides, sides]),
        names=THINGS,
        name_mean=np.zeros(8, np.float32),
        voters=np.ones(3, bool),
        temperature=0.1,
        threshold=0.5,
    )
    return replace(made, **changes)


def head(**changes: object) -> LevelsHead:
    spec = HeadSpec(
        name="levels",
        kind="levels",
        role="names",
        backbone="toy",
        features=("key", "cls", "token"),
        labels=("background", "cup", "chair"),
        files={"weights": "levels.safetensors"},
    )
    return LevelsHead(spec, centres(**changes))


def scene(things: dict[int, tuple[slice, slice]], category: int = 0, noise: float = 0.05) -> Features:
    """A frame with some things: which of the names, and where on the grid."""
    rng = np.random.default_rng(0)
    rows = np.tile(np.eye(8, dtype=np.float32)[7], (*GRID_HW, 1))
    names = np.tile(np.eye(8, dtype=np.float32)[3], (*GRID_HW, 1))
    for thing, where in things.items():
        rows[where] = np.eye(8)[6]
        names[where] = THINGS[thing]
    rows += noise * rng.standard_normal(rows.shape).astype(np.float32)
    names += noise * rng.standard_normal(rows.shape).astype(np.float32)
    sets = {"key": rows, "token": names}
    made = {name: one.reshape(1, -1, 8).astype(np.float32) for name, one in sets.items()}
    return Features(made | {"cls": SCENES[category].reshape(1, 1, 8)}, GRID_HW)


TWO = {0: np.s_[1:3, 1:3], 1: np.s_[3:6, 5:8]}


def test_regions_are_found_and_named() -> None:
    labels = head()(scene(TWO))[0].argmax(axis=1).reshape(GRID_HW)
    expected = np.zeros(GRID_HW, int)
    expected[TWO[0]], expected[TWO[1]] = 1, 2
    np.testing.assert_array_equal(labels, expected)


def test_rows_lie_on_the_simplex_and_each_level_votes() -> None:
    voted = head().vote(scene(TWO))
    np.testing.assert_allclose(voted.assignment.sum(axis=-1), 1, atol=1e-6)
    assert voted.votes.shape == (1, 3, 48) and 0 <= voted.votes.min() <= voted.votes.max() <= 1
    assert isinstance(head(), VotingHead) and head().levels == ("dataset", "category", "image")


def test_the_dataset_level_is_the_softmax_of_cosines() -> None:
    """Against the formula of the docs, in float64."""
    frame = scene(TWO)
    rows = np.asarray(frame["key"][0], np.float64)
    cosines = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ centres().dataset.T / 0.1
    shares = np.exp(cosines) / np.exp(cosines).sum(axis=1, keepdims=True)
    alone = head(voters=np.array([True, False, False]), threshold=1.0).vote(frame)
    np.testing.assert_allclose(alone.votes[0, 0], shares[:, 1], atol=1e-5)
    np.testing.assert_allclose(1 - alone.assignment[0, :, 0], shares[:, 1], atol=1e-5)


def test_patches_that_look_alike_agree() -> None:
    """One patch of a thing that votes for background is outvoted by those it resembles."""
    frame = scene({0: np.s_[1:5, 2:6]}, noise=0.0)
    rows = frame["key"].copy().reshape(*GRID_HW, 8)
    rows[1:5, 2:6] = [0, 0, 0, 0, 0, 2, 1, 0]
    rows[2, 3] = [0, 0, 0, 0, 0, 2, 0.9, 1]
    changed = Features({**frame.sets, "key": rows.reshape(1, -1, 8)}, GRID_HW)
    votes = {"voters": np.array([True, False, False])}
    alone = head(**votes, threshold=1.0)(changed)[0].argmax(axis=1).reshape(GRID_HW)
    agreed = head(**votes, threshold=0.6)(changed)[0].argmax(axis=1).reshape(GRID_HW)
    assert alone[2, 3] == 0 and agreed[2, 3] == 1


def test_the_category_is_that_of_the_class_token() -> None:
    """In the second category the sides of the category level are exchanged."""
    sides = centres().dataset
    made = head(category=np.stack([sides, sides[::-1]]), voters=np.array([False, True, False]))
    first, second = (made(scene(TWO, category))[0][:, 0] > 0.5 for category in (0, 1))
    np.testing.assert_array_equal(first, ~second)


def test_a_batch_is_its_frames_one_by_one() -> None:
    frames = [scene(TWO), scene({1: np.s_[0:2, 0:2]}, 1)]
    sets = {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0].sets}
    together = head()(Features(sets, GRID_HW))
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(together[i], head()(frame)[0])


def test_nothing_is_found_where_nothing_is() -> None:
    assert (head()(scene({}))[0].argmax(axis=1) == 0).all()


def test_an_image_of_one_patch() -> None:
    one = {name: np.ones((1, 1, 8), np.float32) for name in ("key", "cls", "token")}
    assert head()(Features(one, (1, 1))).shape == (1, 1, 3)


def test_a_stream_keeps_its_category_until_another_is_clearly_more_alike() -> None:
    sides = centres().dataset
    made = head(category=np.stack([sides, sides[::-1]]), voters=np.array([False, True, False]))
    assert isinstance(made, StreamedHead)
    stream, other = made.of_stream(), made.of_stream()
    close = scene(TWO).sets | {"cls": np.float32([0, 0, 0, 0, 0.99, 1, 0, 0]).reshape(1, 1, 8)}
    first = stream(scene(TWO))
    np.testing.assert_array_equal(stream(Features(close, GRID_HW)), first)
    assert not np.array_equal(other(Features(close, GRID_HW)), first)  # nothing is shared between streams
    stream(scene(TWO, 1))
    np.testing.assert_array_equal(stream(Features(close, GRID_HW)), other(Features(close, GRID_HW)))


@pytest.mark.parametrize("name", ["key", "cls", "token"])
def test_features_that_are_not_finite_are_refused(name: str) -> None:
    frame = scene(TWO)
    broken = {**frame.sets, name: np.full_like(frame[name], np.nan)}
    with pytest.raises(EngineError, match=r"\[head\] cannot use the features: .*finite"):
        head()(Features(broken, GRID_HW))


def tensors(clusters: int = 2, categories: int = 2, names: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "dataset": normal(clusters, toy.DIM),
        "foreground": np.float32([0, 1]),
        "categories": normal(categories, toy.DIM),
        "token_mean": normal(toy.DIM),
        "category": normal(categories, clusters, toy.DIM),
        "names": normal(names, 2 * toy.DIM),
        "name_mean": np.zeros(2 * toy.DIM, np.float32),
        "voters": np.ones(3, np.float32),
    }


def bundle_of(path: Path, weights: dict[str, np.ndarray], **changes: object) -> Path:
    """The toy bundle with a head of levels beside its GNN."""
    files = toy.members(tokens=True) | {"levels.safetensors": save(weights)}
    spec = toy.manifest(files, tokens=True)
    levels = {
        "name": "levels",
        "kind": "levels",
        "role": "names",
        "backbone": "toy",
        "features": ["key", "cls", "token"],
        "affinity": {"threshold": 0.6},
        "labels": ["background", "cup", "chair"],
        "temperature": 0.2,
        "files": {"weights": "levels.safetensors"},
    }
    spec["heads"].append(levels | changes)
    return toy.write(path, files, spec)


def test_a_bundles_head_runs_by_its_name(tmp_path: Path, photo: np.ndarray) -> None:
    path = bundle_of(tmp_path / "x.patchcut", tensors())
    seg = patchcut.load(path, head="levels")
    result = seg(photo)
    assert result.labels == ("background", "cup", "chair") and result.by_label
    assert result.votes is not None and result.votes.shape == (3, 64)
    assert result.voters == ("dataset", "category", "image")
    assert set(result.label_names) <= {"cup", "chair"}
    picture = result.draw_votes()
    assert picture is not None and picture.shape[1] > 3 * picture.shape[0]
    assert patchcut.load(path).head.name == "gnn"  # heads for objects come first
    assert seg.describe().settings.head == "levels"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"dataset": None}, "it has the arrays"),
        ({"names": np.zeros((3, 16), np.float32)}, "names is"),
        ({"category": np.full((2, 2, 8), np.nan, np.float32)}, "of finite numbers"),
        ({"foreground": np.ones(2, np.float32)}, "of both sides"),
        ({"voters": np.zeros(3, np.float32)}, "none of its levels votes"),
    ],
)
def test_a_foreign_head_is_refused(
    tmp_path: Path, broken: dict[str, np.ndarray | None], message: str
) -> None:
    made = {name: one for name, one in (tensors() | broken).items() if one is not None}
    with (
        open_bundle(bundle_of(tmp_path / "x.patchcut", made)) as bundle,
        pytest.raises(BundleError, match=message),
    ):
        open_head(bundle, choose_head(bundle, "levels"))


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = bundle_of(tmp_path / "x.patchcut", tensors(), features=["key", "token"])
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="of the class token"):
        open_head(bundle, choose_head(bundle, "levels"))
