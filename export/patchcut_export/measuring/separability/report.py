"""What `patchcut export features` found: a table, JSON, and what the numbers are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

_LEAST_LETTERS = 24  # of names, beside seven numbers in 80 letters


@dataclass(frozen=True)
class Measure:
    """One column of numbers.

    Attributes:
        field: of `SeparabilityRow`.
        title: of the column.
        about: what it is.
        floor: what says nothing: chance, or no structure.
        top: the largest value there can be, None where there is none.
    """

    field: str
    title: str
    about: str
    floor: float
    top: float | None


MEASURES = (
    Measure(
        "clusters_auc",
        "clusters",
        "AUC of foreground patches, each scored by the share of foreground in its cluster of k-means",
        0.5,
        1.0,
    ),
    Measure("best_cluster_auc", "best", "AUC of one cluster alone, the best", 0.5, 1.0),
    Measure(
        "probe_auc",
        "probe",
        "AUC of a linear probe (logistic regression) on the half of the images that it was not fitted to, "
        "the mean of both halves",
        0.5,
        1.0,
    ),
    Measure(
        "nmi",
        "classes",
        "NMI of the classes of foreground patches with as many clusters of these patches",
        0.0,
        1.0,
    ),
    Measure(
        "region_nmi",
        "things",
        "the same of regions, each the mean of a class's patches in an image: do they tell what things are",
        0.0,
        1.0,
    ),
    Measure("silhouette", "silh.", "mean silhouette of 2,000 patches in their clusters", 0.0, 1.0),
    Measure("variance_ratio", "b/w", "variance between clusters over that within them", 0.0, None),
)


@dataclass(frozen=True, kw_only=True)
class SeparabilityRow:
    """One feature set of one bundle, measured; a number is None where it cannot be told.

    Attributes:
        bundle, set: names.
        about: what the set is, for people.
        dim: numbers a patch.
        size, precision: of the graph that ran.
        silhouette, variance_ratio: of the clusters of k-means.
        clusters_auc, best_cluster_auc, probe_auc, nmi, region_nmi: against masks; see `MEASURES`.
    """

    bundle: str
    set: str
    about: str
    dim: int
    size: int
    precision: str
    silhouette: float | None
    variance_ratio: float | None
    clusters_auc: float | None = None
    best_cluster_auc: float | None = None
    probe_auc: float | None = None
    nmi: float | None = None
    region_nmi: float | None = None

    def value(self, measure: Measure) -> float | None:
        """Its number of a column."""
        found: float | None = getattr(self, measure.field)
        return found


@dataclass(frozen=True)
class SeparabilityReport:
    """All rows, and how they came about.

    Attributes:
        images: how many, of `data`.
        masks, classes: whether there were masks, and classes in them.
        k, seed: of k-means.
    """

    images: int
    data: str
    masks: bool
    classes: bool
    k: int
    seed: int
    rows: tuple[SeparabilityRow, ...]

    @property
    def measures(self) -> list[Measure]:
        """The columns that hold a number."""
        return [one for one in MEASURES if any(row.value(one) is not None for row in self.rows)]

    def best(self, measure: Measure) -> float:
        """The largest number of a column."""
        return max(value for row in self.rows if (value := row.value(measure)) is not None)

    def names(self) -> list[str]:
        """What each row is called: its set, and its bundle where there are several."""
        several = len({row.bundle for row in self.rows}) > 1
        return [f"{row.bundle}: {row.set}" if several else row.set for row in self.rows]

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(
            {**asdict(self), "measures": {one.field: one.about for one in self.measures}}, indent=1
        )

    def table(self) -> Table:
        """A row a set; the best of each column is bold."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        table.add_column("set", min_width=_LEAST_LETTERS)
        for one in self.measures:
            table.add_column(one.title, justify="right", no_wrap=True)
        for name, row in zip(self.names(), self.rows, strict=True):
            table.add_row(Text.assemble(name, "\n", (row.about, "dim")), *self._cells(row))
        return table

    def _cells(self, row: SeparabilityRow) -> Sequence[Text]:
        cells = []
        for one in self.measures:
            value = row.value(one)
            best = value is not None and value == self.best(one)
            cells.append(Text("" if value is None else f"{value:.3f}", style="bold" if best else ""))
        return cells

    def notes(self) -> list[str]:
        """What has to be said beside the table, a line each."""
        graphs = {(row.bundle, f"{row.bundle} at {row.size} in {row.precision}"): None for row in self.rows}
        ran = ", ".join(text for _, text in graphs)
        lines = [f"{self.images} images of {self.data}; {ran}; k-means with k = {self.k}, seed {self.seed}"]
        return [*lines, *(f"{one.title}: {one.about}" for one in self.measures)]
