"""K-means over a collection: full Lloyd or mini-batches, in bounded memory, resumed where it was stopped."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.checks import check_choice, check_number, check_whole, use_plain_values
from patchcut.errors import OptionError
from patchcut.heads.base import MAX_SEED

from patchcut_export.clustering import seeding
from patchcut_export.clustering.checkpoint import Checkpoint, State
from patchcut_export.clustering.points import Int64, Points
from patchcut_export.clustering.seeding import as_centroids
from patchcut_export.clustering.steps import (
    Float32,
    Float64,
    LocalSteps,
    Metric,
    Pass,
    PassSums,
    Steps,
)

_MOST_POINTS = 2**31 - 1

INITS = ("k-means++", "k-means||")

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class CollectionClustering:
    """The points of a collection in k clusters.

    Attributes:
        centroids: [k, d] float32, the means of the clusters; of length 1 for "cosine".
        sizes: [k] int64, how many points each is nearest to, as `labels_of` has them.
        inertia: the distances of all points to their nearest centroid, added up.
        iterations: updates of the centroids.
        history: the inertia before each update, and at last `inertia`; of a batch, scaled to all points.
    """

    centroids: Float32
    sizes: Int64
    inertia: float
    iterations: int
    history: tuple[float, ...]


def kmeans_collection(
    points: Points,
    k: int,
    *,
    metric: Metric = "cosine",
    init: str | Float32 = "k-means++",
    iterations: int = 100,
    tolerance: float = 1e-4,
    batch: int | None = None,
    seed: int = 0,
    chunk: int = 65536,
    work: Path | None = None,
    advance: Advance = lambda title, done, total: None,
    engine: Steps | None = None,
) -> CollectionClustering:
    """Clusters of a collection of any size; in memory are one chunk of points and a few times the centroids.

    Args:
        points: what is clustered; finite.
        k: clusters, 1 to the number of points. Where there are fewer distinct points, clusters stay empty.
        metric: "cosine" for 1 - cosine, on unit rows and centroids; "euclidean" for squared distances.
        init: "k-means++": of four runs with ten updates the best, on a sample where there are more than
            16,384 points and more than 32 for each centroid; "k-means||", over all points; or [k, d] float32.
        iterations: largest number of updates, 1 to 1,000,000; with `batch` all of them are made.
        tolerance: it ends where an update takes no more than this share of the inertia, 0 to 1.
        batch: points of each update, drawn at random, one that is drawn twice once; None for all of them.
        seed: 0 to 2^64 - 1, for the random draws. Equal seeds give equal bits, on any number of threads.
        chunk: points read at a time. Another one, or another engine, changes the rounding of sums alone.
        work: a folder for the state after each step; a run that was stopped goes on from there, and ends with
            the same bits. All points are then read once more, to know them again.
        advance: called with (title, done, total).
        engine: where passes run; None for this machine's CPU.
    Returns:
        CollectionClustering.
    Raises:
        OptionError: "[k] must be a whole number from 1 to 5, got 7", and the like for the others.
        ExportError: a point is not finite, or `work` holds a run with other points or settings.
        OutputError: `work` cannot be written.
    Lloyd (1982) on sums in float64; for "cosine" spherical k-means (Dhillon and Modha 2001). A cluster
    without points takes the point that is farthest from its centroid, as in the op `kmeans`. "k-means||":
    Bahmani et al. (2012), 2 k points in each of 2 rounds. Batches: Sculley (2010), with the centroids' own
    learning rates; those that had no point for as many batches as make up a collection take the farthest
    points of a batch.
    Examples:
        >>> points = Points(np.float32([[0], [1], [10], [11]]))
        >>> made = kmeans_collection(points, 2, metric="euclidean")
        >>> sorted(made.centroids.tolist()), made.sizes.tolist(), made.inertia
        ([[0.5], [10.5]], [2, 2], 1.0)
    """
    check_whole("k", k, 1, points.count)
    check_whole("iterations", iterations, 1, 1_000_000)
    check_number("tolerance", tolerance, 0, 1)
    check_whole("seed", seed, 0, MAX_SEED)
    _check_reading(metric, chunk)
    if batch is not None:
        check_whole("batch", batch, 1, _MOST_POINTS)
    settings = _Settings(k, metric, iterations, tolerance, batch, seed)
    plan: dict[str, Any] = asdict(settings)
    if isinstance(init, str):
        check_choice("init", init, INITS)
        plan["init"] = init
    else:
        init = _checked_centroids("init", init, (k, points.dim), metric)
        plan["init"] = hashlib.sha256(init.tobytes()).hexdigest()
    if work is not None:
        plan["points"] = points.sha256(partial(advance, "reading points"))
    checkpoint = Checkpoint(work, plan)
    return _Run(points, settings, chunk, engine or LocalSteps(), checkpoint, advance).result(init)


def labels_of(
    points: Points,
    centroids: Float32,
    *,
    metric: Metric = "cosine",
    chunk: int = 65536,
    device: str = "cpu",
    advance: Advance = lambda title, done, total: None,
) -> npt.NDArray[np.int32]:
    """[count] int32: the nearest centroid of each point, in the points' order.

    Args:
        points: finite.
        centroids: [k, d] float32.
        metric, chunk, advance: as in `kmeans_collection`.
        device: "cpu" or "cuda".
    Raises:
        OptionError: the centroids are not [k, d].
        ExportError: a point is not finite, or there is no CUDA.
    Examples:
        >>> points = Points(np.float32([[0], [1], [10]]))
        >>> labels_of(points, np.float32([[9], [0]]), metric="euclidean").tolist()
        [1, 1, 0]
    """
    _check_reading(metric, chunk)
    steps, labels = LocalSteps(device), np.empty(points.count, np.int32)
    held = _checked_centroids("centroids", centroids, (len(centroids), points.dim), metric)
    for begin in range(0, points.count, chunk):
        end = min(begin + chunk, points.count)
        labels[begin:end] = steps.labels(points, range(begin, end), held, metric)
        advance("labels", end, points.count)
    return labels


@dataclass(frozen=True)
class _Settings:
    k: int
    metric: Metric
    iterations: int
    tolerance: float
    batch: int | None
    seed: int

    def __post_init__(self) -> None:
        use_plain_values(self)


class _Run:
    """One run, from where its checkpoint is."""

    def __init__(
        self,
        points: Points,
        settings: _Settings,
        chunk: int,
        steps: Steps,
        checkpoint: Checkpoint,
        advance: Advance,
    ) -> None:
        self._points = points
        self._settings = settings
        self._chunk = chunk
        self._steps = steps
        self._checkpoint = checkpoint
        self._advance = advance

    def result(self, init: str | Float32) -> CollectionClustering:
        state = self._checkpoint.restore() or self._start(init)
        if state.stage == "seeding":
            self._seed(state)
        while state.stage != "done":
            if self._settings.batch is None:
                self._lloyd_step(state)
            else:
                self._batch_step(state, self._settings.batch)
            self._checkpoint.save(state)
        history = tuple(map(float, state.history))
        return CollectionClustering(state.centroids, state.counts, history[-1], state.step, history)

    # ---- the first centroids

    def _start(self, init: str | Float32) -> State:
        points, settings = self._points, self._settings
        if isinstance(init, str) and init == "k-means||":
            first = seeding.first_candidate(points, settings.metric, settings.seed)
            return self._state("seeding", first)
        if isinstance(init, str):
            self._advance("k-means++ on a sample", 0, 1)
            init = seeding.plus_plus(points, settings.k, settings.metric, settings.seed)
        state = self._state("steps", init)
        self._checkpoint.save(state)
        return state

    def _state(self, stage: Any, centroids: Float32) -> State:
        k, batches = self._settings.k, self._settings.batch is not None
        return State(
            stage=stage,
            step=0,
            centroids=centroids,
            sums=np.zeros((k if batches else 0, self._points.dim)),
            counts=np.zeros(k, np.int64),
            touched=np.zeros(k, bool),
            history=np.zeros(0),
        )

    def _seed(self, state: State) -> None:
        """The rounds of k-means|| that are left; then the candidates are weighed and become centroids."""
        settings, asked = self._settings, self._asked()
        while state.step < seeding.ROUNDS:
            tell = partial(self._advance, f"k-means|| {state.step + 1}/{seeding.ROUNDS}")
            state.centroids = seeding.more_candidates(
                self._points, state.centroids, settings.k, asked, settings.seed, self._steps, tell
            )
            state.step += 1
            self._checkpoint.save(state)
        weights = self._pass("weighing candidates", state.centroids, self._asked(sums=False)).counts
        state.centroids = seeding.reduce(state.centroids, weights, settings.k, settings.seed)
        state.stage, state.step = "steps", 0
        self._checkpoint.save(state)

    # ---- updates

    def _lloyd_step(self, state: State) -> None:
        """A pass over all points, and an update unless that was the last."""
        found = self._pass(self._title(state.step), state.centroids, self._asked(leading=self._settings.k))
        last = state.step == self._settings.iterations or self._is_settled(state.history, found.inertia)
        state.history = np.append(state.history, found.inertia)
        if last:
            state.stage, state.counts = "done", found.counts
            return
        self._reseed(found.sums, found.counts, found.counts == 0, found)
        state.centroids = _means(found.sums, found.counts, state.centroids, self._settings.metric)
        state.step += 1

    def _is_settled(self, history: Float64, inertia: float) -> bool:
        return len(history) > 0 and bool(history[-1] - inertia <= self._settings.tolerance * history[-1])

    def _batch_step(self, state: State, batch: int) -> None:
        """An update by a batch; after the last a pass over all points."""
        count, settings = self._points.count, self._settings
        if state.step == settings.iterations:
            found = self._pass("k-means: sizes", state.centroids, self._asked(sums=False))
            state.stage, state.counts = "done", found.counts
            state.history = np.append(state.history, found.inertia)
            return
        random = np.random.default_rng([settings.seed, 3, state.step])
        rows = np.unique(random.integers(count, size=batch))
        asked = self._asked(leading=settings.k, rows=rows)
        found = self._pass(self._title(state.step), state.centroids, asked)
        state.sums += found.sums
        state.counts += found.counts
        state.touched |= found.counts > 0
        state.step += 1
        if state.step % math.ceil(count / batch) == 0:
            self._reseed(state.sums, state.counts, ~state.touched, found)
            state.touched[:] = False
        state.centroids = _means(state.sums, state.counts, state.centroids, settings.metric)
        state.history = np.append(state.history, found.inertia * (count / len(rows)))

    def _reseed(self, sums: Float64, counts: Int64, empty: npt.NDArray[np.bool_], found: PassSums) -> None:
        """Moves the farthest points, of those that are not alone in their clusters, into the empty ones."""
        moves: list[tuple[int, int, int]] = []
        wanted = np.flatnonzero(empty).tolist()
        for number, label in zip(found.leading.numbers.tolist(), found.leading.labels.tolist(), strict=True):
            if len(moves) == len(wanted):
                break
            if counts[label] > 1:
                counts[label] -= 1
                moves.append((number, label, wanted[len(moves)]))
        numbers = np.array([number for number, _, _ in moves], np.int64)
        rows = seeding.rows_of(self._points, numbers, self._settings.metric)
        for row, (_, label, cluster) in zip(rows.astype(np.float64), moves, strict=True):
            sums[label] -= row
            sums[cluster], counts[cluster] = row, 1

    def _pass(self, title: str, centroids: Float32, asked: Pass) -> PassSums:
        return self._steps.run(self._points, centroids, asked, partial(self._advance, title))

    def _asked(self, **more: Any) -> Pass:
        return Pass(metric=self._settings.metric, chunk=self._chunk, **more)

    def _title(self, step: int) -> str:
        return f"k-means {step + 1} of at most {self._settings.iterations}"


def _means(sums: Float64, counts: Int64, centroids: Float32, metric: Metric) -> Float32:
    """The mean of each cluster, of length 1 for "cosine"; one that has none keeps its centroid."""
    means = as_centroids(sums / np.maximum(counts, 1)[:, None], metric)
    there = (counts > 0) & (means.any(axis=1) if metric == "cosine" else True)
    return np.where(there[:, None], means, centroids)


def _checked_centroids(option: str, given: object, shape: tuple[int, int], metric: Metric) -> Float32:
    centroids = np.asarray(given)
    if centroids.shape != shape or centroids.dtype != np.float32 or not np.isfinite(centroids).all():
        came = f"{centroids.dtype} {centroids.shape}"
        raise OptionError(option, f"must be {list(shape)} float32 and finite, got {came}")
    return as_centroids(centroids.astype(np.float64), metric)


def _check_reading(metric: str, chunk: int) -> None:
    check_choice("metric", metric, ("cosine", "euclidean"))
    check_whole("chunk", chunk, 1, _MOST_POINTS)
