"""A picture of votes: how much each voter says that a patch is foreground, beside what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchcut.frames import Frame
from patchcut.opencv import load_cv2

Image = npt.NDArray[np.uint8]

# Pixels of the longer side of one panel.
_PANEL = 480
_HEAT = 0.6


def draw_votes(
    frame: Frame,
    votes: npt.NDArray[np.float32],
    voters: Sequence[str],
    foreground: npt.NDArray[np.bool_],
    grid_hw: tuple[int, int],
) -> Image:
    """[h, w, 3] uint8: a panel for each voter, blue is background and red foreground, then the foreground.

    Args:
        frame: [H, W], whose order of channels the picture has.
        votes: [v, n] float32 in [0, 1], n = h * w patches.
        voters: the names of the v.
        foreground: [H, W] bool, what came of it.
        grid_hw: rows and columns of the patches.
    Raises:
        PatchcutError: OpenCV is missing.
    Examples:
        >>> one = np.zeros((1, 256), np.float32), ["dataset"], np.zeros((512, 512), bool), (16, 16)
        >>> patchcut.output.votes.draw_votes(patchcut.Frame(frame), *one).shape
        (480, 960, 3)
    """
    cv2 = load_cv2()
    height, width = frame.image.shape[:2]
    shrink = min(1.0, _PANEL / max(height, width))
    size_wh = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(np.ascontiguousarray(frame.image), size_wh, interpolation=cv2.INTER_AREA)
    panels = []
    for voter, values in zip(voters, votes, strict=True):
        patches = np.uint8(np.clip(values, 0, 1) * 255).reshape(grid_hw)
        heat = cv2.applyColorMap(
            cv2.resize(patches, size_wh, interpolation=cv2.INTER_LINEAR), cv2.COLORMAP_JET
        )
        heat = heat[..., ::-1] if frame.color == "rgb" else heat
        panels.append(_titled(cv2.addWeighted(small, 1 - _HEAT, heat, _HEAT, 0), voter))
    inside = cv2.resize(foreground.view(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
    panels.append(_titled(np.where(inside[..., None] > 0, small, small // 4).astype(np.uint8), "agreed"))
    picture: Image = np.concatenate(panels, axis=1)
    return picture


def _titled(panel: Image, title: str) -> Image:
    cv2 = load_cv2()
    scale = max(0.35, min(panel.shape[:2]) / 600)
    for ink, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        origin = (6, round(30 * scale))
        cv2.putText(panel, title, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
    return panel
