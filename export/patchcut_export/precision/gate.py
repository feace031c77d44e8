"""The gate: every precision of a bundle against fp32 on the same pictures, and what is too far from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import patchcut
from patchcut.bundle import AgreementRow, Bundle, Precision, open_bundle
from patchcut.errors import OptionError
from patchcut.features import Features
from patchcut.frames import Frame
from patchcut.heads import Head, open_head
from patchcut.settings import Settings
from patchcut.stages import Extractor

from patchcut_export.errors import ExportError
from patchcut_export.measuring.datasets import Dataset, open_dataset
from patchcut_export.precision.pictures import Pictures, fewer

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Least:
    """What a precision must reach on every feature set; on random pictures only the cosines count.

    Attributes:
        cosine_mean, cosine_worst, affinity_correlation, label_agreement: at least this.
        loss: IoU and CorLoc may be this much below fp32's.
    """

    cosine_mean: float
    cosine_worst: float
    affinity_correlation: float
    label_agreement: float
    loss: float


# fp32 is on 8-bit weights where it is measured at all. In 8 bits a single patch may be far off: the worst of
# 25,600 of the embedded bundle has 0.97 in int8 and 0.93 in int8-qdq.
LEAST: dict[Precision, Least] = {
    "fp32": Least(0.998, 0.98, 0.99, 0.98, 0.01),
    "fp16": Least(0.9999, 0.995, 0.999, 0.99, 0.005),
    "bf16": Least(0.999, 0.98, 0.99, 0.98, 0.005),
    "int8": Least(0.998, 0.8, 0.98, 0.97, 0.01),
    "int8-qdq": Least(0.998, 0.8, 0.98, 0.97, 0.01),
}


def measure(
    candidate: Path,
    reference: Path,
    pictures: Pictures,
    truth: Dataset | None = None,
    say: Say = lambda line: None,
) -> tuple[AgreementRow, ...]:
    """How near each precision of a bundle comes to fp32, at each size, for each of its feature sets.

    An assignment that the graph computes is no feature set: it is judged by its labels, as of every head.

    Each runs in ONNX Runtime; on photos, where OpenVINO is installed, "int8-qdq" in it as well, and "bf16" on
    a CPU that computes in it.

    Args:
        candidate: a .patchcut file; its first backbone is measured.
        reference: the same with exact weights, and graphs in fp32 of the same sizes.
        pictures: what features and labels are compared on.
        truth: masks or boxes, for which the candidate needs a head.
        say: called with a line of progress.
    """
    rows: list[AgreementRow] = []
    with open_bundle(candidate) as bundle, open_bundle(reference) as exact:
        sizes = dict.fromkeys(graph.size_hw[0] for graph in bundle.spec.backbone.graphs)
        for size in sizes:
            runs = list(_runs(bundle, size, pictures, say))
            images = fewer(pictures.measured, size)
            _compare(runs, _extractor(exact, "onnxruntime", "fp32", size), _head(bundle), images)
            for run in runs:
                losses = _losses(candidate, reference, run, size, truth)
                rows += run.rows(size, len(images), pictures, losses)
                say(f"{size}x{size} {run.precision} in {run.engine}: {run.told}")
    return tuple(rows)


def open_truth(root: Path) -> Dataset:
    """The images of a folder with `masks/`, or else `boxes.json`.

    Raises:
        DatasetError: it has neither, or they do not fit its images.
    """
    return open_dataset("boxes" if (root / "boxes.json").is_file() else "masks", root)


def refused(rows: Sequence[AgreementRow], precisions: Sequence[Precision]) -> ExportError | None:
    """The line that says what of these precisions is too far from fp32, None where nothing is."""
    for row in rows:
        if row.precision in precisions and not row.accepted:
            what = f"{row.precision} at {row.size} is too far from fp32: {row.features} in {row.engine} has "
            remedy = (
                "export another precision, or pass --allow-inaccurate, which the bundle will say for ever"
            )
            return ExportError("gate", what + _shortfalls(row, photos=True), remedy)
    return None


def _ways(bundle: Bundle, size: int, *, photos: bool) -> Iterator[tuple[str, Precision]]:
    """Engine and precision of what is measured."""
    held = [graph.precision for graph in bundle.spec.backbone.graphs if graph.size_hw[0] == size]
    yield from (("onnxruntime", precision) for precision in held)
    if photos and find_spec("openvino") is not None:
        if "int8-qdq" in held:
            yield "openvino", "int8-qdq"
        if "fp32" in held and "bf16" not in held:
            yield "openvino", "bf16"  # of the fp32 graph


def _runs(bundle: Bundle, size: int, pictures: Pictures, say: Say) -> Iterator[_Run]:
    """What is measured at a size, opened."""
    for engine, precision in _ways(bundle, size, photos=pictures.are_photos):
        try:
            yield _Run(engine, precision, _extractor(bundle, engine, precision, size))
        except OptionError as error:
            if (engine, precision) != ("openvino", "bf16"):
                raise
            say(f"left out: {error.what}")  # a CPU without it never runs the bundle so


def _extractor(bundle: Bundle, engine: str, precision: Precision, size: int) -> Extractor:
    settings = Settings(engine=engine, precision=precision, size=size, device="cpu")
    return Extractor.open(bundle, settings, needs=tuple(bundle.spec.backbone.features))


def _head(bundle: Bundle) -> Head | None:
    spec = bundle.spec.head("objects")
    return None if spec is None else open_head(bundle, spec)


@dataclass
class _Similarity:
    """Of one feature set, picture by picture; of class tokens their affinity is that between pictures."""

    cosines: list[Float32] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)
    tokens: list[tuple[Float32, Float32]] = field(default_factory=list)

    def add(self, expected: Float32, got: Float32) -> None:
        """Takes one picture's, [n, d] each."""
        a, b = _directions(expected), _directions(got)
        self.cosines.append((a * b).sum(-1))
        if len(a) == 1:
            self.tokens.append((a[0], b[0]))
        else:
            self.correlations.append(_correlation(a, b))

    def correlation(self) -> float:
        """Pearson's r of affinities, the least of all pictures."""
        if self.tokens:
            a, b = (np.stack(rows) for rows in zip(*self.tokens, strict=True))
            return _correlation(a, b)
        return min(self.correlations)


@dataclass
class _Run:
    """One precision in one engine, and what was found of it."""

    engine: str
    precision: Precision
    extractor: Extractor
    sets: dict[str, _Similarity] = field(default_factory=dict)
    labels: list[float] = field(default_factory=list)
    told: str = ""

    def rows(
        self, size: int, images: int, pictures: Pictures, losses: dict[str, float]
    ) -> list[AgreementRow]:
        """A row a feature set; labels and masks are of the first."""
        rows = []
        for i, (name, one) in enumerate(self.sets.items()):
            cosines = np.concatenate(one.cosines)
            numbers: dict[str, Any] = {
                "cosine_mean": float(cosines.mean()),
                "cosine_worst": float(cosines.min()),
                "affinity_correlation": one.correlation(),
            }
            if i == 0 and self.labels:
                numbers["label_agreement"] = float(np.mean(self.labels))
            if i == 0:
                numbers |= losses
            row = AgreementRow(
                precision=self.precision,
                size=size,
                features=name,
                engine=f"{self.engine} {version(self.engine)}",
                images=images,
                data=pictures.name,
                accepted=True,
                **{key: _number(value) for key, value in numbers.items()},
            )
            shortfalls = _shortfalls(row, photos=pictures.are_photos)
            rows.append(row.model_copy(update={"accepted": not shortfalls}))
        first = rows[0]
        self.told = f"cosine of {first.features} {first.cosine_mean:.5f}, worst {first.cosine_worst:.4f}"
        return rows


def _compare(runs: Sequence[_Run], exact: Extractor, head: Head | None, images: Sequence[Any]) -> None:
    features = [name for name, one in exact.backbone.features.items() if not one.is_assignment]
    for image in images:
        frame = [Frame(image, color="bgr")]
        expected = {name: np.array(array) for name, array in exact(frame).sets.items()}
        grid_hw = exact.graph.grid_hw
        labels = None if head is None else _labels(head, Features(expected, grid_hw))
        for run in runs:
            got = run.extractor(frame)
            for name in features:
                array = expected[name]
                run.sets.setdefault(name, _Similarity()).add(array[0], np.array(got[name])[0])
            if head is not None:
                run.labels.append(float((_labels(head, got) == labels).mean()))


def _labels(head: Head, features: Features) -> npt.NDArray[np.int64]:
    assignment = np.array(head(features))
    return np.asarray(assignment.argmax(-1))


def _losses(
    candidate: Path, reference: Path, run: _Run, size: int, truth: Dataset | None
) -> dict[str, float]:
    """IoU and CorLoc less fp32's, of what masks and boxes tell."""
    if truth is None:
        return {}
    expected = _quality(reference, "onnxruntime", "fp32", size, truth)
    got = _quality(candidate, run.engine, run.precision, size, truth)
    return {name: got[name] - expected[name] for name in expected}


def _quality(path: Path, engine: str, precision: Precision, size: int, truth: Dataset) -> dict[str, float]:
    from patchcut_export.measuring.evaluation import evaluate, summarize

    segmenter = patchcut.load(path, engine=engine, precision=precision, size=size, device="cpu", color="bgr")
    scores = list(evaluate(segmenter, truth.examples, lambda done, total: None))
    metrics = summarize(scores).metrics
    names = {"iou": "mean foreground IoU", "corloc": "CorLoc"}
    return {name: metrics[title] for name, title in names.items() if title in metrics}


def _shortfalls(row: AgreementRow, *, photos: bool) -> str:
    """What is below its least value, for people; empty where nothing is."""
    least = LEAST[row.precision]
    found = [
        ("a mean cosine of", row.cosine_mean, least.cosine_mean),
        ("a worst cosine of", row.cosine_worst, least.cosine_worst),
    ]
    if photos:
        found.append(("an affinity correlation of", row.affinity_correlation, least.affinity_correlation))
        if row.label_agreement is not None:
            found.append(("a label agreement of", row.label_agreement, least.label_agreement))
        found += [
            (f"{words} against fp32 of", value, -least.loss)
            for words, value in (("an IoU", row.iou), ("a CorLoc", row.corloc))
            if value is not None
        ]
    short = [
        f"{words} {value:.4f}, at least {needed} needed"
        for words, value, needed in found
        if not value >= needed
    ]
    return "; ".join(short)


def _number(value: float) -> float:
    """As the report has it: within its bounds, and the least where it is no number."""
    return round(min(1.0, max(-1.0, value)), 6) if np.isfinite(value) else -1.0


def _directions(rows: Float32) -> Float32:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def _correlation(a: Float32, b: Float32) -> float:
    """Pearson's r of the cosines between rows; 1 where neither varies."""
    x, y = (np.asarray(one @ one.T, np.float64).ravel() for one in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 1.0
