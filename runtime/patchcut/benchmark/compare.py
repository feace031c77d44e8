"""Two runs beside each other: by how much one differs, and whether that is more than its own spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchcut.benchmark.report import Piece, Report
from patchcut.errors import OptionError

_DRAWS, _SEED = 2000, 0
_INTERVAL = (0.5, 99.5)
# Less is not worth a word, whatever the spread.
_LEAST = 0.01
FIGURES: dict[str, Callable[[Piece], float]] = {
    "p50 ms": lambda piece: piece.p50,
    "p90 ms": lambda piece: piece.p90,
    "p99 ms": lambda piece: piece.p99,
    "frames a second": lambda piece: piece.frames_per_s,
}
_MORE_IS_BETTER = ("frames a second",)


@dataclass(frozen=True)
class Comparison:
    """One figure of two runs.

    Attributes:
        figure: what is compared, a key of `FIGURES`.
        first, second: medians over the pieces of each run.
        ratio: second to first.
        interval: 99 % of what the ratio may be by the spread of the pieces within each run.
    """

    figure: str
    first: float
    second: float
    ratio: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """ "no difference", "faster" or "slower", of the second run.

        Examples:
            >>> row = patchcut.benchmark.Comparison("p50 ms", 10.0, 9.0, 0.9, (0.88, 0.93))
            >>> row.verdict
            'faster'
        """
        low, high = self.interval
        if low <= 1 <= high or abs(self.ratio - 1) < _LEAST:
            return "no difference"
        return "faster" if (self.ratio > 1) == (self.figure in _MORE_IS_BETTER) else "slower"


def compare(first: Report, second: Report) -> list[Comparison]:
    """How the second run differs from the first.

    The interval is a bootstrap over the pieces of each run (Efron 1979, percentiles): it holds how unsteady
    each run was within itself, not what changes from one start of the program to the next.

    Raises:
        OptionError: they are of different scenarios.
    Examples:
        >>> patchcut.benchmark.compare(report, report)[0].verdict
        'no difference'
    """
    if first.scenario != second.scenario:
        what = f'runs of "{first.scenario}" and "{second.scenario}" do not measure the same'
        raise OptionError("compare", what, "compare two of one scenario")
    return [_compare(figure, value, first, second) for figure, value in FIGURES.items()]


def differences(first: Report, second: Report) -> list[str]:
    """What differs beside the figures, a line each: another machine, engine, size, frames.

    Examples:
        >>> from patchcut.benchmark.compare import differences
        >>> differences(report, report)
        []
    """
    plans = {*first.plan, *second.plan}
    pairs = [
        *((key, first.runs.get(key), second.runs.get(key)) for key in sorted({*first.runs, *second.runs})),
        *((key, first.machine.get(key), second.machine.get(key)) for key in ("cpu", "cores", "gpu", "isa")),
        *((f"plan: {key}", first.plan.get(key), second.plan.get(key)) for key in sorted(plans)),
        ("frames", first.frames, second.frames),
    ]
    return [f"{name}: {a} and {b}" for name, a, b in pairs if a != b]


def _compare(figure: str, value: Callable[[Piece], float], first: Report, second: Report) -> Comparison:
    a, b = ([value(piece) for piece in report.pieces] for report in (first, second))
    rng = np.random.default_rng(_SEED)
    ratios = _medians(rng, b) / _medians(rng, a)
    low, high = np.percentile(ratios, _INTERVAL)
    medians = float(np.median(a)), float(np.median(b))
    return Comparison(figure, *medians, medians[1] / medians[0], (float(low), float(high)))


def _medians(rng: np.random.Generator, values: Sequence[float]) -> npt.NDArray[np.float64]:
    """[draws] medians of as many values, drawn with replacement."""
    drawn = rng.integers(0, len(values), (_DRAWS, len(values)))
    medians: npt.NDArray[np.float64] = np.median(np.asarray(values)[drawn], axis=1)
    return np.maximum(medians, 1e-9)
