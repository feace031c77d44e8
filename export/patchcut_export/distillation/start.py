"""What a student starts from: weights, fewer units of them, and projections that fit the teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from patchcut.errors import OptionError

from patchcut_export.backbones.origins import Told, file_sha256, get_weights
from patchcut_export.backbones.table import find_backbone
from patchcut_export.backbones.weights import Provenance, StateDict, load_state_dict
from patchcut_export.distillation.student import Student, StudentSpec
from patchcut_export.distillation.views import Batch

# Of the projections' least squares, times the mean of the diagonal.
_RIDGE = 1e-3
_CHUNK = 16  # images at once


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


def prepare(student: Student, batch: Batch) -> None:
    """Makes a student that has its weights ready to learn, on images and what the teacher says of them.

    Raises:
        OptionError: some of its MLPs' units are to be kept, and they are not of two layers.
    """
    student.eval()
    chunks = [batch.images[i : i + _CHUNK] for i in range(0, len(batch.images), _CHUNK)]
    with torch.no_grad():
        student.trunk.slim(lambda: [student.trunk(images) for images in chunks])
        seen = [student.rows(images) for images in chunks]
        for name, (_, of_image) in student.sets.items():
            rows = torch.cat([one[of_image] for one in seen])
            fit_linear(student.projections[name], rows.flatten(0, 1), batch.sets[name].flatten(0, 1))


def fit_linear(linear: Any, rows: torch.Tensor, wanted: torch.Tensor) -> None:
    """Sets a linear layer to the least squares of `rows` [n, d] and `wanted` [n, k], a little regularised."""
    middle, aim = rows.mean(0), wanted.mean(0)
    x, y = (rows - middle).double(), (wanted - aim).double()
    square = x.T @ x
    square += _RIDGE * square.diagonal().mean().clamp_min(1e-12) * torch.eye(len(square), dtype=square.dtype)
    weight = torch.linalg.solve(square, x.T @ y).T.to(rows.dtype)
    linear.weight.copy_(weight)
    linear.bias.copy_(aim - weight @ middle)
