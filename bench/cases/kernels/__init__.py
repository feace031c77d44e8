"""Each op beside the fastest thing one would use in its place: a module for each group of ops."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bench import machine
from bench.cases import BenchError, Options, Target
from bench.cases.kernels import chain, clusters, cuts, fit, images, masks, nodes, refine, video
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "each op beside its natural neighbour, at the sizes of real frames"
REPEATS = 40
_MODULES = (images, nodes, masks, refine, fit, clusters, cuts, video, chain)
TARGETS: tuple[Target, ...] = tuple(target for module in _MODULES for target in module.TARGETS)
_DUELS = {case: make for module in _MODULES for case, make in module.DUELS.items()}
CASES = tuple(_DUELS)


def run(options: Options) -> Iterator[Outcome]:
    """A duel a case; both sides keep their output memory where they can.

    A case whose neighbour is not installed is left out, and told.
    """
    try:
        import torch  # noqa: F401 - the neighbour of gcn_forward
        import torch_geometric  # noqa: F401 - that of gnn_fit
    except ImportError:
        raise BenchError("kernels needs torch and torch-geometric: pip install -e '.[dev]'") from None
    machine.set_threads(options.threads)  # again: torch is loaded now
    for case, make in _DUELS.items():
        try:
            duel = make()
        except BenchError as error:
            print(f"skipped {case}: {error}", file=sys.stderr)
            continue
        sides = (duel.ours, *duel.neighbours)
        times = interleave(
            [Contender(side.name, side.call) for side in sides], options.repeats or duel.repeats or REPEATS
        )
        ours, first = (times[side.name] for side in sides[:2])
        metrics = {"times_as_fast": first.median_ms / ours.median_ms}
        for side in sides:
            told = (duel.quality, metrics) if side is duel.ours else ({}, {})
            yield Outcome(case, side.name, side.inside, times[side.name], duel.shapes, duel.dtype, *told)
