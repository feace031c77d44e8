"""Features to assignment: the bundle's head beside DeepCut's procedure, and heads fitted to the frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import patchcut
import patchcut_kernels as kernels
from patchcut import Features
from patchcut.heads import FITTED, CcHead, FittedHead, GnnFitHead

from bench import machine, subjects
from bench.cases import BenchError, Options, Target
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "features to assignment: the bundle's head beside DeepCut in torch-geometric, and the fitted heads"
FITTED_CASES = {f"head {name} 256": head() for name, head in FITTED.items() if head is not GnnFitHead}
CASES = ("head 256", *FITTED_CASES)
REPEATS = 15
BY_NETWORK = "patchcut, by the GNN's loss"
BY_STEPS = "patchcut, gnn-fit"
TARGETS = (
    Target("head 256", "times_as_fast", ">=", 200, "×", "head, times as fast as DeepCut's ten steps"),
    Target("head 256", "times_as_fast_as_fitted", ">=", 20, "×", "head, times as fast as gnn-fit"),
)
_SIZE = 224

Array = npt.NDArray[np.float32]


def run(options: Options) -> Iterator[Outcome]:
    """All get the same 256 features, and make their affinity inside the clock."""
    segment = _deepcut()
    machine.set_threads(options.threads)  # again: torch is loaded now
    segmenter = patchcut.load(settings=replace(options.settings, size=_SIZE))
    features = subjects.features(segmenter.extractor, subjects.frame(subjects.VGA_HW))
    rows, head, fitted = subjects.first(features.default), segmenter.head, GnnFitHead()
    contenders = (
        Contender("patchcut", lambda: head(features)),
        Contender("deepcut (torch-geometric)", lambda: segment(rows)),
        Contender(BY_STEPS, lambda: fitted(features)),
    )
    times = interleave(contenders, options.repeats or REPEATS, warmup=2)
    ours, theirs, by_steps = (times[contender.name] for contender in contenders)
    shapes = {"features": rows.shape, "assignment": (len(rows), 2)}
    yield Outcome(
        CASES[0],
        "patchcut",
        "affinity and the bundle's head, one forward pass",
        ours,
        shapes,
        quality=partition_quality(subjects.of_patches(head(features), features), rows),
        metrics={
            "times_as_fast": theirs.median_ms / ours.median_ms,
            "times_as_fast_as_fitted": by_steps.median_ms / ours.median_ms,
        },
        bundle=options.bundle,
    )
    yield Outcome(
        CASES[0],
        "deepcut (torch-geometric)",
        "affinity, edge list, fresh GNN, ten AdamW steps",
        theirs,
        shapes,
        quality=partition_quality(segment(rows), rows),
    )
    yield Outcome(
        CASES[0],
        BY_STEPS,
        "affinity, fresh GNN, ten AdamW steps, and which side is background",
        by_steps,
        shapes,
        quality=partition_quality(subjects.first(fitted(features)), rows),
        bundle=options.bundle,
    )
    for case in FITTED_CASES:
        yield from _run_fitted(options, case, features)


def _run_fitted(options: Options, case: str, features: Features) -> Iterator[Outcome]:
    """One head that is fitted to the frame; correlation clustering beside DeepCut's way to it."""
    head, rows = FITTED_CASES[case], subjects.first(features.default)
    heads: dict[str, FittedHead] = {"patchcut": head}
    if isinstance(head, CcHead):
        heads[BY_NETWORK] = replace(head, solver="gnn")
    contenders = [Contender(name, partial(one, features)) for name, one in heads.items()]
    times = interleave(contenders, options.repeats or REPEATS, warmup=2)
    for name, one in heads.items():
        clusters = one.cluster(rows)
        quality = partition_quality(clusters, rows)
        if isinstance(one, CcHead):
            quality |= clustering_quality(clusters, rows, one)
        shapes = {"features": rows.shape, "assignment": one(features)[0].shape}
        inside = "affinity, its clusters, and which of them are background"
        yield Outcome(case, name, inside, times[name], shapes, quality=quality, bundle=options.bundle)


def clustering_quality(assignment: Array, features: Array, head: CcHead) -> dict[str, float]:
    """How many clusters there are, and the weight of the pairs within them; larger is better.

    Args:
        assignment: [n, k] float32, clusters of the patches.
        features: [n, d] float32.
        head: whose affinity counts.
    """
    affinity = kernels.affinity(features, kind=head.kind, mode="cc", alpha=head.alpha).astype(np.float64)
    np.fill_diagonal(affinity, 0)
    parts = np.eye(assignment.shape[1])[assignment.argmax(1)]
    kept = np.einsum("ic,ij,jc->", parts, affinity, parts, optimize=True) / 2
    return {"objective": float(kept), "clusters": float(parts.any(0).sum())}


def partition_quality(assignment: Array, features: Array) -> dict[str, float]:
    """The objective of the hard partition; without "ncut" where all patches are in one part.

    Args:
        assignment: [n, k] float32.
        features: [n, d] float32.
    NCut = Σ_c cut(c, rest) / vol(c) on the cosine affinity without negative values (Shi and Malik 2000);
    lower is better. It says how good a cut the partition is, not whether that is the object.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    affinity = np.maximum(unit @ unit.T, 0)
    parts = np.eye(assignment.shape[1])[assignment.argmax(1)]
    parts = parts[:, parts.any(0)]
    if parts.shape[1] < 2:
        return {}
    volume = affinity.sum(1) @ parts
    kept = np.einsum("ic,ij,jc->c", parts, affinity, parts, optimize=True)
    return {"ncut": float(((volume - kept) / volume).sum())}


def _deepcut() -> Callable[[Array], Array]:
    try:
        from bench.competitors.deepcut import segment
    except ImportError as error:
        raise BenchError(f"head needs torch and torch-geometric ({error}): pip install -e '.[dev]'") from None
    return segment
