from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import patchcut
import pytest
from patchcut import BundleError, EngineError, open_bundle
from patchcut.bundle import HeadSpec
from patchcut.heads import choose_head, open_head
from patchcut.heads.prototypes import Prototypes, PrototypesHead, read_prototypes
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy
from tests.runtime.patches import features_of

LABELS = ("sky", "road", "tree")


def spec() -> HeadSpec:
    return HeadSpec(
        name="clusters",
        kind="prototypes",
        role="names",
        backbone="toy",
        features=("key",),
        labels=LABELS,
        temperature=0.1,
        files={"weights": "clusters.safetensors"},
    )


def test_columns_are_the_softmax_of_cosines() -> None:
    rng = np.random.default_rng(0)
    rows, prototypes, mean = rng.standard_normal((64, 8)), rng.standard_normal((3, 8)), rng.standard_normal(8)
    head = PrototypesHead(
        spec(), Prototypes.of_clusters(prototypes.astype(np.float32), mean.astype(np.float32))
    )
    moved = rows - mean
    cosines = (moved / np.linalg.norm(moved, axis=1, keepdims=True)) @ (
        prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    ).T
    expected = np.exp(cosines / 0.1) / np.exp(cosines / 0.1).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head(features_of(rows.astype(np.float32), (8, 8)))[0], expected, atol=1e-4)


def test_features_that_are_not_finite_are_refused() -> None:
    head = PrototypesHead(
        spec(), Prototypes.of_clusters(np.eye(3, 8, dtype=np.float32), np.zeros(8, np.float32))
    )
    with pytest.raises(EngineError, match="cannot use the features"):
        head(features_of(np.full((4, 8), np.inf, np.float32), (2, 2)))


def bundle_of(path: Path, weights: dict[str, np.ndarray]) -> Path:
    files = toy.members() | {"clusters.safetensors": save(weights)}
    manifest = toy.manifest(files)
    manifest["heads"].append(spec().model_dump(mode="json"))
    return toy.write(path, files, manifest)


def test_a_bundles_prototypes_run_by_their_name(tmp_path: Path, photo: np.ndarray) -> None:
    weights = {"prototypes": np.eye(3, toy.DIM, dtype=np.float32), "mean": np.zeros(toy.DIM, np.float32)}
    result = patchcut.load(bundle_of(tmp_path / "x.patchcut", weights), head="clusters")(photo)
    assert result.labels == LABELS and result.named and result.votes is None


@pytest.mark.parametrize(
    "weights",
    [
        {"prototypes": np.eye(3, toy.DIM, dtype=np.float32)},
        {"prototypes": np.eye(2, toy.DIM, dtype=np.float32), "mean": np.zeros(toy.DIM, np.float32)},
        {"prototypes": np.eye(3, toy.DIM, dtype=np.float32), "mean": np.full(toy.DIM, np.nan, np.float32)},
        {
            "prototypes": np.eye(3, toy.DIM, dtype=np.float32),
            "mean": np.zeros(toy.DIM, np.float32),
            "presence": np.zeros(2, np.float32),
        },
    ],
)
def test_foreign_prototypes_are_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    path = bundle_of(tmp_path / "x.patchcut", weights)
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="holds no such head"):
        open_head(bundle, choose_head(bundle, "clusters"))


def test_a_bundle_keeps_the_presence_and_old_ones_have_none(tmp_path: Path) -> None:
    plain = Prototypes.of_clusters(np.eye(3, toy.DIM, dtype=np.float32), np.zeros(toy.DIM, np.float32))
    asking = replace(plain, presence=np.float32([-1, 0.2, 0.3]))
    for name, prototypes in (("plain", plain), ("asking", asking)):
        path = bundle_of(tmp_path / f"{name}.patchcut", prototypes.tensors())
        with open_bundle(path) as bundle:
            read = read_prototypes(bundle, choose_head(bundle, "clusters"))
        expected = prototypes.presence
        assert (read.presence is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(read.presence, expected)
