"""The curve of a training run as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from patchcut.output.whole_files import write_image

from patchcut_export.distillation.log import StepLog

_WIDTH, _HEIGHT, _MARGIN = 720, 260, 46
_INK, _GRID = (60, 60, 60), (225, 225, 225)
_TRAINED, _HELD_OUT = (180, 120, 40), (40, 70, 210)  # BGR: blue, red


def draw_curve(path: Path, lines: Sequence[StepLog]) -> None:
    """Writes a PNG: the losses of masks and features over the steps, and the IoU where it was watched.

    Args:
        path: the file; replaced whole.
        lines: of the log, rising.
    Raises:
        OutputError: it cannot be written.
    """
    panels = [
        _panel("loss of the masks", lines, lambda line: line.mask, lambda line: line.held_out_mask),
        _panel(
            "loss of the features", lines, lambda line: line.features, lambda line: line.held_out_features
        ),
    ]
    if any(line.dev_iou is not None for line in lines):
        panels.append(_panel("IoU of the dev images", lines, lambda _: None, lambda line: line.dev_iou))
    write_image(path, np.concatenate(panels))


_Value = Callable[[StepLog], float | None]


def _panel(title: str, lines: Sequence[StepLog], trained: _Value, held_out: _Value) -> npt.NDArray[np.uint8]:
    """[_HEIGHT, _WIDTH, 3] uint8: two curves over the steps, beside the range of their values."""
    picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    curves = [
        ([(line.step, value) for line in lines if (value := of(line)) is not None], color)
        for of, color in ((trained, _TRAINED), (held_out, _HELD_OUT))
    ]
    values = [value for points, _ in curves for _, value in points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    last = max((line.step for line in lines), default=1)
    inner_w, inner_h = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    for i in range(5):
        y = _MARGIN + inner_h * i // 4
        cv2.line(picture, (_MARGIN, y), (_WIDTH - _MARGIN, y), _GRID, 1)
        _write(picture, f"{high - (high - low) * i / 4:.3f}", (4, y + 4))
    for points, color in curves:
        xy = [
            (_MARGIN + step / last * inner_w, _MARGIN + (high - value) / (high - low) * inner_h)
            for step, value in points
        ]
        cv2.polylines(picture, [np.int32(np.round(xy)).reshape(-1, 1, 2)], False, color, 1, cv2.LINE_AA)
        if len(xy) == 1:
            cv2.circle(picture, tuple(np.int32(np.round(xy[0])).tolist()), 2, color, -1)
    _write(picture, title, (_MARGIN, 18))
    _write(picture, "trained on", (_WIDTH - 220, 18), _TRAINED)
    _write(picture, "held out", (_WIDTH - 120, 18), _HELD_OUT)
    _write(picture, f"step {last}", (_WIDTH - _MARGIN - 60, _HEIGHT - 14))
    return picture


def _write(
    picture: npt.NDArray[np.uint8], text: str, at: tuple[int, int], color: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)
