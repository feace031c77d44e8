"""The result that a segmenter returns for one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.cells import finer_grid
from patchcut.checks import check_choice, check_number
from patchcut.endings import finished_first
from patchcut.errors import FrameError, PatchcutError
from patchcut.frames import Frame, as_frame, named
from patchcut.settings import ColorOrder, Mode
from patchcut.stages.regions import Regions, on_host
from patchcut.texts import encodable


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Regions):
    """Regions of one frame, best first, and what they were made from. m regions, n patches, k labels.

    A result is true even if nothing was found: ask `len(result)` how many regions it has.

    Attributes:
        label_map: [H, W] int32, column of `labels` at each pixel of the frame; 0 is background.
        region_ids: [H, W] int32; 0 where there is no region, i + 1 where region i is. Specks of a part are in
            the label map and in no region.
        confidence: [H, W] float32, about 0 to 1, the head's value of the label that each pixel had before
            regions were left out; where a frame is divided, of being foreground or background.
        boxes: [m, 4] float32, xyxy in pixels of the frame, half-open.
        scores: [m] float32 in [0, 1], falling, first of the foreground's regions, then of the background's if
            there are any. With a calibration of the head, the probability that it is an object; parts
            have the score of their object.
        areas: [m] int64, pixels.
        region_labels: [m] int32, column of `labels`.
        labels: names of the k columns; column 0 is background.
        background_columns: those of `labels` that are background: (0,), and more of a divided scene.
        mode: the setting it was made with; parts and scenes are drawn in a colour for each label.
        assignment: [n, k] float32, rows on the simplex, for the backbone's whole image, the borders of a
            letterboxed frame included. Of a head that answers on a finer grid, as "decoder" does,
            [c * c * n, k], for c times c cells of each patch: `assignment_hw` is that grid.
        grid_hw: rows and columns of the patch grid, n = h * w.
        timings_ms: wall time of the stages "preprocess", "backbone", "head" and "masks", in milliseconds, and
            in a stream of "read" before them. "masks" is the label map and its regions; it is over before
            `masks` is made, on first use. On a GPU a stage is over when its work is queued; "masks" waits.
            Where all of them were one graph of CUDA, "graph" is the time of all.
        frame: [H, W, 3] uint8, the image it was made from: the caller's own memory, not a copy. It lives as
            long as the result does, and what the caller writes into it shows here; None if made by hand.
        color: order of channels of `frame`.
        name, index, time_s: as in Frame.
        dropped: frames of a live source that were skipped since the result before.
        reused: whether it is the answer of a frame before, of which this one barely differs.
        track_ids: [m] int32 from 1, the same for one object from frame to frame of a stream; 0 of a region
            that is not tracked; None where nothing is.
        named: whether labels are names that mean the same on every frame: they are drawn in a colour each.
        label_colors: number of the colour of each label, as `patchcut.output.overlay.color_of` takes it,
            where it is not the label's column: a name keeps its colour when another is removed. Else ().
        votes: [v, n] float32 in [0, 1], how much each voter of a head says that a patch is foreground, as the
            levels of "levels" do; `voters` are their names. None of heads that take no vote.
    Examples:
        >>> result.labels, result.masks.shape == (len(result), 512, 512)
        (('background', 'foreground'), True)
    """

    labels: tuple[str, ...]
    assignment: npt.NDArray[np.float32] = on_host()
    grid_hw: tuple[int, int]
    timings_ms: dict[str, float] = field(default_factory=dict)
    frame: npt.NDArray[np.uint8] | None = None
    color: ColorOrder = "bgr"
    name: str = ""
    index: int = 0
    time_s: float | None = None
    background_columns: tuple[int, ...] = (0,)
    mode: Mode = "foreground"
    dropped: int = 0
    reused: bool = False
    track_ids: npt.NDArray[np.int32] | None = None
    named: bool = False
    label_colors: tuple[int, ...] = ()
    votes: npt.NDArray[np.float32] | None = None
    voters: tuple[str, ...] = ()

    @classmethod
    def of(cls, regions: Regions, frame: Frame, **made: Any) -> Result:
        """The result of a frame.

        Args:
            regions: the frame's.
            made: the fields that neither the regions nor the frame have.
        Examples:
            >>> made = {"labels": result.labels, "assignment": result.assignment, "grid_hw": result.grid_hw}
            >>> len(patchcut.Result.of(regions, patchcut.Frame(frame), **made)) == len(regions.scores)
            True
        """
        return cls(
            **vars(regions),
            **made,
            frame=frame.image,
            color=frame.color,
            name=frame.name,
            index=frame.index,
            time_s=frame.time_s,
        )

    def __repr__(self) -> str:
        return f"<Result{named(self.name, self.index, self.time_s)}: {self._found()}>"

    def __len__(self) -> int:
        """Number of regions."""
        return len(self.scores)

    def __bool__(self) -> bool:
        """True, so that `result or other` and `filter(None, results)` drop no frame without regions."""
        return True

    @property
    def assignment_hw(self) -> tuple[int, int]:
        """Rows and columns of the grid of `assignment`: `grid_hw`, or c times that.

        Examples:
            >>> result.assignment.reshape(*result.assignment_hw, -1).shape
            (16, 16, 2)
        """
        rows: int = vars(self)["assignment"].shape[0]  # which may lie on a GPU
        return finer_grid(rows, self.grid_hw)

    @cached_property
    def masks(self) -> npt.NDArray[np.bool_]:
        """[m, H, W] bool, one mask a region, best first; made on first use."""
        wanted = np.arange(1, len(self) + 1, dtype=np.int32)
        masks: npt.NDArray[np.bool_] = self.region_ids[None] == wanted[:, None, None]
        return masks

    @property
    def foreground(self) -> npt.NDArray[np.bool_]:
        """[H, W] bool, True where the label is none of the background's."""
        if self.background_columns == (0,):
            return self.label_map > 0
        columns = np.ones(len(self.labels), bool)
        columns[list(self.background_columns)] = False
        foreground: npt.NDArray[np.bool_] = columns[self.label_map]
        return foreground

    @cached_property
    def soft_mask(self) -> npt.NDArray[np.float32]:
        """[H, W] float32 in [0, 1], how much each pixel is foreground: at least 0.5 where `foreground` is.

        Of two columns it is the foreground's, bilinear, or what the refiner made of that.
        """
        soft: npt.NDArray[np.float32] = np.clip(self.confidence, 0.5, 1)
        return np.subtract(1, soft, out=soft, where=~self.foreground)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label of each of the m regions.

        Examples:
            >>> result.label_names[0]
            'foreground'
        """
        return tuple(self.labels[column] for column in self.region_labels)

    @property
    def by_label(self) -> bool:
        """Whether pictures have a colour for each label, and not for each region.

        Examples:
            >>> result.by_label
            False
        """
        return self.named or self.mode != "foreground"

    @property
    def best_box(self) -> npt.NDArray[np.float32] | None:
        """[4] float32, the box of the best region of the foreground, None without one."""
        if not len(self) or self.region_labels[0] in self.background_columns:
            return None
        best: npt.NDArray[np.float32] = self.boxes[0]
        return best

    @finished_first()
    def overlay(self, frame: object = None) -> npt.NDArray[np.uint8]:
        """[H, W, 3] uint8: `frame` with masks, contours, boxes, numbers and scores drawn on a copy.

        An object's number, which is that of its colour, is its track id where it has one, and else its rank.

        Args:
            frame: the frame this result was made from, as the segmenter took it; None is `self.frame`.
        Raises:
            FrameError: the frame is none, or its size is not the result's.
        The order of channels is the frame's own (RGB for a PIL image).
        Examples:
            >>> result.overlay().shape
            (512, 512, 3)
        """
        from patchcut.output.overlay import draw_overlay

        return draw_overlay(
            self,
            self.labels,
            self._frame("overlay", frame),
            self.background_columns,
            by_label=self.by_label,
            numbers=self.track_ids,
            label_colors=self.label_colors,
            named=self.named,
        )

    @finished_first()
    def cutout(self, frame: object = None) -> npt.NDArray[np.uint8]:
        """[H, W, 4] uint8: `frame` with its objects opaque, soft at their borders, and the rest transparent.

        Alpha comes after the frame's own order of channels; BGRA is what `cv2.imwrite` takes.

        Args:
            frame: as in `overlay`.
        Raises:
            FrameError: the frame is none, or its size is not the result's.
        Examples:
            >>> int(result.cutout()[..., 3].max())
            255
        """
        from patchcut.output.cutouts import cut_out

        own = self._frame("cutout", frame)
        side = max(np.divide(self.label_map.shape, self.assignment_hw))
        return cut_out(own, self.foreground, self.confidence, float(side) / 2)

    @finished_first()
    def draw_votes(self, frame: object = None) -> npt.NDArray[np.uint8] | None:
        """[h, w, 3] uint8: a panel for each of `voters`, red where it says foreground, then what came of it.

        None where the head takes no votes.

        Args:
            frame: as in `overlay`.
        Raises:
            FrameError: the frame is none, or its size is not the result's.
        Examples:
            >>> result.draw_votes() is None
            True
        """
        from patchcut.output.votes import draw_votes

        if self.votes is None:
            return None
        own = self._frame("votes", frame)
        return draw_votes(own, self.votes, self.voters, self.foreground, self.grid_hw)

    def crop(self, margin: float = 0.05, frame: object = None) -> npt.NDArray[np.uint8] | None:
        """[h, w, 3] uint8: a copy of `frame` around the best object; None where nothing was found.

        An object that is divided into parts is taken as a whole.

        Args:
            margin: added on each side, as a share of the longer side of the object's box; at least 0.
            frame: as in `overlay`.
        Raises:
            FrameError: the frame is none, or its size is not the result's.
            OptionError: "[margin] must be a number from 0 to 100, got -1".
        Examples:
            >>> result.crop().shape[2]
            3
        """
        from patchcut.output.cutouts import crop

        check_number("margin", margin, 0, 100)
        own, box = self._frame("crop", frame), self.best_box
        if box is not None and self.mode != "foreground":
            ids, count = kernels.connected_components(self.foreground.astype(np.int32))
            best = ids[self.region_ids == 1][0]
            box = kernels.region_stats(ids, count).boxes_xyxy[best - 1]
        return None if box is None else crop(own, box.tolist(), margin)

    def _frame(self, op: str, frame: object) -> Frame:
        """The frame that a picture is made of: the result's own where none is given.

        Raises:
            FrameError: there is none, or its size is not the result's.
        """
        if frame is None:
            if self.frame is None:
                raise FrameError(op, "this result holds no frame", "pass the frame it was made from")
            frame = self.frame
        own = as_frame(frame, self.color)
        if own.image.shape[:2] != self.label_map.shape:
            came = f"got {own.image.shape[:2]}, the result is of {self.label_map.shape}"
            remedy = "pass the frame it was made from"
            raise FrameError(op, f"frame and result must have one size; {came}", remedy)
        return own

    def to_dict(self, masks: Literal["rle"] | None = None) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON: size, labels, regions, timings, the frame's origin.

        Args:
            masks: "rle" to give each region its mask as COCO's run lengths, {"size": [H, W], "counts": ...},
                which pycocotools reads; None for none.
        A region has "track_id" where `track_ids` is not None.
        Raises:
            OptionError: '[masks] must be one of "rle", got "png"'.
        Examples:
            >>> result.to_dict(masks="rle")["regions"][0]["mask"]["size"]
            [512, 512]
        """
        height, width = self.label_map.shape
        regions = [self._region(i) for i in range(len(self))]
        if masks is not None:
            check_choice("masks", masks, ("rle",))
            rles = kernels.rle_encode(self.region_ids, len(self), text=True)
            for region, rle in zip(regions, rles, strict=True):
                region["mask"] = rle
        return {
            "name": encodable(self.name),
            "index": self.index,
            "time_s": self.time_s,
            "size_hw": [height, width],
            "labels": list(self.labels),
            "regions": regions,
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO's annotations of the regions, ready for JSON; their masks are run lengths, so holes are kept.

        Args:
            image_id: which image of the data set this is.
            first_id: the first annotation's id, whole numbers from 1.
        The category is the column of `labels`, bbox is xywh in pixels, and the score is COCO's for results.
        A region that is tracked has its "track_id".
        Examples:
            >>> found = result.to_coco(image_id=7)[0]
            >>> found["image_id"], found["category_id"], found["segmentation"]["size"]
            (7, 1, [512, 512])
        """
        rles = kernels.rle_encode(self.region_ids, len(self), text=True)
        sides = [(float(x0), float(y0), float(x1 - x0), float(y1 - y0)) for x0, y0, x1, y1 in self.boxes]
        annotations: list[dict[str, Any]] = [
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": int(self.region_labels[i]),
                "bbox": list(sides[i]),
                "area": int(self.areas[i]),
                "segmentation": rles[i],
                "iscrowd": 0,
                "score": round(float(self.scores[i]), 4),
            }
            for i in range(len(self))
        ]
        for annotation, track_id in zip(
            annotations, () if self.track_ids is None else self.track_ids, strict=False
        ):
            if track_id:
                annotation["track_id"] = int(track_id)
        return annotations

    def to_supervision(self) -> Any:
        """`supervision.Detections` of the regions, best first: boxes, masks, scores, and labels.

        `class_id` is the column of `labels`, and `data["class_name"]` its name; `tracker_id` is of
        `track_ids`, -1 of a region that is not tracked.

        Raises:
            PatchcutError: "[supervision] cannot be imported (No module named 'supervision'); pip install
                supervision".
        Examples:
            >>> detections = result.to_supervision()
            >>> detections.xyxy.shape == (len(result), 4)
            True
        """
        try:
            import supervision
        except ImportError as error:
            raise PatchcutError(
                "supervision", f"cannot be imported ({error})", "pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks,
            confidence=self.scores.copy(),
            class_id=self.region_labels.astype(np.int64),
            tracker_id=None
            if (ids := self.track_ids) is None
            else np.where(ids > 0, ids, -1).astype(np.int64),
            data={"class_name": np.array(self.label_names, str)},
        )

    def _region(self, i: int) -> dict[str, Any]:
        region: dict[str, Any] = {
            "box_xyxy": [float(value) for value in self.boxes[i]],
            "score": round(float(self.scores[i]), 4),
            "label": self.labels[self.region_labels[i]],
            "area": int(self.areas[i]),
        }
        if self.track_ids is not None:
            region["track_id"] = int(self.track_ids[i])
        return region
