"""Holds a fused file to patchcut's own answers before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.cli.demo import SAMPLES
from patchcut.engines.onnxruntime import import_onnxruntime, session_options
from patchcut.features import to_host
from patchcut.frames import Frame
from patchcut.heads import open_head
from patchcut.heads.levels import LevelsHead
from patchcut.heads.prototypes import PrototypesHead
from patchcut.opencv import load_cv2
from patchcut.settings import Settings
from patchcut.sources.photos import read_photo
from patchcut.stages import Extractor
from patchcut_kernels import default_threads

from patchcut_export.errors import ExportError
from patchcut_export.fused.model import ASSIGNMENT, INPUT
from patchcut_export.fused.plan import FusedPlan, choose_parts

# Both run the same backbone in ONNX Runtime, so that only the sums of frame and head are rounded otherwise:
# 4e-6 in fp32. In 8 bits what differs by that much may be rounded to another step: 99.1 % of labels alike.
_MOST, _LEAST_SAME = 1e-3, 0.999
_MOST_IN_FEW_BITS, _LEAST_SAME_IN_FEW_BITS = 0.05, 0.95


@dataclass(frozen=True)
class Comparison:
    """A file's answers beside patchcut's own.

    Attributes:
        photos: how many were looked at.
        largest: difference of two numbers of an assignment, at most.
        same: share of patches that get the same label.
    """

    photos: int
    largest: float
    same: float


def compare(fused: bytes, bundle: Bundle, plan: FusedPlan) -> Comparison:
    """A fused file beside patchcut with the same graph and head, on the sample photos.

    Raises:
        ExportError: they differ by more than rounding.
    """
    head_spec, _, graph = choose_parts(bundle, plan)
    height, width = plan.frame_hw or graph.size_hw
    frames = [_scaled(read_photo(path), height, width) for path in sorted(SAMPLES.glob("*.jpg"))]
    settings = Settings(engine="onnxruntime", device="cpu", size=graph.size_hw[0], precision=graph.precision)
    extractor = Extractor.open(bundle, settings, backbone=head_spec.backbone, needs=head_spec.features)
    head = open_head(bundle, head_spec)
    ort = import_onnxruntime()
    options = session_options(ort, default_threads(), graph.precision)
    session = ort.InferenceSession(fused, options, providers=["CPUExecutionProvider"])
    answer = head.per_patch if isinstance(head, LevelsHead | PrototypesHead) else head
    own = np.concatenate([to_host(answer(extractor([Frame(frame)]))) for frame in frames])
    found = np.concatenate([_run(session, frame, plan) for frame in frames])
    differing = np.abs(found - own)
    same = float((found.argmax(-1) == own.argmax(-1)).mean())
    comparison = Comparison(len(frames), float(differing.max()), same)
    exact = graph.precision == "fp32"
    most, least = (_MOST, _LEAST_SAME) if exact else (_MOST_IN_FEW_BITS, _LEAST_SAME_IN_FEW_BITS)
    if not differing.mean() <= most or not same >= least:  # and where it is not a number
        what = f"the file's assignment differs from patchcut's by {comparison.largest:.3g}, {same:.1%} alike"
        raise ExportError("fused", what, "try another --precision, and tell us")
    return comparison


def _scaled(frame: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    cv2: Any = load_cv2()
    scaled: npt.NDArray[np.uint8] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return scaled


def _run(session: Any, frame: npt.NDArray[np.uint8], plan: FusedPlan) -> npt.NDArray[np.float32]:
    """[1, n, k] of one BGR frame: with others in its batch an int8 graph would round otherwise."""
    pixels = frame if plan.color == "bgr" else frame[:, :, ::-1]
    batch = pixels[None].transpose(0, 3, 1, 2).astype(np.float32) if plan.planar else pixels[None]
    (found,) = session.run([ASSIGNMENT], {INPUT: np.ascontiguousarray(batch)})
    assignment: npt.NDArray[np.float32] = found
    return assignment
