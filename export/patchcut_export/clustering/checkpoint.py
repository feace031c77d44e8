"""What is kept of a run of k-means after each of its steps, so that one that was stopped goes on there."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from patchcut.output.whole_files import check_writable, write_whole

from patchcut_export.errors import ExportError

Stage = Literal["seeding", "steps", "done"]


@dataclass
class State:
    """Where a run is.

    Attributes:
        stage: whether the centroids are still candidates, are being moved, or are the last ones.
        step: rounds of seeding, or updates of the centroids, that are done.
        centroids: [k, d] float32; of "seeding" [c, d] candidates.
        sums: [k, d] float64, of all points of all batches so far; without batches [0, d].
        counts: [k] int64, of the points of the sums; of "done" the sizes.
        touched: [k] bool, which clusters had points since empty ones were last looked for.
        history: [passes] float64, the inertia of each.
    """

    stage: Stage
    step: int
    centroids: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    touched: npt.NDArray[np.bool_]
    history: npt.NDArray[np.float64]


class Checkpoint:
    """The state of one run in a folder, which is made.

    Args:
        folder: where; None keeps nothing.
        plan: what the result depends on, as JSON has it.
    Raises:
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path | None, plan: Mapping[str, Any]) -> None:
        self._path = None if folder is None else folder / "k-means.npz"
        self._plan = json.dumps(plan, sort_keys=True)
        if folder is not None:
            check_writable(folder)

    def restore(self) -> State | None:
        """The state after the last whole step; None before the first.

        Raises:
            ExportError: it is damaged, or of other points or settings.
        """
        if self._path is None or not self._path.is_file():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as saved:
                theirs = json.loads(str(saved["plan"]))
                values = {field.name: saved[field.name] for field in fields(State)}
            state = State(**{**values, "stage": str(values["stage"]), "step": int(values["step"])})
        except Exception as error:  # numpy and zipfile raise many kinds; all mean the same here
            problem = f"{self._path} is damaged: {error}"
            raise ExportError("k-means", problem, "delete it") from error
        mine = json.loads(self._plan)
        if theirs != mine:
            other = " and ".join(name for name in mine if theirs.get(name) != mine[name])
            problem = f"{self._path.parent} holds a run with another {other or 'plan'}"
            raise ExportError("k-means", problem, "name another folder, or delete it")
        return state

    def save(self, state: State) -> None:
        """Writes it, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        if self._path is None:
            return
        data = io.BytesIO()
        values: dict[str, Any] = {field.name: getattr(state, field.name) for field in fields(State)}
        np.savez(data, plan=np.array(self._plan), **values)
        write_whole(self._path, data.getvalue())
