"""Groups of cases: each is one module of the shape of `Group`, and one line in `GROUPS`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from patchcut import Settings
from patchcut.bundle import find_bundle
from patchcut_kernels import default_threads

from bench.rows import Outcome

GROUPS = {
    "frame": "bench.cases.frame",
    "stream": "bench.cases.stream",
    "soak": "bench.cases.soak",
    "head": "bench.cases.head",
    "start": "bench.cases.start",
    "engines": "bench.cases.engines",
    "kernels": "bench.cases.kernels",
    "collection": "bench.cases.collection",
    "gpu": "bench.cases.gpu",
    "quality": "bench.cases.quality",
    "tiny": "bench.cases.tiny",
    "agreement": "bench.cases.agreement",
    "found-k": "bench.cases.found_k",
    "parts": "bench.cases.parts",
    "levels": "bench.cases.levels",
    "concept-head": "bench.cases.concept_head",
    "concepts": "bench.cases.concepts",
    "boxes": "bench.cases.boxes",
    "scenes": "bench.cases.scenes",
    "stability": "bench.cases.stability",
    "search": "bench.cases.search",
    "serve": "bench.cases.serve",
    "batch": "bench.cases.batch",
    "page": "bench.cases.page",
}
NEED_DATA = (
    "stream",
    "soak",
    "quality",
    "tiny",
    "agreement",
    "found-k",
    "parts",
    "levels",
    "concepts",
    "boxes",
    "scenes",
    "stability",
)


class BenchError(Exception):
    """A case cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Options:
    """What `python -m bench run` was asked for.

    Attributes:
        settings: what segmenters are made with; a case changes what its name says, such as the size.
        repeats: how often a case is timed; None is the group's own number.
        data: folder of data sets, or None.
        fp32_bundle: bundle with the same head on a float backbone, or None.
        minutes: how long a soak streams, and a server is overloaded; None is the group's own number.
        kills: how often a batch is killed; None is the group's own number.
    """

    settings: Settings
    repeats: int | None = None
    data: Path | None = None
    fp32_bundle: Path | None = None
    minutes: float | None = None
    kills: int | None = None

    @property
    def bundle(self) -> Path:
        """Path of the bundle to measure."""
        return find_bundle(self.settings.bundle)

    @property
    def threads(self) -> int:
        """Threads that every contender gets."""
        return self.settings.threads or default_threads()

    def command(self, group: str) -> str:
        """What repeats the run of a group; files are named without the folders they lie in here."""
        settings = replace(self.settings, bundle=Path(self.settings.bundle).name)
        words = ["python -m bench run", group, *settings.words(device="cpu")]
        if self.repeats is not None:
            words.append(f"--repeats {self.repeats}")
        if group in ("soak", "serve") and self.minutes is not None:
            words.append(f"--minutes {self.minutes:g}")
        if group == "batch" and self.kills is not None:
            words.append(f"--kills {self.kills}")
        if group in NEED_DATA:
            words.append("--data DATA")
        if group == "quality" and self.fp32_bundle is not None:
            words.append(f"--fp32-bundle {self.fp32_bundle.name}")
        return " ".join([*words, "--record"])

    def dataset(self, group: str, name: str, member: str) -> Path:
        """The folder of a data set.

        Raises:
            BenchError: it is not there, or does not hold `member`.
        """
        if self.data is None or not (self.data / name / member).exists():
            asked = f"a folder that holds {name} with {member}"
            raise BenchError(f"{group} needs --data (or PATCHCUT_DATA): {asked}")
        return self.data / name


@dataclass(frozen=True)
class Target:
    """What a number must be.

    Attributes:
        case: whose row has it.
        metric: name of the number, see `Row.value`.
        comparator: between the number and `value`.
        value: the limit.
        unit: printed after the numbers, such as " ms".
        title: the number in words.
    """

    case: str
    metric: str
    comparator: Literal["<=", ">="]
    value: float
    unit: str
    title: str

    def is_met(self, measured: float) -> bool:
        """Whether `measured` is good enough."""
        return measured <= self.value if self.comparator == "<=" else measured >= self.value

    def __str__(self) -> str:
        sign = "≤" if self.comparator == "<=" else "≥"
        return f"{self.title} {sign} {self.value:g}{self.unit}"


class Group(Protocol):
    """A module of cases."""

    TITLE: str
    CASES: tuple[str, ...]
    TARGETS: tuple[Target, ...]
    REPEATS: int

    def run(self, options: Options) -> Iterator[Outcome]:
        """The outcomes of all cases, patchcut's first in each.

        Raises:
            BenchError: something that the group needs is not there.
        """
        ...


def open_group(name: str) -> Group:
    """The module of a key of `GROUPS`."""
    return cast("Group", import_module(GROUPS[name]))
