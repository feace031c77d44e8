"""Writes the folder: the page's files, the model, and what runs it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from patchcut.bundle import Bundle
from patchcut.cli.demo import SAMPLES
from patchcut.errors import OutputError
from patchcut.output.whole_files import output_error

from patchcut_export.fused.check import compare
from patchcut_export.fused.heads import assignment_rows
from patchcut_export.fused.model import fuse
from patchcut_export.fused.plan import FusedPlan, choose_parts, describe
from patchcut_export.web.runtime_files import copy_runtime

# Of the folder's own files. WebAssembly is compiled, and its threads, where there are any, begin as blobs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
_CHARSET = '<meta charset="utf-8">'
_ABOUT = "page/model/about.json"
_ISOLATE = "isolate.js"


def write_folder(
    out: Path, bundle: Bundle, plan: FusedPlan, runtime: Path | None, say: Callable[[str], None]
) -> None:
    """Writes the folder beside `out` and renames it; whatever fails, none is left behind.

    Args:
        out: one that is not there, is empty, or was written by this before.
        bundle: whose head and backbone are taken.
        plan: which of them; frames come at the size of the backbone's input.
        runtime: as `copy_runtime` takes it.
        say: called with lines of progress.
    Raises:
        OptionError, BundleError, ExportError: as `fuse`, `compare` and `copy_runtime` do.
        OutputError: the folder holds something else, or cannot be written.
    """
    check_folder(out)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out.parent) as name:
            made = Path(name) / "web"
            _copy_page(made)
            version = copy_runtime(runtime, made / "page/onnxruntime", say)
            say(f"fusing {bundle.spec.name}: {describe(bundle, plan)}")
            model = fuse(bundle, plan)
            found = compare(model, bundle, plan)
            say(f"beside patchcut on {found.photos} photos: {found.same:.2%} of the patches alike")
            (made / "page/model/model.onnx").write_bytes(model)
            if bundle.spec.card is not None:
                (made / "page/model/card.md").write_bytes(bundle.read(bundle.spec.card))
            about = about_of(bundle, plan) | {"onnxruntime_web": version}
            (made / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", "utf-8")
            if out.exists():
                out.rename(Path(name) / "before")
            made.rename(out)
    except OSError as error:
        raise output_error(out, error) from error
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"wrote {out}, {size / 1e6:.0f} MB, of which the model has {len(model) / 1e6:.1f}")
    say(f"look at it: python3 -m http.server --bind 127.0.0.1 --directory {out}")


def check_folder(out: Path) -> None:
    """Checks that a folder may be written, or written again.

    Raises:
        OutputError: it holds what was not written by this, is a file, or has no parent.
    """
    try:
        if not out.parent.is_dir():
            raise OutputError("output", f"{out.parent} is not a folder", "make it first")
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise OutputError("output", f"{out} is no folder", "name another")
        if out.is_dir() and any(out.iterdir()) and not (out / _ABOUT).is_file():
            raise OutputError("output", f"{out} holds files of something else", "name another folder")
    except OSError as error:
        raise output_error(out, error) from error


def about_of(bundle: Bundle, plan: FusedPlan) -> dict[str, Any]:
    """What the page must know of the model to make regions of its assignment; ready for JSON.

    Examples:
        >>> about = about_of(bundle, FusedPlan())
        >>> about["size_hw"], about["grid_hw"], about["labels"]
        ([224, 224], [16, 16], ['background', 'foreground'])
    """
    head, backbone, graph = choose_parts(bundle, plan)
    rows = assignment_rows(backbone, head, graph.grid_hw)
    cells = round((rows / (graph.grid_hw[0] * graph.grid_hw[1])) ** 0.5)
    covered = backbone.covered(graph.size_hw)
    calibration = head.calibration
    return {
        "bundle": bundle.path.stem,
        "head": head.name,
        "role": head.role,
        "labels": list(head.labels),
        "size_hw": list(graph.size_hw),
        "grid_hw": [cells * side for side in graph.grid_hw],
        "fit": backbone.fit,
        "mean": list(backbone.mean),
        "covered": None if covered is None else [list(side) for side in covered],
        "min_area_patches": bundle.spec.regions.min_area_patches * cells**2,
        "calibration": None if calibration is None else calibration.model_dump(exclude={"fitted_on"}),
        "precision": graph.precision,
        "licence": backbone.licence,
        "source": backbone.source,
        "samples": sorted(path.stem for path in SAMPLES.glob("*.jpg")),
    }


def _copy_page(folder: Path) -> None:
    """The page of the server, with the engine that needs none in the place of its own."""
    page = folder / "page"
    (page / "model").mkdir(parents=True)
    (page / "samples").mkdir()
    for files in (_files("patchcut_server", "page"), _files("patchcut_export.web", "page")):
        for name, data in files.items():
            (page / name).write_bytes(data)
    for path in SAMPLES.glob("*.jpg"):
        shutil.copyfile(path, page / "samples" / path.name)
    index = (page / "index.html").read_text("utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
    (folder / "index.html").write_text(index.replace(_CHARSET, f"{_CHARSET}\n{policy}", 1), "utf-8")
    (page / "index.html").unlink()
    (page / _ISOLATE).rename(folder / _ISOLATE)  # beside the index, since it may speak for all below it


def _files(package: str, folder: str) -> dict[str, bytes]:
    """The files of a package's folder, which need not lie on a disk."""
    found = (resources.files(package) / folder).iterdir()
    return {one.name: one.read_bytes() for one in found if one.is_file()}
