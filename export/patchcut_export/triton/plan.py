"""What may be chosen of a model repository."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patchcut.checks import check_choice, check_number, check_whole
from patchcut.engines.tensorrt.options import MAX_BATCH
from patchcut.errors import OptionError
from patchcut.settings import REFINES

from patchcut_export.fused.plan import FusedPlan

BACKENDS = ("onnxruntime", "tensorrt")
_MAX_INSTANCES = 64
_MAX_WAIT_MS = 10_000.0
# Triton takes the folder's name; these need no quoting in addresses, either.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class TritonPlan:
    """What one repository is to hold.

    Attributes:
        fused: the file from frame to assignment.
        name: of the model that clients ask; the two that it consists of are called NAME_assignment and
            NAME_regions.
        backend: what runs the file: "onnxruntime", or "tensorrt" for a plan of this machine's GPU.
        refine: what moves borders onto the frame's edges, as in `Settings`.
        max_batch: the most frames in one run.
        batch_wait_ms: how long a frame waits for others that run with it.
        instances: copies of each model that run beside each other.
    Raises:
        OptionError: a value that is none of these.
    Examples:
        >>> TritonPlan(fused=FusedPlan(), name="default").models
        ('default', 'default_assignment', 'default_regions')
    """

    fused: FusedPlan
    name: str
    backend: str = "onnxruntime"
    refine: str = "none"
    max_batch: int = 8
    batch_wait_ms: float = 2.0
    instances: int = 1

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            what = f"must be of letters, digits, dots, dashes and _, got {self.name[:60]!r}"
            raise OptionError("name", what, "give one with --name")
        check_choice("backend", self.backend, BACKENDS)
        check_choice("refine", self.refine, REFINES[1:])
        check_whole("max-batch", self.max_batch, 1, MAX_BATCH)
        check_number("batch-wait", self.batch_wait_ms, 0.0, _MAX_WAIT_MS)
        check_whole("instances", self.instances, 1, _MAX_INSTANCES)
        if self.backend == "tensorrt" and self.fused.precision == "int8":
            what = "int8 has operators that TensorRT does not run"
            raise OptionError("precision", what, "give --precision fp16, fp32 or int8-qdq")

    @property
    def models(self) -> tuple[str, str, str]:
        """Names of the ensemble, the model from frame to assignment, and that from assignment to regions."""
        return self.name, f"{self.name}_assignment", f"{self.name}_regions"

    @property
    def batches(self) -> bool:
        """Whether frames of several requests may run together: in int8 a frame would be rounded otherwise."""
        return self.fused.precision != "int8"
