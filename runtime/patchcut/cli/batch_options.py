"""The options of `patchcut batch`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated

import typer

from patchcut.settings import Settings

# --engine says here where the work is done, and frames that are segmented one by one have no --throughput.
OF_BATCHES = [one.name for one in fields(Settings) if one.name not in ("engine", "throughput")]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """The arguments of `patchcut batch`.

    Attributes:
        paths: the sources, and the folder of results last.
        engine, format, shard_size, workers, every, limit, retry, settings: as for `patchcut.batch.make`.
        save: what is made of all shards in the end; None is nothing, or "coco".
        quiet: say nothing but errors.
    """

    paths: tuple[str, ...]
    engine: str
    format: str
    shard_size: int
    workers: int | None
    every: int
    limit: int | None
    retry: bool
    save: str | None
    quiet: bool
    settings: Settings


def batch_options(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... DIR", help="Photos, videos, folders and globs; then the folder for results."
        ),
    ],
    *,
    engine: Annotated[
        str, typer.Option(help="Where the work is done: local, or ray, on a Ray cluster (extra scale).")
    ] = "local",
    format: Annotated[
        str, typer.Option(help="Of the shards: parquet (extra parquet), or webdataset, which are tar files.")
    ] = "parquet",
    shard_size: Annotated[int, typer.Option(help="Frames of a shard.")] = 1000,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes, or actors of Ray.", show_default="one a core; on GPUs one a GPU"),
    ] = None,
    every: Annotated[int, typer.Option(help="Take every N-th photo, and frame of a video.")] = 1,
    limit: Annotated[
        int | None, typer.Option(help="Take this many frames at most.", show_default=False)
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Do the shards again in which something failed.")
    ] = False,
    save: Annotated[
        str | None, typer.Option(help="coco: also one file of all shards, coco.json.", show_default=False)
    ] = None,
    backbone_engine: Annotated[
        str, typer.Option(help="What executes the backbone, as --engine of `patchcut run`.")
    ] = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors and that something failed.")
    ] = False,
    settings: Settings,
) -> BatchOptions:
    """The arguments as the command line has them."""
    return BatchOptions(
        paths=tuple(paths),
        engine=engine,
        format=format,
        shard_size=shard_size,
        workers=workers,
        every=every,
        limit=limit,
        retry=retry,
        save=save,
        quiet=quiet,
        settings=replace(settings, engine=backbone_engine),
    )
