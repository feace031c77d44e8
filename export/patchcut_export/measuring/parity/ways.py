"""The ways to run a bundle here: each is an engine on a device in a precision at a size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from patchcut import Segmenter
from patchcut.bundle import BackboneSpec, Bundle, GraphSpec
from patchcut.engines import engine_names
from patchcut.errors import OptionError, PatchcutError
from patchcut.settings import DEVICES, PRECISIONS, Settings

# What computes in fp32 most plainly comes first: agreement is measured against it.
_REFERENCES = ("torch", "onnxruntime")

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Way:
    """One of them, open.

    Attributes:
        engine, device, precision, size: as settings name them.
        file_bytes: what of the bundle it reads: its graph, and the weights that this one names.
        accepted: what the bundle's report says of this precision at this size; None where it says nothing.
        segmenter: what runs it.
    """

    engine: str
    device: str
    precision: str
    size: int
    file_bytes: int
    accepted: bool | None
    segmenter: Segmenter

    @property
    def name(self) -> str:
        """For people, without the size."""
        return f"{self.engine} {self.precision}" + (f" on {self.device}" if self.device != "cpu" else "")

    @property
    def settings(self) -> Settings:
        """What opens it again."""
        return self.segmenter.settings


@dataclass(frozen=True)
class Absent:
    """An engine on a device in a precision that does not run here, and why."""

    engine: str
    device: str
    precision: str
    size: int
    why: str
    offered: bool


def open_ways(
    bundle: Bundle, settings: Settings, sizes: Sequence[int], only: Mapping[str, Sequence[str]], step: Step
) -> tuple[list[Way], list[Absent]]:
    """Every way that opens, and the others.

    Args:
        bundle: what is run.
        settings: all that is the same for each of them.
        sizes: of the backbone's input.
        only: the engines and precisions to try, under "engine" and "precision"; empty for all.
        step: called with a title, what is done and how many there are.
    """
    tried = list(_combinations(settings, sizes, only))
    ways: list[Way] = []
    absent: list[Absent] = []
    for done, asked in enumerate(tried):
        step("opening engines", done, len(tried))
        try:
            way = _open(bundle, asked)
        except (PatchcutError, ImportError) as error:  # an engine of another package may lack what it needs
            offered = not isinstance(error, OptionError)
            size = asked.size or 0
            absent.append(Absent(asked.engine, asked.device, asked.precision, size, str(error), offered))
            continue
        if not any(_key(way) == _key(other) for other in ways):
            ways.append(way)
    step("opening engines", len(tried), len(tried))
    return ways, absent


def _combinations(
    settings: Settings, sizes: Sequence[int], only: Mapping[str, Sequence[str]]
) -> Iterator[Settings]:
    devices = DEVICES[1:] if settings.device == "auto" else (settings.device,)
    for size in sizes:
        for engine in only["engine"] or engine_names():
            for device in devices:
                for precision in only["precision"] or PRECISIONS[1:]:
                    chosen: dict[str, Any] = {"engine": engine, "device": device, "precision": precision}
                    yield replace(settings, size=size, **chosen)


def _key(way: Way) -> tuple[str, str, str, int]:
    return way.engine, way.device, way.precision, way.size


def _open(bundle: Bundle, settings: Settings) -> Way:
    """The way of these settings, after one frame: some engines refuse a graph only when it runs."""
    segmenter = Segmenter.open(settings)
    segmenter(np.zeros((32, 32, 3), np.uint8))
    facts, backbone = segmenter.extractor.engine.facts, segmenter.extractor.backbone
    return Way(
        engine=facts.name,
        device=facts.device,
        precision=facts.precision,
        size=facts.graph.size_hw[0],
        file_bytes=_bytes_of(bundle, backbone, facts.graph),
        accepted=_accepted(backbone, facts.precision, facts.graph.size_hw[0]),
        segmenter=segmenter,
    )


def _bytes_of(bundle: Bundle, backbone: BackboneSpec, graph: GraphSpec) -> int:
    weights = bundle.read_tensors(backbone.weights) if backbone.weights and graph.initializers else {}
    return bundle.spec.files[graph.file].bytes + sum(weights[name].nbytes for name in graph.initializers)


def _accepted(backbone: BackboneSpec, precision: str, size: int) -> bool | None:
    rows = [row for row in backbone.agreement if (row.precision, row.size) == (precision, size)]
    rows = [row for row in rows if row.features in backbone.features]
    return all(row.accepted for row in rows) if rows else None


def reference_of(ways: Sequence[Way]) -> Way | None:
    """What the others are measured against: fp32 on the CPU, by torch if it is there; None without fp32."""
    exact = [way for way in ways if way.precision == "fp32"]
    on_cpu = [way for way in exact if way.device == "cpu"] or exact
    order = {name: i for i, name in enumerate(_REFERENCES)}
    return min(on_cpu, key=lambda way: order.get(way.engine, len(order)), default=None)
