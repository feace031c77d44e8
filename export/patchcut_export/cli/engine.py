"""`patchcut export engine`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from patchcut.bundle import BackboneSpec, BundleSpec
from patchcut.errors import OptionError
from patchcut.settings import Settings

if TYPE_CHECKING:
    from patchcut.engines.tensorrt.options import TensorRtOptions


def engine(
    bundle: Annotated[str, typer.Argument(help="An embedded bundle's name, or a .patchcut file.")],
    *,
    size: Annotated[
        list[int] | None,
        typer.Option(help="Side of the input; give it again for more.", show_default="all of the bundle's"),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp16, bf16, int8-qdq or fp32.")] = "auto",
    features: Annotated[
        str | None,
        typer.Option(
            help="Feature sets to compute, with commas.",
            show_default="those of the bundle's head for objects",
        ),
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option(
            help="Compute capabilities with commas, such as 8.6,8.9: builds for GPUs of these without having "
            "one; tensorrt-rtx alone does.",
            show_default="this machine's GPU",
        ),
    ] = None,
    flavour: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx.", show_default="what is installed")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(help="Most frames in one run.", show_default="8")] = None,
    workspace_mb: Annotated[
        int | None,
        typer.Option(help="Memory for one layer, in MiB.", show_default="1024, or 256 with up to 12 GiB"),
    ] = None,
    low_memory: Annotated[
        bool | None,
        typer.Option(
            "--low-memory/--no-low-memory",
            help="Try fewer algorithms that need much memory.",
            show_default="on with up to 12 GiB",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of engines.", show_default="where load looks for them")
    ] = None,
) -> int:
    """Build TensorRT engines of a bundle's backbone ahead, so that loading it takes no minutes.

    Needs TensorRT, and no torch. An engine is for one kind of GPU, driver and TensorRT; those of
    tensorrt-rtx are for all GPUs of a compute capability. `engine="tensorrt"` finds them in the folder; what
    is chosen here and in PATCHCUT_TENSORRT must be the same.
    """
    from patchcut.bundle import open_bundle
    from patchcut.cache_folder import cache_folder
    from patchcut.engines.tensorrt import build_engine
    from patchcut.engines.tensorrt.options import TensorRtOptions

    from patchcut_export.progress import StepBar

    given = {
        "flavour": flavour,
        "max_batch": max_batch,
        "workspace_mb": workspace_mb,
        "low_memory": None if low_memory is None else ("yes" if low_memory else "no"),
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    options = replace(TensorRtOptions.from_environment(), **chosen)  # type: ignore[arg-type]
    folder = cache_folder("tensorrt") if cache is None else cache
    if folder is None:
        raise OptionError("cache", "must be a folder, as PATCHCUT_CACHE=off keeps nothing")
    with open_bundle(bundle) as opened, StepBar() as bar:
        backbone = _with_features(opened.spec, features)
        sizes = size or list(dict.fromkeys(graph.size_hw[0] for graph in backbone.graphs))
        for one in sizes:
            settings = Settings(engine="tensorrt", precision=precision, size=one)
            for target in _capabilities(capability):
                path = build_engine(
                    opened, backbone, settings, options, folder, capability=target, say=bar.say, step=bar.step
                )
                bar.say(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
        bar.say(_how_to_load(options, capability))
    return 0


def _with_features(spec: BundleSpec, features: str | None) -> BackboneSpec:
    """The backbone that the bundle's head for objects reads, with the feature sets that are wanted."""
    head = spec.head("objects")
    backbone = spec.backbone if head is None else spec.backbones[head.backbone]
    if features is not None:
        wanted = [name.strip() for name in features.split(",")]
    else:
        wanted = list(backbone.features)[:1] if head is None else list(head.features)
    if unknown := [name for name in wanted if name not in backbone.features]:
        held = ", ".join(backbone.features)
        raise OptionError("features", f"must be among those of the bundle ({held}), got {unknown[0]!r}")
    kept = {name: one for name, one in backbone.features.items() if name in wanted}
    return backbone.model_copy(update={"features": kept})


def _capabilities(words: str | None) -> list[str]:
    """Compute capabilities such as "8.9"; "" stands for this machine's GPU."""
    if words is None:
        return [""]
    found = [word.strip() for word in words.split(",")]
    for word in found:
        if not re.fullmatch(r"[1-9][0-9]?\.[0-9]", word):
            raise OptionError("capability", f"must be numbers such as 8.6,8.9, got {words!r}")
    return found


def _how_to_load(options: TensorRtOptions, capability: str | None) -> str:
    """What makes `load` find what was built."""
    from patchcut.engines.tensorrt.options import VARIABLE

    words = options.words()
    load = f'load with {f"{VARIABLE}={words} and " if words else ""}engine="tensorrt"'
    if capability is None:
        return load
    there = "a machine with such a GPU and the same version of tensorrt-rtx"
    return f"nothing was run: copy them into ~/.cache/patchcut/tensorrt of {there}, and {load}"
