"""What may be chosen of a fused graph."""

from __future__ import annotations

from dataclasses import dataclass

from patchcut.bundle import BackboneSpec, Bundle, GraphSpec, HeadSpec
from patchcut.checks import check_choice
from patchcut.engines import choose_graph
from patchcut.errors import OptionError
from patchcut.settings import COLOR_ORDERS, PRECISIONS, ColorOrder, Settings

from patchcut_export.errors import ExportError
from patchcut_export.fused.heads import FUSED, assignment_rows

_MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class FusedPlan:
    """What one file is to compute.

    Attributes:
        head: name of one of the bundle's trained heads; "auto" is the first for objects.
        size: side of the backbone's input in pixels, None for the bundle's default.
        precision: that of the backbone's graph.
        frame_hw: size of the frames; None where they come at the size of the backbone's input.
        color: order of the frames' channels.
        label_map: whether label maps are an output, too.
        features: whether the features that tracks are followed by are one: the head's first set.
        planar: whether frames come as planes of floats, [3, H, W], as DeepStream's nvinfer gives them.
        packed: whether a graph of floats keeps its weights in the 8 bits in which the bundle holds them. Who
            runs it must have them turned into floats: ONNX Runtime by session.disable_quant_qdq.
    Raises:
        OptionError: a value that is none of these.
    """

    head: str = "auto"
    size: int | None = None
    precision: str = "fp32"
    frame_hw: tuple[int, int] | None = None
    color: ColorOrder = "rgb"
    label_map: bool = False
    features: bool = False
    planar: bool = False
    packed: bool = False

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS[1:])
        check_choice("color", self.color, COLOR_ORDERS)
        if self.frame_hw is not None and not all(1 <= side <= _MAX_SIDE for side in self.frame_hw):
            came = "x".join(map(str, self.frame_hw))
            raise OptionError("frame", f"must have sides of 1 to {_MAX_SIDE} pixels, got {came}")


def parse_frame(text: str) -> tuple[int, int]:
    """(H, W) of a text such as "480x640".

    Raises:
        OptionError: it is no such text.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) < 6 for side in sides):
        raise OptionError("frame", f"must be a height and a width, such as 480x640, got {text!r}")
    return int(sides[0]), int(sides[1])


def choose_parts(bundle: Bundle, plan: FusedPlan) -> tuple[HeadSpec, BackboneSpec, GraphSpec]:
    """The head, its backbone and the graph that the plan names.

    Raises:
        OptionError: the bundle has no such head, size or precision.
        ExportError: it has no head that can be frozen into a graph.
    """
    heads = {head.name: head for head in bundle.spec.heads if head.kind in FUSED}
    if not heads:
        what = f"{bundle.path} has no trained head of the kind {' or '.join(FUSED)}"
        raise ExportError("bundle", what, "make one with `patchcut export train`")
    check_choice("head", plan.head, ("auto", *heads))
    if plan.head == "auto":
        head = next((one for one in heads.values() if one.role == "objects"), next(iter(heads.values())))
    else:
        head = heads[plan.head]
    backbone = bundle.spec.backbones[head.backbone]
    graph = choose_graph(backbone, Settings(size=plan.size, precision=plan.precision), ())
    return head, backbone, graph


def describe(bundle: Bundle, plan: FusedPlan) -> str:
    """A line for people about what goes in and what comes out.

    Examples:
        >>> describe(bundle, FusedPlan())
        'image [batch, 224, 224, 3] uint8 rgb to assignment [batch, 256, 2] float32'
    """
    head, backbone, graph = choose_parts(bundle, plan)
    height, width = plan.frame_hw or graph.size_hw
    rows = assignment_rows(backbone, head, graph.grid_hw)
    kind = f"3, {height}, {width}] float32" if plan.planar else f"{height}, {width}, 3] uint8"
    outputs = [f"assignment [batch, {rows}, {len(head.labels)}] float32"]
    if plan.label_map:
        outputs.append(f"label_map [batch, {height}, {width}] int32")
    if plan.features:
        patches, dim = graph.grid_hw[0] * graph.grid_hw[1], backbone.features[head.features[0]].dim
        outputs.append(f"features [batch, {patches}, {dim}] float32")
    return f"image [batch, {kind} {plan.color} to {' and '.join(outputs)}"
