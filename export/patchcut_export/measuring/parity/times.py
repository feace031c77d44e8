"""How long the ways take, in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from patchcut.features import to_host
from patchcut.frames import Frame

from patchcut_export.measuring.parity.ways import Step, Way

# Idle threads of the one before spin for a moment.
_PAUSE_S = 0.02


@dataclass(frozen=True)
class Times:
    """Milliseconds: of the backbone's run for one frame, until features are there; and of frame to result."""

    median_ms: float
    p95_ms: float
    frame_ms: float


def take_turns(ways: Sequence[Way], frame: Frame, rounds: int, step: Step, title: str) -> list[Times]:
    """Times of each way, in the order of `ways`.

    A turn is a pause, an untimed run, a timed run, a timed frame; every other round goes backwards, so that
    none is always first.
    """
    samples: list[list[tuple[float, float]]] = [[] for _ in ways]
    order = list(range(len(ways)))
    for turn in range(rounds + 1):
        step(title, turn, rounds + 1)
        for i in order if turn % 2 == 0 else reversed(order):
            time.sleep(_PAUSE_S)
            sample = _turn(ways[i], frame)
            if turn:  # the first round warms up
                samples[i].append(sample)
    step(title, rounds + 1, rounds + 1)
    return [_times(np.array(rows)) for rows in samples]


def _turn(way: Way, frame: Frame) -> tuple[float, float]:
    extractor = way.segmenter.extractor
    extractor.preprocess([frame])
    _run(way)
    begin = time.perf_counter()
    _run(way)
    between = time.perf_counter()
    way.segmenter(frame)
    return 1e3 * (between - begin), 1e3 * (time.perf_counter() - between)


def _run(way: Way) -> None:
    """One run; features on a GPU come down, since it is done only then."""
    features = way.segmenter.extractor.run(1)
    to_host(features.default)


def _times(samples: np.ndarray) -> Times:
    run, frame = samples[:, 0], samples[:, 1]
    return Times(float(np.median(run)), float(np.percentile(run, 95)), float(np.median(frame)))
