"""K-means over a collection: against other implementations, its properties, stopped and resumed."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import patchcut_kernels as kernels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patchcut.errors import OptionError, OutputError
from patchcut_export.clustering import seeding
from patchcut_export.clustering.collection import kmeans_collection, labels_of
from patchcut_export.clustering.engines import open_steps
from patchcut_export.clustering.points import Points
from patchcut_export.clustering.steps import LocalSteps, Pass
from patchcut_export.errors import ExportError
from tests.doctests import find_examples, run_example
from tests.export.clustering.planted import Interruption, Watched, plant, same_bits

METRICS = ("cosine", "euclidean")
WAYS: list[dict[str, Any]] = [{"init": "k-means++"}, {"init": "k-means||"}, {"batch": 150, "iterations": 9}]


def quiet(done: int, total: int) -> None:
    pass


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


# ---- against others


def test_the_means_are_those_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    features = plant(3000, 12, 16, apart=0.8)
    first = features[:12].astype(np.float32)
    ours = kmeans_collection(
        Points(features), 12, metric="euclidean", init=first, tolerance=0, iterations=300, chunk=700
    )
    theirs = cluster.KMeans(12, init=first, n_init=1, tol=0, max_iter=300).fit(features.astype(np.float64))
    assert ours.iterations > 5
    np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=2e-4)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_the_means_are_those_of_the_op(metric: Any) -> None:
    features = plant(2000, 12, 16, apart=0.8)
    first = features[:12].astype(np.float32)
    ours = kmeans_collection(
        Points(features), 12, metric=metric, init=first, tolerance=0, iterations=300, chunk=256
    )
    theirs = kernels.kmeans(features, 12, metric=metric, init=first, iterations=300)
    assert ours.iterations > 5
    np.testing.assert_allclose(ours.centroids, theirs.centroids, atol=2e-4)
    np.testing.assert_array_equal(ours.sizes, np.bincount(theirs.labels, minlength=12))


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_cluster_takes_the_farthest_point(metric: Any) -> None:
    features = plant(600, 5, 8)
    first = np.concatenate((features[:3], -50 * features[:1], -60 * features[:1])).astype(np.float32)
    asked: dict[str, Any] = {"metric": metric, "init": first, "iterations": 1}
    ours = kmeans_collection(Points(features), 5, **asked, chunk=100)
    theirs = kernels.kmeans(features, 5, **asked)
    assert ours.sizes.min() > 0
    np.testing.assert_allclose(ours.centroids, theirs.centroids, atol=2e-4)


def test_batches_are_those_of_sculley() -> None:
    """Algorithm 1 of "Web-scale k-means clustering", point by point."""
    features = plant(900, 6, 8)
    first = features[:6].astype(np.float32)
    watched = Watched()
    ours = kmeans_collection(
        Points(features), 6, metric="euclidean", init=first, batch=60, iterations=10, engine=watched
    )
    centres, seen = first.astype(np.float64), np.zeros(6)
    batches = [asked.rows for asked, _ in watched.seen if asked.rows is not None]
    assert len(batches) == 10
    for rows in batches:
        assert rows is not None
        batch = features[rows].astype(np.float64)
        nearest = np.square(batch[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
        for row, centre in zip(batch, nearest, strict=True):
            seen[centre] += 1
            centres[centre] += (row - centres[centre]) / seen[centre]
    np.testing.assert_allclose(ours.centroids, centres, atol=1e-4)


# ---- properties


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_planted_means_are_found(metric: Any, way: dict[str, Any]) -> None:
    features = plant(1500, 7, 24, apart=3)
    made = kmeans_collection(Points(features), 7, metric=metric, **way)
    rows = unit(features) if metric == "cosine" else features.astype(np.float64)
    labels = labels_of(Points(features), made.centroids, metric=metric)
    distances = np.square(rows - made.centroids[labels]).sum(axis=1) / (2 if metric == "cosine" else 1)
    np.testing.assert_array_equal(made.sizes, np.bincount(labels, minlength=7))
    assert made.inertia == pytest.approx(distances.sum(), rel=1e-4) == made.history[-1]
    assert len(made.history) == made.iterations + 1
    best = kernels.kmeans(features, 7, metric=metric, restarts=8).inertia
    assert made.inertia < 1.05 * best
    if metric == "cosine":
        np.testing.assert_allclose(np.linalg.norm(made.centroids, axis=1), 1, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from(METRICS), st.booleans())
def test_the_inertia_never_rises(seed: int, count: int, metric: Any, repeated: bool) -> None:
    random = np.random.default_rng(seed)
    features = random.integers(-2, 3, (count, 2)) if repeated else random.normal(size=(count, 2))
    k = int(random.integers(1, count + 1))
    first = random.normal(size=(k, 2)).astype(np.float32)
    made = kmeans_collection(
        Points(features.astype(np.float32)), k, metric=metric, init=first, tolerance=0, chunk=7
    )
    assert made.sizes.sum() == count
    assert np.all(np.diff(made.history) <= 1e-6 * np.abs(made.history[:-1]) + 1e-6)
    assert np.isfinite(made.centroids).all()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = kernels.get_threads()
    yield kernels.set_threads
    kernels.set_threads(before)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_bits_do_not_depend_on_threads(
    threads: Callable[[int], None], metric: Any, way: dict[str, Any]
) -> None:
    features = plant(3000, 9, 33, apart=0.5)
    made = []
    for count in (1, 2, 3):
        threads(count)
        made.append(kmeans_collection(Points(features), 9, metric=metric, seed=5, chunk=777, **way))
    assert same_bits(made[0], made[1])
    assert same_bits(made[0], made[2])
    other = kmeans_collection(Points(features), 9, metric=metric, seed=6, chunk=777, **way)
    assert not same_bits(made[0], other)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_chunks_change_the_rounding_alone(way: dict[str, Any]) -> None:
    features = plant(2000, 9, 16, apart=2)
    one, other = (kmeans_collection(Points(features), 9, chunk=chunk, **way) for chunk in (2000, 131))
    np.testing.assert_allclose(one.centroids, other.centroids, atol=1e-5)


def test_a_selection_is_as_good_as_its_rows() -> None:
    features = plant(1200, 6, 10).reshape(60, 20, 10)
    mask = np.random.default_rng(1).random((60, 20)) < 0.4
    centre = features.astype(np.float32).mean(axis=(0, 1))
    alone = features[mask].astype(np.float32) - centre
    selected = kmeans_collection(Points(features, selected=mask, centre=centre), 6, chunk=100)
    assert same_bits(selected, kmeans_collection(Points(alone), 6, chunk=100))


def test_a_sample_is_seeded_from_all_parts_of_a_large_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "SAMPLE", 300)
    monkeypatch.setattr(seeding, "SAMPLE_PER_CENTROID", 10)
    numbers = seeding.spread(5000, 300, 4)
    assert np.all(np.abs(numbers - (np.arange(300) + 0.5) * 5000 / 300) <= 5000 / 300)
    assert np.ptp(np.diff(numbers)) > 10
    np.testing.assert_array_equal(seeding.spread(7, 7, 0), np.arange(7))
    features = plant(5000, 8, 12)
    made = kmeans_collection(Points(features), 8)
    assert made.inertia < 1.05 * kernels.kmeans(features, 8, metric="cosine", restarts=8).inertia


def test_points_are_drawn_by_their_distances() -> None:
    features = np.float32([[0], [1], [2], [3], [0]])
    asked = [Pass(metric="euclidean", chunk=2, leading=1, draw=(seed, 1)) for seed in range(1500)]
    run = LocalSteps().run
    drawn = [run(Points(features), features[:1], each, quiet).leading.numbers[0] for each in asked]
    shares = np.bincount(drawn, minlength=5) / 1500
    np.testing.assert_allclose(shares, np.array([0, 1, 4, 9, 0]) / 14, atol=0.04)


def test_leading_points_do_not_depend_on_chunks() -> None:
    features = plant(500, 4, 6)
    for draw in (None, (3, 1)):
        found = []
        for chunk in (500, 64, 9):
            asked = Pass(metric="euclidean", chunk=chunk, leading=20, draw=draw)
            found.append(
                LocalSteps().run(Points(features), features[:4].astype(np.float32), asked, quiet).leading
            )
        assert len(found[0].numbers) == 20
        assert np.all(np.diff(found[0].keys) <= 0)
        for one in found[1:]:
            np.testing.assert_array_equal(one.numbers, found[0].numbers)


# ---- small and odd


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_points_that_are_all_alike(metric: Any, way: dict[str, Any]) -> None:
    features = np.tile(np.float16([0.3, -1, 2]), (40, 1))
    made = kmeans_collection(Points(features), 4, metric=metric, **way)
    assert sorted(made.sizes) == [0, 0, 0, 40]
    assert made.inertia == pytest.approx(0, abs=1e-5)
    assert np.isfinite(made.centroids).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_one_point(metric: Any, way: dict[str, Any]) -> None:
    made = kmeans_collection(Points(np.float16([[3, 4]])), 1, metric=metric, **way)
    np.testing.assert_allclose(made.centroids, [[0.6, 0.8]] if metric == "cosine" else [[3, 4]], atol=1e-6)
    assert made.sizes.tolist() == [1]
    assert made.inertia == pytest.approx(0, abs=1e-6)


def test_as_many_clusters_as_points() -> None:
    features = plant(9, 9, 5)
    made = kmeans_collection(Points(features), 9, metric="euclidean")
    assert made.sizes.tolist() == [1] * 9
    assert made.inertia == 0


def test_rows_of_zeros() -> None:
    features = plant(60, 3, 5)
    features[::4] = 0
    made = kmeans_collection(Points(features), 3, init="k-means||")
    assert np.isfinite(made.centroids).all()
    assert made.sizes.sum() == 60


@pytest.mark.parametrize("way", [*WAYS, {"init": np.eye(3, 5, dtype=np.float32)}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_point_that_is_not_finite_is_named(way: dict[str, Any], bad: float) -> None:
    features = plant(60, 3, 5).reshape(12, 5, 5)
    features[7, 2, 4] = bad
    mask = np.ones((12, 5), bool)
    mask[:3] = False
    with pytest.raises(ExportError, match=re.escape("[points] features[7, 2] is not finite; leave it out")):
        kmeans_collection(Points(features, selected=mask), 3, chunk=11, **{**way, "batch": None})
    with pytest.raises(ExportError, match=re.escape("features[7, 2] is not finite")):
        labels_of(Points(features), np.eye(3, 5, dtype=np.float32))


def test_numbers_of_numpy_are_as_good_as_others(tmp_path: Path) -> None:
    points = Points(plant(60, 3, 5))
    plain = kmeans_collection(points, 3, seed=2, batch=20, iterations=4, tolerance=0, work=tmp_path)
    numbers: dict[str, Any] = {"seed": np.uint64(2), "batch": np.int32(20), "iterations": np.int64(4)}
    again = kmeans_collection(points, np.int64(3), **numbers, tolerance=np.float32(0), work=tmp_path)  # type: ignore[arg-type]
    assert same_bits(plain, again)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"k": 7}, "[k] must be a whole number from 1 to 5, got 7"),
        ({"k": 0}, "[k] must be a whole number from 1 to 5, got 0"),
        ({"metric": "manhattan"}, '[metric] must be one of "cosine", "euclidean", got \'manhattan\''),
        ({"init": "random"}, '[init] must be one of "k-means++", "k-means||", got \'random\''),
        (
            {"init": np.zeros((2, 4), np.float32)},
            "[init] must be [2, 3] float32 and finite, got float32 (2, 4)",
        ),
        ({"init": np.zeros((2, 3))}, "[init] must be [2, 3] float32 and finite, got float64 (2, 3)"),
        ({"init": np.full((2, 3), np.nan, np.float32)}, "[init] must be [2, 3] float32 and finite"),
        ({"iterations": 0}, "[iterations] must be a whole number from 1 to 1000000, got 0"),
        ({"tolerance": -1}, "[tolerance] must be a number from 0 to 1, got -1"),
        ({"batch": 0}, "[batch] must be a whole number from 1 to"),
        ({"seed": -1}, "[seed] must be a whole number from 0 to"),
        ({"chunk": 0}, "[chunk] must be a whole number from 1 to"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], expected: str) -> None:
    points = Points(plant(5, 2, 3))
    with pytest.raises(OptionError) as told:
        kmeans_collection(points, **{"k": 2, **changes})
    assert str(told.value).startswith(expected)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(OptionError, match=r"\[device\] must be one of"):
        LocalSteps("gpu")
    if not kernels.cuda.is_available():
        with pytest.raises(ExportError, match=r"\[device\] no CUDA here: .*; choose cpu"):
            LocalSteps("cuda")


@pytest.mark.skipif(not kernels.cuda.is_available(), reason="needs kernels on CUDA, or PATCHCUT_CUDA=HOST")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_gpu_finds_the_same_means(metric: Any, way: dict[str, Any]) -> None:
    features = plant(600, 5, 16, apart=2)
    mask = np.arange(600) % 3 > 0
    for points in (Points(features), Points(features, selected=mask, centre=np.ones(16, np.float32))):
        asked: dict[str, Any] = {"metric": metric, "chunk": 170, "iterations": 5, **way}
        on_cpu, on_gpu = (
            kmeans_collection(points, 5, engine=LocalSteps(device), **asked) for device in ("cpu", "cuda")
        )
        np.testing.assert_allclose(on_gpu.centroids, on_cpu.centroids, atol=1e-4)
        np.testing.assert_array_equal(on_gpu.sizes, on_cpu.sizes)
        labels = labels_of(points, on_gpu.centroids, metric=metric, chunk=99, device="cuda")
        np.testing.assert_array_equal(np.bincount(labels, minlength=5), on_gpu.sizes)


# ---- stopped and resumed


def stop_at(number: int) -> Callable[[str, int, int], None]:
    calls = iter(range(1, number + 1))

    def advance(title: str, done: int, total: int) -> None:
        if next(calls) == number and title != "reading points":
            raise Interruption

    return advance


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_run_that_is_stopped_anywhere_ends_the_same(way: dict[str, Any], tmp_path: Path) -> None:
    points = Points(plant(400, 5, 6, apart=0.7))
    titles: list[str] = []
    asked: dict[str, Any] = {"seed": 3, "chunk": 150, "tolerance": 0, **way}
    if "batch" not in way:
        asked["iterations"] = 6
    whole = kmeans_collection(
        points, 5, **asked, work=tmp_path / "w", advance=lambda title, done, total: titles.append(title)
    )
    assert same_bits(whole, kmeans_collection(points, 5, **asked))
    stopped = [number for number, title in enumerate(titles, 1) if title != "reading points"]
    for number in stopped:
        work = tmp_path / str(number)
        with pytest.raises(Interruption):
            kmeans_collection(points, 5, **asked, work=work, advance=stop_at(number))
        seen: list[str] = []
        resumed = kmeans_collection(
            points,
            5,
            **asked,
            work=work,
            advance=lambda title, done, total: seen.append(title),  # noqa: B023
        )
        assert same_bits(resumed, whole)
        assert seen[1:] == titles[-len(seen) + 1 :], "steps that were done are done again"
        assert len(seen) - 1 == len(titles) - titles.index(titles[number - 1])


def test_a_run_that_is_stopped_at_every_step_ends_the_same(tmp_path: Path) -> None:
    points = Points(plant(300, 4, 6, apart=0.5))
    whole = kmeans_collection(points, 4, tolerance=0, chunk=300)
    assert whole.iterations > 3
    for _ in range(whole.iterations + 1):
        with pytest.raises(Interruption):
            kmeans_collection(points, 4, tolerance=0, chunk=300, work=tmp_path, advance=stop_at(3))
    assert same_bits(kmeans_collection(points, 4, tolerance=0, chunk=300, work=tmp_path), whole)


KILLED = """
import os, signal, sys
import numpy as np
from patchcut_export.clustering.collection import kmeans_collection
from patchcut_export.clustering.points import Points

def advance(title, done, total):
    global left
    left -= title != "reading points"
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

left = int(sys.argv[3])
points = Points(np.load(sys.argv[1], mmap_mode="r"))
kmeans_collection(points, 4, tolerance=0, work=__import__("pathlib").Path(sys.argv[2]), advance=advance)
"""


def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", plant(300, 4, 6, apart=0.5))
    words = [sys.executable, "-c", KILLED, str(tmp_path / "features.npy"), str(tmp_path / "work"), "4"]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    points = Points(np.load(tmp_path / "features.npy", mmap_mode="r"))
    passes: list[str] = []
    resumed = kmeans_collection(
        points,
        4,
        tolerance=0,
        work=tmp_path / "work",
        advance=lambda title, done, total: passes.append(title),
    )
    assert passes[1].startswith("k-means 3 of")
    assert same_bits(resumed, kmeans_collection(points, 4, tolerance=0))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"seed": 1}, "another seed"),
        ({"metric": "euclidean", "tolerance": 0.5}, "another metric and tolerance"),
        ({"batch": 10}, "another batch"),
        ({"init": "k-means||"}, "another init"),
        ({"points": Points(plant(100, 3, 4, seed=9))}, "another points"),
        ({"points": Points(plant(100, 3, 4), centre=np.ones(4, np.float32))}, "another points"),
    ],
)
def test_a_folder_of_another_run_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"points": Points(plant(100, 3, 4)), "k": 3, "work": tmp_path}
    kmeans_collection(**asked)
    with pytest.raises(ExportError) as told:
        kmeans_collection(**{**asked, **changes})
    expected = f"[k-means] {tmp_path} holds a run with {named}; name another folder, or delete it"
    assert str(told.value) == expected


@pytest.mark.parametrize("cut", [0, 10, -30])
def test_a_damaged_checkpoint_is_told(cut: int, tmp_path: Path) -> None:
    points = Points(plant(100, 3, 4))
    kmeans_collection(points, 3, work=tmp_path)
    path = tmp_path / "k-means.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ExportError, match=r"\[k-means\] .*k-means.npz is damaged: .*; delete it"):
        kmeans_collection(points, 3, work=tmp_path)


def test_a_full_disk_keeps_the_step_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = Points(plant(300, 4, 6, apart=0.5))
    written: list[int] = []
    write_bytes = Path.write_bytes

    def fill(path: Path, data: bytes) -> int:
        written.append(write_bytes(path, data[: len(data) // 2] if len(written) == 2 else data))
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written[-1]

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill)
        with pytest.raises(OutputError, match=r"k-means.npz: No space left on device; free some space"):
            kmeans_collection(points, 4, tolerance=0, work=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["k-means.npz"]
    resumed = kmeans_collection(points, 4, tolerance=0, work=tmp_path)
    assert same_bits(resumed, kmeans_collection(points, 4, tolerance=0))


def test_a_folder_that_cannot_be_made_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="is a file"):
        kmeans_collection(Points(plant(30, 3, 4)), 3, work=tmp_path / "file")


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    points, watched = Points(plant(100, 3, 4)), Watched()
    whole = kmeans_collection(points, 3, work=tmp_path)
    assert same_bits(kmeans_collection(points, 3, work=tmp_path, engine=watched), whole)
    assert watched.seen == []


# ---- memory

# Not ru_maxrss, which begins at what the parent held when it forked.
MEASURED = """
import re, sys
import numpy as np
from patchcut_export.clustering.collection import kmeans_collection, labels_of
from patchcut_export.clustering.points import Points

def peak_bytes():
    kb = dict(re.findall(r"(\\w+):\\s*([0-9]+) kB", open("/proc/self/status").read()))
    return 1024 * (int(kb["VmHWM"]) - int(kb["RssFile"]))

features = np.load(sys.argv[1], mmap_mode="r")
small = Points(features[:100])
kmeans_collection(small, 8, init="k-means||", iterations=1)
before = peak_bytes()
for way in ({"init": "k-means++"}, {"init": "k-means||"}, {"batch": 4096}):
    made = kmeans_collection(Points(features), 8, iterations=2, chunk=8192, **way)
labels_of(Points(features), made.centroids, chunk=8192)
print(peak_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc/self/status")
def test_a_collection_larger_than_the_memory_it_may_take(tmp_path: Path) -> None:
    """Takes 60 MB over a memory map of 256 MB, of which 8 are the labels."""
    table = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float16, (2000, 512, 128))
    block = plant(50 * 512, 8, 128).reshape(50, 512, 128)
    for begin in range(0, 2000, 50):
        table[begin : begin + 50] = block
    table.flush()
    assert table.nbytes > 4 * 60e6
    words = [sys.executable, "-c", MEASURED, str(tmp_path / "features.npy")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60e6


@pytest.mark.parametrize("example", find_examples("patchcut_export.clustering"), ids=lambda test: test.name)
def test_examples_run(example: Any) -> None:
    names = {"np": np, "Points": Points, "LocalSteps": LocalSteps, "Pass": Pass, "open_steps": open_steps}
    run_example(example, {**names, "kmeans_collection": kmeans_collection, "labels_of": labels_of})
