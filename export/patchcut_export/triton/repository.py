"""Writes a model repository, once its file is known to give patchcut's own answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchcut.bundle import Bundle
from patchcut.engines.tensorrt.progress import Step

from patchcut_export.fused.check import compare
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import describe
from patchcut_export.outputs import whole_folder
from patchcut_export.triton.configs import FILES, configs
from patchcut_export.triton.plan import TritonPlan
from patchcut_export.triton.tensorrt_plan import build_plan

VERSION = "1"
_MODEL = Path(__file__).with_name("regions_model.py")


def write_repository(
    path: Path, bundle: Bundle, plan: TritonPlan, say: Callable[[str], None], step: Step
) -> None:
    """Writes the repository; whatever fails, none is left behind.

        NAME/config.pbtxt              the ensemble of the two: what clients ask
        NAME_assignment/1/model.onnx   frame to assignment
        NAME_regions/1/model.py        assignment to labels, masks and boxes

    Args:
        path: its folder, where nothing or an empty folder may be.
        say: called with lines of progress.
        step: is told of the phases of TensorRT's build.
    Raises:
        OptionError, BundleError, ExportError: as `fuse`, `compare` and `configs` do.
        EngineError: as `build_plan` does.
        OutputError: it cannot be written, or something is there.
    """
    with whole_folder(path) as folder:
        say(f"fusing {bundle.spec.name}: {describe(bundle, plan.fused)}")
        fused = fuse(bundle, plan.fused)
        texts = configs(bundle, plan, fused)
        found = compare(fused, bundle, plan.fused)
        say(f"beside patchcut on {found.photos} photos: {found.same:.2%} of the patches alike")
        for name, text in texts.items():
            (folder / name / VERSION).mkdir(parents=True)
            (folder / name / "config.pbtxt").write_text(text, "utf-8")
        data = build_plan(fused, plan.max_batch, say, step) if plan.backend == "tensorrt" else fused
        ensemble, assignment, regions = plan.models
        (folder / assignment / VERSION / FILES[plan.backend]).write_bytes(data)
        (folder / regions / VERSION / "model.py").write_text(_MODEL.read_text("utf-8"), "utf-8")
    say(f"wrote {path}: {ensemble}, which is {assignment} ({len(data) / 1e6:.1f} MB) and {regions}")
