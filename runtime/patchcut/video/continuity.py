"""What the frames of one video have in common: steady assignments, and objects that keep their track id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import patchcut_kernels as kernels

from patchcut.cells import patch_means, with_means
from patchcut.features import Features, to_host
from patchcut.stages.canvas import Canvas
from patchcut.stages.regions import Components, Regions, Rules, ranked, ranking
from patchcut.video.memory import FrameMemory
from patchcut.video.scene_cuts import SceneCuts
from patchcut.video.steady_labels import SteadyLabels
from patchcut.video.tracker import Seen, Track, Tracker, cosines, product

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# What was carried counts so much beside what the head says of this frame, and comes from so many frames.
_CARRIED_SHARE, _RECENT, _TOPK = 0.8, 3, 10
# What continues an object may score so much less than what begins one.
_HYSTERESIS = 0.2
# What continues an object has its name until another has so many times as much of the region.
_RENAMED = 2

# Of objects in one region a patch is the one that was carried to it, that it looks like, and that was going
# there: what is carried anywhere, how much a cosine of 1 counts, and how much it is outside of that box.
_ANYWHERE, _LIKENESS, _OUTSIDE = 0.05, 5.0, 0.3


class Continuity:
    """Of one video: call `begin`, `steady`, `keep_labels`, and `regions`, once for each frame, in order.

    Args:
        needs: the names of the feature sets that the head needs; the first of them tells what resembles what.
    At a cut of the scene all tracks end, and nothing is carried over it.
    """

    def __init__(self, needs: tuple[str, ...] = ()) -> None:
        self._needs = needs
        self._cuts = SceneCuts()
        self._steady_labels = SteadyLabels()
        self._tracker = Tracker()
        self._memory: FrameMemory | None = None
        self._grid_hw = (0, 0)
        self._features = self._carried = self._steady = np.zeros((0, 0), np.float32)
        self._labels: tuple[str, ...] = ()
        self._unsettled = 0  # frames until all that are remembered have these labels
        self._names: dict[int, str] = {}  # of tracks by their ids

    def begin(self, features: Features) -> bool:
        """Takes the next frame; whether another scene begins with it.

        Args:
            features: of this frame alone, on any device.
        Examples:
            >>> continuity = patchcut.video.Continuity()
            >>> continuity.begin(features), continuity.begin(features)
            (False, False)
        """
        rows = to_host(features.of(self._needs))[0]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        self._features = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        is_cut = self._cuts(self._features)
        if is_cut or self._grid_hw != features.grid_hw:
            self._memory, self._grid_hw = None, features.grid_hw
        return is_cut

    def steady(self, assignment: Float32, labels: tuple[str, ...] = ()) -> Float32:
        """As `assignment`, rows on the simplex: the head's, joined with that of the last frames.

        Args:
            assignment: [n, k] float32, the head's of the frame, or [c * c * n, k] of the patches' cells.
            labels: of the head's columns, at least k. Where they have changed, as when a concept was added,
                nothing of the old columns is carried; tracks go on.
        0.8 of it is carried from the last three frames, and 0.2 are the head's. That is done with patches;
        cells are what the head says, shifted so that patches come to the steady means.
        """
        of_patches, columns = patch_means(assignment, self._grid_hw), assignment.shape[1]
        if self._memory is None:
            self._tracker.clear()
            self._names.clear()
            self._steady_labels.clear()
            self._memory = FrameMemory(self._grid_hw, recent=_RECENT, kept=0, topk=_TOPK)
        elif (columns, labels) != (self._steady.shape[1], self._labels):
            before = self._steady.shape[1]
            self._memory.arrange([*[-1] * columns, *range(before, self._memory.columns)])
            self._unsettled = _RECENT
            self._steady_labels.clear()
        self._labels = labels
        carried = self._memory.carry(self._features)
        if carried is None:
            self._carried = np.zeros((len(self._features), 0), np.float32)
            self._steady = of_patches
            return assignment
        self._carried = carried[:, columns:]
        self._steady = _CARRIED_SHARE * carried[:, :columns] + np.float32(1 - _CARRIED_SHARE) * of_patches
        if self._unsettled:
            self._steady /= self._steady.sum(axis=1, keepdims=True)
            self._unsettled -= 1
        return with_means(assignment, self._steady, self._grid_hw)

    def keep_labels(
        self, label_map: Int32, confidence: Float32, assignment: Float32, canvas: Canvas
    ) -> npt.NDArray[np.intp]:
        """Gives pixels of the same frame the label that they had, where that is as good: `SteadyLabels`.

        Args:
            label_map, confidence, assignment, canvas: as `SteadyLabels` takes them; two are changed in place.
        Returns:
            These pixels, as flat indices.
        """
        return self._steady_labels(label_map, confidence, assignment, canvas, self._cuts.cosines)

    def regions(
        self,
        components: Components,
        canvas: Canvas,
        rules: Rules,
        min_area: int,
        names: Sequence[str] = (),
    ) -> tuple[Regions, Int32]:
        """The regions of the same frame, best first, and their track ids [m] int32.

        Args:
            components: of the steady assignment; one in which several objects lie is divided between them.
            canvas: where the frame lies.
            rules: which components are regions. One that continues an object which has just been seen is one
                with a fifth of what `nothing_below` asks for.
            min_area: pixels of the smallest region.
            names: of the columns, where they mean the same on every frame. A region that continues an object
                has its name until another has twice as much of the region.
        """
        components = self._divided(components, canvas, min_area)
        lowest = replace(rules, nothing_below=_HYSTERESIS * rules.nothing_below)
        scores, order = ranking(components, lowest)
        seen = self._seen(components, order, canvas)
        matched = self._tracker.match(seen, self._carried)
        kept = np.flatnonzero(self._tracker.is_in_sight(matched) | (scores[order] >= rules.nothing_below))
        found, seen = ranked(components, scores, order[kept]), seen.take(kept)
        if names:
            self._keep_names(found, seen, matched[kept], names)
        ids = self._tracker.update(seen, matched[kept])
        if names:
            told = zip(ids.tolist(), (names[label] for label in found.region_labels), strict=True)
            called = self._names | dict(told)
            self._names = {track.id: called[track.id] for track in self._tracker.tracks}
        self._remember(seen, ids)
        return found, ids

    def _keep_names(self, found: Regions, seen: Seen, matched: Int32, names: Sequence[str]) -> None:
        """Gives regions [m] the name of the track that each continues, in place, unless another is clear.

        Args:
            matched: [m] int32, as `Tracker.match` gives it.
        """
        columns = {name: column for column, name in enumerate(names)}
        renamed = False
        for i, place in enumerate(matched.tolist()):
            name = self._names.get(self._tracker.tracks[place].id) if place >= 0 else None
            before, now = columns.get(name or ""), int(found.region_labels[i])
            if before is None or before == now:
                continue
            shares = product(seen.cover[i : i + 1], self._steady)[0]
            if shares[now] < _RENAMED * shares[before]:
                found.region_labels[i], renamed = before, True
        if renamed:
            table = np.concatenate([np.zeros(1, np.int32), found.region_labels])
            kernels.relabel(found.region_ids, table, out=found.label_map)

    def _seen(self, components: Components, order: npt.NDArray[np.intp], canvas: Canvas) -> Seen:
        """Those of the components that `order` names."""
        height, width = components.label_map.shape
        cover = canvas.cover(components.ids, len(components.stats.area))[order]
        boxes = components.stats.boxes_xyxy[order] / np.array([width, height, width, height], np.float64)
        return Seen.of(cover, self._features, boxes)

    def _divided(self, components: Components, canvas: Canvas, min_area: int) -> Components:
        """The components, of which none holds more than one of the objects that were apart before."""
        if not self._tracker.tracks:
            return components
        count = len(components.stats.area)
        shared = self._tracker.inside(canvas.cover(components.ids, count), self._carried)
        if not any(shared):
            return components
        pieces = components.ids.copy()
        next_piece = count + 1
        for number, those in enumerate(shared, start=1):
            if those:
                values = self._shares(those, canvas)
                nearest = canvas.upsample(values)[0]
                inside = components.ids == number
                pieces[inside] = next_piece + nearest[inside]
                next_piece += len(those)
        ids, count = kernels.connected_components(pieces, min_area=min_area)
        stats = kernels.region_stats(
            ids, count, label_map=components.label_map, confidence=to_host(components.confidence)
        )
        label_map = components.label_map
        label_map[ids == 0] = 0
        return Components(label_map, ids, components.confidence, stats, components.kept)

    def _shares(self, those: list[Track], canvas: Canvas) -> Float32:
        """[n, q] float32, rows on the simplex: how much each patch is each of the objects."""
        carried = self._carried[:, [track.column for track in those]]
        prototypes = np.stack([track.prototype for track in those])
        like = cosines(self._features - self._features.mean(axis=0), prototypes)
        expected = np.stack([canvas.cover_box(track.expected_box()) for track in those], axis=1)
        values = (
            (carried + _ANYWHERE)
            * (expected + _OUTSIDE)
            * np.exp(_LIKENESS * (like - like.max(axis=1, keepdims=True)))
        )
        return np.ascontiguousarray(values / values.sum(axis=1, keepdims=True), np.float32)

    def _remember(self, seen: Seen, ids: Int32) -> None:
        """Keeps this frame: its assignment, and where each track is."""
        assert self._memory is not None
        k = self._steady.shape[1]
        values = np.zeros((len(self._features), k + len(self._tracker.tracks)), np.float32)
        values[:, :k] = self._steady
        before = [track.column for track in self._tracker.tracks]
        for place, track in enumerate(self._tracker.tracks):
            track.column = place
            of_track = np.flatnonzero(ids == track.id)
            if len(of_track):
                values[:, k + place] = seen.cover[of_track[0]]
        self._memory.arrange([*range(k), *(k + column if column >= 0 else -1 for column in before)])
        self._memory.add(self._features, values)
