"""K-means on a Ray cluster of two workers, one of which is killed half-way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patchcut.errors import EngineError, OptionError
from patchcut_export import ray_cluster
from patchcut_export.clustering.collection import kmeans_collection
from patchcut_export.clustering.points import Points
from patchcut_export.clustering.ray_steps import RaySteps
from patchcut_export.errors import ExportError
from tests.export.clustering.planted import plant
from tests.export.deadly import DeadlyPoints, arm

K = 6


@pytest.fixture
def features(tmp_path: Path) -> Any:
    """[60, 40, 8] float16, a memory map."""
    np.save(tmp_path / "features.npy", plant(2400, K, 8, apart=0.8).reshape(60, 40, 8))
    return np.load(tmp_path / "features.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "mapped, way",
    [(True, {"init": "k-means||"}), (True, {"batch": 200}), (False, {"init": "k-means++"})],
    ids=str,
)
def test_the_means_are_those_of_one_machine(
    ray: Any, features: Any, way: dict[str, Any], mapped: bool
) -> None:
    points = Points(features if mapped else np.array(features))
    asked: dict[str, Any] = {"iterations": 8, "tolerance": 0, "chunk": 300, **way}
    alone = kmeans_collection(points, K, **asked)
    seen: list[tuple[int, int]] = []
    with RaySteps() as steps:
        made = kmeans_collection(
            points, K, **asked, engine=steps, advance=lambda title, done, total: seen.append((done, total))
        )
    np.testing.assert_allclose(made.centroids, alone.centroids, atol=1e-4)
    np.testing.assert_allclose(made.sizes, alone.sizes, atol=2)
    assert made.inertia == pytest.approx(alone.inertia, rel=1e-5)
    assert seen[-1] == (2400, 2400)
    assert ray.is_initialized(), "the cluster was there before"


def test_a_worker_that_is_killed_half_way_is_replaced(ray: Any, features: Any) -> None:
    asked: dict[str, Any] = {"init": np.array(features[0, :K], np.float32), "tolerance": 0, "iterations": 6}
    alone = kmeans_collection(Points(features), K, metric="euclidean", **asked)
    assert alone.iterations == 6
    flag = arm(3)  # the third pass
    made = kmeans_collection(
        DeadlyPoints(features), K, metric="euclidean", **asked, engine=RaySteps(shards=2)
    )
    assert not flag.exists(), "no worker was killed"
    np.testing.assert_allclose(made.centroids, alone.centroids, atol=1e-4)
    assert made.history == pytest.approx(alone.history, rel=1e-6)


def test_what_is_wrong_with_a_point_is_told_as_on_one_machine(ray: Any, features: Any) -> None:
    bad = np.array(features)
    bad[50, 7, 3] = np.nan
    first = np.array(features[0, :K], np.float32)
    with pytest.raises(ExportError, match=r"^\[points\] features\[50, 7\] is not finite; leave it out"):
        kmeans_collection(Points(bad), K, init=first, engine=RaySteps())


def test_a_file_that_workers_do_not_see_is_told(ray: Any, features: Any) -> None:
    points = Points(features)
    Path(features.filename).unlink()
    with pytest.raises(
        ExportError, match=r"features.npy cannot be read here: .*; put it where every machine"
    ):
        kmeans_collection(points, K, init=np.array(features[0, :K], np.float32), engine=RaySteps())


def test_a_cluster_without_what_is_needed_is_told(ray: Any) -> None:
    with pytest.raises(
        EngineError, match=r"\[engine\] the Ray cluster has no GPU; add a machine that has one"
    ):
        RaySteps(device="cuda")
    with pytest.raises(OptionError, match=r"\[device\] must be one of"):
        RaySteps(device="tpu")
    with pytest.raises(OptionError, match=r"\[shards\] must be a whole number from 1"):
        RaySteps(shards=0)


def test_what_runs_the_passes_needs_neither_ray_nor_torch() -> None:
    code = """
import sys
import patchcut_export.clustering.collection, patchcut_export.clustering.ray_steps
print(*[name for name in ("ray", "torch", "onnx", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"^\[engine\] Ray is not installed: .*; pip install .*\[scale\]"):
        RaySteps()


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCluster:
        def is_initialized(self) -> bool:
            return False

        def init(self, **options: Any) -> None:
            raise ConnectionError("Could not find any running Ray instance.\nMore words.")

    monkeypatch.setattr(ray_cluster, "import_ray", NoCluster)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError) as told:
        RaySteps()
    assert str(told.value).startswith("[engine] no Ray cluster on this machine: Could not find any running")
    assert "start one with `ray start --head`" in str(told.value)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(EngineError, match=r"no Ray cluster at 127.0.0.1:1: .*refused; start one with"):
        RaySteps()
    with pytest.raises(EngineError, match=r"no Ray cluster at ray://127.0.0.1:1: .*refused; start one with"):
        RaySteps(address="ray://127.0.0.1:1")
