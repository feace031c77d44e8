"""The weights that a student starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchcut.errors import OptionError

from patchcut_export.backbones.origins import Told, file_sha256, get_weights
from patchcut_export.backbones.table import find_backbone
from patchcut_export.backbones.weights import Provenance, StateDict, load_state_dict
from patchcut_export.distillation.student import StudentSpec


def starting_weights(
    spec: StudentSpec, start: str, say: Callable[[str], None]
) -> tuple[StateDict, Provenance]:
    """A state dict under timm's names, and where it is from.

    Args:
        spec: the student's.
        start: a file, or the name of a backbone as `patchcut export backbone` takes it.
        say: called with a line for each step.
    Raises:
        OptionError: a backbone of another architecture than the student's.
        ExportError: there are no such weights, or they cannot be had.
    """
    if Path(start).is_file():
        path = Path(start)
        origin = Provenance(f"a local file, {path.name}", file_sha256(path), "not stated", "not stated")
        return load_state_dict(path), origin
    row = find_backbone(start)
    if row.model != spec.model:
        problem = f"{start} is {row.model}, the student is {spec.model}"
        raise OptionError("start", problem, f"--student {row.model}, or a file of its weights")
    return get_weights(row, None, Told(), cache=None, say=say)
