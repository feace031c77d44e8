"""The command `patchcut`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import patchcut
from patchcut.errors import OptionError, PatchcutError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_COMMAND_HELP = {"export": "Make, check and measure bundles (needs patchcut\\[export])."}

app = typer.Typer(
    help="Real-time segmentation without labels: a frame goes in, masks and boxes come out.",
    epilog="Exit status: 0 all good; 1 something failed or was skipped, or nothing was processed; "
    "2 the command line is wrong; 130 stopped by Ctrl-C or SIGTERM. What was written is whole in each case.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OutOption = Annotated[
    Path | None,
    typer.Option(help="Folder for results; without it and --save nothing is written.", show_default=False),
]
SaveOption = Annotated[
    str | None,
    typer.Option(
        help="What to write, of overlay,masks,labels,json; to patchcut-out where --out is not given. "
        "\\[default: overlay,masks,json]",
        show_default=False,
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace results in --out.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Stop after so many frames.", show_default=False)
]
EveryOption = Annotated[int, typer.Option(min=1, help="Take every N-th frame.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Show a live window; q or Esc ends.")]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help='Write JSON lines to stdout and nothing else: {"event": "start" | "frame" | "end", ...}.',
    ),
]
SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Photo, folder, glob, video, camera index, rtsp:// or http:// address; or several photos, "
        "folders and globs.",
    ),
]
BundleOption = Annotated[
    Path | None, typer.Option(help="A .patchcut file; the embedded bundle by default.", show_default=False)
]
EngineOption = Annotated[str, typer.Option(help="What executes the backbone: auto, onnxruntime, ...")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, int8, fp16 or fp32.")]
SizeOption = Annotated[
    int | None, typer.Option(help="Side of the backbone's input, as the bundle has it.", show_default=False)
]
HeadOption = Annotated[
    str,
    typer.Option(
        help="auto is the head that the bundle was made with; gnn-fit, cc, ncut and kmeans need no training: "
        "they are fitted to each frame."
    ),
]
KOption = Annotated[
    int | None, typer.Option("--k", "-k", help="Clusters of gnn-fit and kmeans.", show_default=False)
]
AlphaOption = Annotated[
    float | None,
    typer.Option(help="Of cc and gnn-fit: the larger, the fewer clusters.", show_default=False),
]
LossOption = Annotated[str | None, typer.Option(help="Of gnn-fit: ncut or cc.", show_default=False)]
SeedOption = Annotated[int | None, typer.Option(help="Of a fitted head.", show_default=False)]
ModeOption = Annotated[
    str,
    typer.Option(help="foreground; parts: the foreground divided; scene: parts, and the background divided."),
]
PartsOption = Annotated[
    str,
    typer.Option(
        help="What divides: a fitted head; auto is the bundle's head for parts, or kmeans where it has none."
    ),
]
PartsKOption = Annotated[
    int | None, typer.Option(help="Clusters of --parts; 4 by default.", show_default=False)
]
RefineOption = Annotated[
    str,
    typer.Option(
        help="How borders are moved onto the frame's edges: none, guided, bilateral; auto is guided for "
        "videos and none for photos."
    ),
]
MinScoreOption = Annotated[float, typer.Option(help="Leave out regions that score less, 0 to 1.")]
NothingBelowOption = Annotated[
    float | None,
    typer.Option(
        help="Report nothing where no region scores this, 0 to 1; 0 always reports.",
        show_default="what the bundle says",
    ),
]
SingleOption = Annotated[bool, typer.Option("--single", help="Report the best region alone.")]
ThreadsOption = Annotated[
    int | None, typer.Option(help="CPU threads; one a physical core by default.", show_default=False)
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"patchcut {patchcut.__version__}")
        raise typer.Exit


@app.callback()
def _patchcut(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


@app.command("run")
def _run(
    sources: SourceArgument,
    *,
    out: OutOption = None,
    save: SaveOption = None,
    overwrite: OverwriteOption = False,
    limit: LimitOption = None,
    every: EveryOption = 1,
    show: ShowOption = False,
    json: JsonOption = False,
    bundle: BundleOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    size: SizeOption = None,
    head: HeadOption = "auto",
    k: KOption = None,
    alpha: AlphaOption = None,
    loss: LossOption = None,
    seed: SeedOption = None,
    mode: ModeOption = "foreground",
    parts: PartsOption = "auto",
    parts_k: PartsKOption = None,
    refine: RefineOption = "auto",
    min_score: MinScoreOption = 0.0,
    nothing_below: NothingBelowOption = None,
    single: SingleOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Segment photos, a video or a live picture.

    The folder gets overlay/NAME.jpg (of a video one NAME.mp4), masks/NAME/01.png (a region each, best first),
    labels/NAME.png (0 is background) and json/NAME.json.

    Exit status: 0 all good; 1 something was skipped, failed, or there was nothing; 2 wrong usage;
    130 Ctrl-C or SIGTERM. What was written is whole in each case.
    """

    def work() -> int:
        from patchcut.cli.load_options import LoadOptions
        from patchcut.cli.run import DEFAULT_OUT, RunOptions, run

        options = RunOptions(
            sources=tuple(sources),
            out=Path(DEFAULT_OUT) if save and out is None else out,
            save=tuple(word.strip() for word in save.split(",")) if save is not None else None,
            overwrite=overwrite,
            limit=limit,
            every=every,
            show=show,
            json=json,
            load=LoadOptions(
                bundle=bundle,
                engine=engine,
                device=device,
                precision=precision,
                size=size,
                head=head,
                head_settings={"k": k, "alpha": alpha, "loss": loss, "seed": seed},
                mode=mode,
                parts=parts,
                parts_k=parts_k,
                refine=refine,
                min_score=min_score,
                nothing_below=nothing_below,
                single=single,
                threads=threads,
            ),
        )
        return run(options)

    exit_with(work)


@app.command("info")
def _info(
    bundle: Annotated[
        str | None,
        typer.Argument(help="An embedded bundle's name, or a .patchcut file.", show_default="default"),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the embedded bundles instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say what a bundle holds, how well it does, and what would run it here."""

    def work() -> int:
        from patchcut.cli.info import info, list_bundles

        if not listed:
            return info(bundle, as_json=json)
        if bundle is not None:
            raise OptionError("list", f"lists all embedded bundles, got the name of one: {bundle}")
        return list_bundles(as_json=json)

    exit_with(work)


@app.command("demo")
def _demo(
    out: Annotated[Path, typer.Option(help="Folder for overlays and masks.")] = Path("patchcut-demo"),
    bundle: BundleOption = None,
) -> None:
    """Segment the sample photos that come with patchcut."""

    def work() -> int:
        from patchcut.cli.demo import demo

        return demo(out, bundle)

    exit_with(work)


def main() -> None:
    """Run the command line and exit; errors that patchcut foresees are one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a video is finished then, too
    try:
        _add_commands()
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def exit_with(work: Callable[[], int]) -> NoReturn:
    """Leaves the process with what `work` returns; what it raises becomes one line on stderr and a status.

    Raises:
        typer.Exit: always.
    """
    try:
        status = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("patchcut: stopped", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except PatchcutError as error:
        print(f"patchcut: {error}", file=sys.stderr)
        status = EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAILED
    except BrokenPipeError:
        # The reader of stdout has left: nothing may be said there, not even by the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    raise typer.Exit(status)


def _add_commands() -> None:
    """Commands of other packages, named in the entry-point group `patchcut.commands`, loaded when called."""
    for point in sorted(entry_points(group="patchcut.commands"), key=lambda point: point.name):
        _add_command(point)


def _add_command(point: EntryPoint) -> None:
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

    def forward(context: typer.Context) -> None:
        def work() -> int:
            return int(_load_command(point).main(args=context.args, prog_name=f"patchcut {point.name}") or 0)

        try:
            exit_with(work)
        except ImportError as error:  # also where the command imports what it needs only when it runs
            theirs = f"install what {_package(point)} needs"
            remedy = f"pip install 'patchcut[{point.name}]'" if point.name in _COMMAND_HELP else theirs
            print(f"patchcut: [{point.name}] lacks a package ({error}); {remedy}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILED) from error

    text = _COMMAND_HELP.get(point.name, f"From {_package(point)}.")
    app.command(point.name, help=text, context_settings=settings, add_help_option=False)(forward)


def _package(point: EntryPoint) -> str:
    return point.module.partition(".")[0]


def _load_command(point: EntryPoint) -> Any:
    loaded = point.load()
    return typer.main.get_command(loaded) if isinstance(loaded, typer.Typer) else loaded
