"""Which engine and which precision "auto" is: by what was measured, and by what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution

from patchcut.bundle import BackboneSpec, Precision, TimingRow
from patchcut.engines.base import choose_graph
from patchcut.engines.cpu_kind import cpu_kind, multiplies_int8
from patchcut.engines.processes import process_with_threads
from patchcut.installed import has_engine
from patchcut.settings import Settings

DEFAULT_ENGINE = "onnxruntime"

# For making bundles: it runs where it is asked for.
_NEVER_CHOSEN = ("torch",)
# Where there is no onnxruntime.
_OTHERS = {"auto": ("openvino", "tensorrt"), "cpu": ("openvino",), "cuda": ("tensorrt",)}
_PRECISIONS: tuple[Precision, ...] = ("int8", "int8-qdq", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        engine: its name.
        precision: as in `Settings`; "auto" leaves it to the engine.
        why: for people, in a line.
    """

    engine: str
    precision: str
    why: str


def choose(backbone: BackboneSpec, settings: Settings, engines: Sequence[str]) -> Choice:
    """The engine and the precision that the settings stand for on this machine.

    What is asked for is taken as it is. The rest is, on a CPU, the fastest of what the backbone's `timings`
    have of this kind of CPU and this size, whose precision the backbone's `agreement` accepts, and whose
    engine is installed. Where nothing was measured it is ONNX Runtime, in int8 where the CPU multiplies 8
    bits, else in fp32.

    Args:
        engines: names of the registered engines.
    Raises:
        OptionError: the backbone has no such size.
    Examples:
        >>> settings = patchcut.Settings(engine="onnxruntime", precision="fp32")
        >>> patchcut.engines.choice.choose(bundle.spec.backbone, settings, ["onnxruntime"]).why
        'both were asked for'
    """
    if "auto" not in (settings.engine, settings.precision):
        return Choice(settings.engine, settings.precision, "both were asked for")
    on_cpu = settings.device == "cpu" or (settings.device == "auto" and not _has_cuda_wheel())
    size = choose_graph(backbone, replace(settings, precision="auto"), _PRECISIONS).size_hw[0]
    asked = (settings.engine,)
    # in a fork of a process that ran it, OpenVINO waits for threads that are not there
    engines = [name for name in engines if process_with_threads(name) is None or name == settings.engine]
    installed = [
        name for name in engines if (has_engine(name) and name not in _NEVER_CHOSEN) or name in asked
    ]
    if on_cpu and (rows := _usable(backbone, settings, installed, size)):
        return _fastest(rows)
    if settings.engine not in ("auto", DEFAULT_ENGINE):
        why = "the engine was asked for, and chooses the precision"
        return Choice(settings.engine, settings.precision, why)
    return _unmeasured(backbone, settings, installed, size, on_cpu=on_cpu)


def faster_elsewhere(
    backbone: BackboneSpec, settings: Settings, engines: Sequence[str], size: int
) -> list[str]:
    """Engines that are not installed and were measured to be faster on this kind of CPU than those that are.

    Args:
        engines: names of the registered engines.
        size: side of the backbone's input.
    Returns:
        Their names, the fastest first; none where nothing was measured on such a CPU.
    Examples:
        >>> patchcut.engines.choice.faster_elsewhere(bundle.spec.backbone, patchcut.Settings(), [], 224)
        []
    """
    names = [name for name in engines if name not in _NEVER_CHOSEN]
    installed = [name for name in names if has_engine(name)]
    rows = sorted(_usable(backbone, settings, names, size), key=lambda row: row.ms)
    best = next((row.ms for row in rows if row.engine in installed), None)
    faster = (row.engine for row in rows if best is None or row.ms < best)
    return [name for name in dict.fromkeys(faster) if name not in installed]


def _usable(
    backbone: BackboneSpec, settings: Settings, installed: Sequence[str], size: int
) -> list[TimingRow]:
    """What was measured on this kind of CPU, and may be chosen."""
    kind = cpu_kind()
    return [
        row
        for row in backbone.timings
        if (row.device, row.cpu, row.size) == ("cpu", kind, size)
        and row.engine in installed
        and settings.engine in ("auto", row.engine)
        and settings.precision in ("auto", row.precision)
        and (settings.precision != "auto" or is_accepted(backbone, row.precision, size))
    ]


def _fastest(rows: Sequence[TimingRow]) -> Choice:
    best = min(rows, key=lambda row: row.ms)
    others = sorted((row for row in rows if row is not best), key=lambda row: row.ms)
    beside = "".join(f", {row.engine} {row.precision} {row.ms:.1f}" for row in others[:3])
    why = f"the fastest that was measured on {best.cpu}: {best.ms:.1f} ms{beside and '; ' + beside[2:]}"
    return Choice(best.engine, best.precision, why)


def _unmeasured(
    backbone: BackboneSpec, settings: Settings, installed: Sequence[str], size: int, *, on_cpu: bool
) -> Choice:
    engine, why = _default_engine(settings, installed)
    precision = settings.precision
    if precision == "auto" and on_cpu and engine == DEFAULT_ENGINE:
        held = {graph.precision for graph in backbone.graphs if graph.size_hw[0] == size}
        kind = cpu_kind()
        if "fp32" in held and not multiplies_int8(kind):
            precision, why = "fp32", f"{why}; {kind} is no faster in int8"
        elif "fp32" in held and is_refused(backbone, "int8", size):
            precision, why = "fp32", f"{why}; the bundle's report does not accept its int8"
    return Choice(engine, precision, why)


def _default_engine(settings: Settings, installed: Sequence[str]) -> tuple[str, str]:
    if settings.engine != "auto":
        return settings.engine, "the engine was asked for"
    if settings.device in ("gpu", "npu"):
        return "openvino", f'"{settings.device}" is Intel\'s'
    if settings.precision == "bf16" and settings.device != "cuda":
        return "openvino", "it computes bf16 on a CPU"
    others = [name for name in _OTHERS[settings.device] if name in installed]
    if DEFAULT_ENGINE not in installed and others:
        return others[0], f"{DEFAULT_ENGINE} is not installed"
    return DEFAULT_ENGINE, f"the bundle has no times of {cpu_kind()}"


def is_accepted(backbone: BackboneSpec, precision: Precision, size: int) -> bool:
    """Whether the backbone's agreement says that a precision is near enough to fp32; fp32 itself always is.

    Examples:
        >>> patchcut.engines.choice.is_accepted(bundle.spec.backbone, "fp32", 224)
        True
    """
    rows = _agreement(backbone, precision, size)
    return precision == "fp32" or (bool(rows) and all(rows))


def is_refused(backbone: BackboneSpec, precision: Precision, size: int) -> bool:
    """Whether the backbone's agreement says that a precision is not near enough to fp32.

    Of a bundle that was made before there was a gate, nothing is known.
    Examples:
        >>> patchcut.engines.choice.is_refused(bundle.spec.backbone, "fp32", 224)
        False
    """
    return precision != "fp32" and not all(_agreement(backbone, precision, size))


def _agreement(backbone: BackboneSpec, precision: Precision, size: int) -> list[bool]:
    """What the gate said of a precision and size, a word a feature set that is wanted."""
    rows = backbone.agreement
    return [
        row.accepted
        for row in rows
        if (row.precision, row.size) == (precision, size) and row.features in backbone.features
    ]


def _has_cuda_wheel() -> bool:
    """Whether onnxruntime came as the wheel that has CUDA: "auto" is then CUDA where it runs."""
    try:
        return distribution("onnxruntime-gpu") is not None
    except PackageNotFoundError:
        return False
