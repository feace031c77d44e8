"""Labels that flicker: pixels between two labels, where the frame is what it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchcut.cells import cells_of
from patchcut.stages.canvas import Canvas
from patchcut.stages.refiners import changed

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# In the calmer half of a street that a fixed camera films (vtest.avi at 448) the refined value of a pixel
# between two labels changes by at most 0.053 from frame to frame in 95 of 100 cases, and 99 of 100 cosines
# are above 0.917.
MARGIN, CHANGED = 0.05, 0.9


class SteadyLabels:
    """Gives pixels of one video the label that they had, where that is as good and nothing has changed.

    A pixel between two labels has one on this frame and the other on the next, by the noise of the camera and
    of the video's compression. Here it goes over only when the new label leads the old one by twice a margin:
    `MARGIN` where the features of its patches are those of the frame before, less the more they have changed,
    and none at a cosine of `CHANGED`. So what moves is followed at once, and no label that loses by more is
    ever shown. Nothing is remembered but the last label map.
    Examples:
        >>> canvas = patchcut.stages.Canvas((1, 2), (0, 0), (1, 2), (1, 2))
        >>> steady, same = patchcut.video.SteadyLabels(), np.ones(2, np.float32)
        >>> for foreground in (0.51, 0.49, 0.40):
        ...     assignment = np.float32([[1, 0], [1 - foreground, foreground]])
        ...     label_map, confidence = canvas.upsample(assignment)
        ...     kept = steady(label_map, confidence, assignment, canvas, same)
        ...     label_map.tolist(), kept.tolist()
        ([[0, 1]], [])
        ([[0, 1]], [1])
        ([[0, 0]], [])
    """

    def __init__(self) -> None:
        self._before: Int32 | None = None

    def clear(self) -> None:
        """Forgets the frame before: the next one has the labels that it comes with.

        Examples:
            >>> patchcut.video.SteadyLabels().clear()
        """
        self._before = None

    def __call__(
        self,
        label_map: Int32,
        confidence: Float32,
        assignment: Float32,
        canvas: Canvas,
        cosines: Float32 | None,
    ) -> npt.NDArray[np.intp]:
        """Takes the next frame; gives pixels their old label in place, with what the new one leaves of 1.

        Args:
            label_map: [H, W] int32, each pixel's best label.
            confidence: [H, W] float32 in [0, 1], how good it is. Of two labels the other has what is left of
                1; of more the assignment tells.
            assignment: [n, k] float32, of the patches, or [c * c * n, k] of their cells.
            canvas: where the frame lies.
            cosines: [n] float32, of each patch's features with those at the same place of the frame before;
                None where that is no frame to compare with.
        Returns:
            These pixels, as flat indices.
        """
        before, all_kept = self._before, [np.zeros(0, np.intp)]
        if before is None or before.shape != label_map.shape:
            self._before = label_map.copy()
            return all_kept[0]
        if cosines is not None:
            margins = MARGIN * np.clip((cosines - CHANGED) / (1 - CHANGED), 0, 1)
            for pixels in changed(before, label_map):
                patches, weights = canvas.neighbours(pixels)
                margin = np.einsum("pi,pi->p", margins[patches], weights)
                if assignment.shape[1] == 2:
                    lead = 2 * np.take(confidence, pixels) - 1
                else:
                    near, shares = canvas.neighbours(pixels, cells_of(len(assignment), canvas.grid_hw))
                    new, old = (
                        np.einsum("pi,pi->p", assignment[near, np.take(labels, pixels)[:, None]], shares)
                        for labels in (label_map, before)
                    )
                    lead = np.abs(new - old)  # a refiner may choose one that is behind
                kept = pixels[lead < 2 * margin]
                np.put(label_map, kept, np.take(before, kept))
                np.put(confidence, kept, 1 - np.take(confidence, kept))
                all_kept.append(kept)
        np.copyto(before, label_map)
        return np.concatenate(all_kept)
