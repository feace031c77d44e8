"""k-means of a collection's patches, which lie in a file as float16."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import patchcut_kernels as pk

from bench.cases import BenchError, Options, Target
from bench.cases.start import run_fresh
from bench.competitors.large_kmeans import CHUNK, STEPS
from bench.harness import Times
from bench.rows import Outcome

TITLE = "k-means of a million patches in a file of float16, from given centroids"
POINTS, DIM, CLUSTERS = 1_000_000, 384, 64
_FAISS, _SCIKIT_LEARN = "faiss", "scikit-learn MiniBatchKMeans"
CASES = (f"kmeans {POINTS}x{DIM}, k {CLUSTERS}, {STEPS} steps",)
REPEATS = 3
TARGETS = (
    Target(CASES[0], "times_as_fast_as_faiss", ">=", 1, "×", "k-means of a file, times as fast as faiss"),
    Target(CASES[0], "inertia_over_faiss", "<=", 1.0001, "", "k-means of a file, inertia over that of faiss"),
    Target(
        CASES[0],
        "times_as_fast_as_minibatch",
        ">=",
        5,
        "×",
        "k-means of a file, times as fast to the inertia at which scikit-learn's MiniBatchKMeans ends",
    ),
    Target(
        CASES[0], "inertia_over_minibatch", "<=", 1, "", "k-means of a file, inertia over that of the same"
    ),
    Target(CASES[0], "peak_memory_mb", "<=", 2048, " MB", "k-means of a file, peak memory of that process"),
)
_IN_MEMORY = "its float32 copy of all points is made outside the clock"
_INSIDE = {
    "patchcut": f"{STEPS} steps of kmeans_sums over chunks of {CHUNK} points, read from the file",
    _FAISS: f"{STEPS} steps on all points, nredo 1; {_IN_MEMORY}",
    _SCIKIT_LEARN: f"at most {STEPS} passes of batches of 1,024 points, or 256 a thread if that is more, "
    f"with its own stopping rule; {_IN_MEMORY}",
}
_MODULES = {"patchcut": "patchcut_kernels", _FAISS: "faiss", _SCIKIT_LEARN: "sklearn"}
_FIT = """
import json
from pathlib import Path
from bench.competitors import large_kmeans
ms, inertia, trail = large_kmeans.run({who!r}, Path({folder!r}), {threads})
told = json.dumps([inertia, trail])
"""


def run(options: Options, points: int = POINTS) -> Iterator[Outcome]:
    """A fresh process for each fit, in turns; who is not installed is left out, and told."""
    names = [name for name, module in _MODULES.items() if find_spec(module) is not None]
    for name in _MODULES.keys() - names:
        print(f"skipped {name}: pip install 'faiss-cpu>=1.8,<2' 'scikit-learn>=1.4,<2'", file=sys.stderr)
    if len(names) == 1:
        raise BenchError("collection needs faiss or scikit-learn: pip install -e '.[dev]'")
    runs: dict[str, list[tuple[float, float, str]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        write_points(Path(folder), points)
        for turn in range(options.repeats or REPEATS):
            for name in names if turn % 2 == 0 else reversed(names):
                code = _FIT.format(who=name, folder=folder, threads=options.threads)
                runs[name].append(run_fresh(code))
    yield from _outcomes(runs, points)


def write_points(folder: Path, count: int) -> None:
    """points.npy [count, DIM] float16, and centroids.npy that k-means++ and one step make of a few of them.

    The points vary in 64 directions, ever less as the features of a ViT do, around twelve centres, and a
    little in all others.
    """
    rng = np.random.default_rng(0)
    points = np.lib.format.open_memmap(folder / "points.npy", mode="w+", dtype=np.float16, shape=(count, DIM))
    directions = _normal(rng, 64, DIM) / np.sqrt(np.arange(1, 65, dtype=np.float32))[:, None]
    centres = _normal(rng, 12, 64)
    for first in range(0, count, CHUNK):
        n = min(CHUNK, count - first)
        where = centres[rng.integers(0, 12, n)] + _normal(rng, n, 64)
        points[first : first + n] = where @ directions + 0.5 * _normal(rng, n, DIM)
    few = points[np.sort(rng.choice(count, 64 * CLUSTERS, replace=False))]
    np.save(folder / "centroids.npy", pk.kmeans(few, CLUSTERS, iterations=1).centroids)


def _normal(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal((rows, columns), dtype=np.float32)


def _outcomes(runs: dict[str, list[tuple[float, float, str]]], points: int) -> Iterator[Outcome]:
    times = {name: Times(tuple(run[0] for run in of_name)) for name, of_name in runs.items()}
    inertias = {name: float(json.loads(of_name[0][2])[0]) for name, of_name in runs.items()}
    metrics = {}
    for name, short in ((_FAISS, "faiss"), (_SCIKIT_LEARN, "minibatch")):
        if name in runs:
            metrics[f"inertia_over_{short}"] = inertias["patchcut"] / inertias[name]
    if _FAISS in runs:
        metrics["times_as_fast_as_faiss"] = times[_FAISS].median_ms / times["patchcut"].median_ms
    if _SCIKIT_LEARN in runs:
        reached = [_time_to(inertias[_SCIKIT_LEARN], run) for run in runs["patchcut"]]
        metrics["times_as_fast_as_minibatch"] = times[_SCIKIT_LEARN].median_ms / float(np.median(reached))
    for name, of_name in runs.items():
        yield Outcome(
            CASES[0],
            name,
            f"{_INSIDE[name]}; in a fresh process",
            times[name],
            {"points": (points, DIM), "centroids": (CLUSTERS, DIM)},
            "float16" if name == "patchcut" else "float32",
            {"inertia_per_point": inertias[name] / points},
            metrics if name == "patchcut" else {},
            peak_memory_mb=round(max(run[1] for run in of_name), 1),
        )


def _time_to(inertia: float, run: tuple[float, float, str]) -> float:
    """Milliseconds after which a run of patchcut's knew that it had reached an inertia; infinite if never."""
    last, trail = json.loads(run[2])
    known = [ms for ms, reached in trail if reached <= inertia]
    if known:
        return float(known[0])
    return run[0] if last <= inertia else float("inf")
