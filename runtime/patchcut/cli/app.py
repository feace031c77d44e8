"""The command `patchcut`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

import patchcut
from patchcut.cli import signals
from patchcut.cli.batch_options import OF_BATCHES, batch_options
from patchcut.cli.options import (
    EXIT_FAILED,
    command,
    exit_with,
    status_of,
    with_options_of,
    with_settings,
)
from patchcut.cli.streams import close_stdout, prepare_streams, say
from patchcut.errors import OptionError, PatchcutError, install_hint
from patchcut.settings import Settings

# The words of `patchcut.output.sinks.SINKS`, whose module takes numpy: the help comes without it.
SAVED = (
    "overlay",
    "masks",
    "labels",
    "cutout",
    "crop",
    "votes",
    "npz",
    "json",
    "jsonl",
    "coco",
    "rerun",
    "index",
)
MAX_EVERY = 2**31 - 1

_COMMAND_HELP = {
    "export": "Make, check and measure bundles (needs the extra export).",
    "serve": "Answer over HTTP and WebSocket (needs the extra server).",
}
_EXTRAS = {"export": "export", "serve": "server"}

app = typer.Typer(
    help="Real-time segmentation without labels: a frame goes in, masks and boxes come out.",
    epilog="Exit status: 0 all good; 1 something failed or was skipped, or nothing was processed; "
    "2 the command line is wrong; 130 stopped by Ctrl-C, SIGTERM or SIGHUP. "
    "What was written is whole in each case.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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


def _run_options(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Photo, video, folder, glob, camera index, rtsp:// or http:// address, - for what is piped "
            "in; or several photos, videos, folders and globs.",
        ),
    ],
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for results; without it and --save nothing is written.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            help=f"What to write, separated by commas: {', '.join(SAVED)}; to patchcut-out where --out is "
            "not given. \\[default: overlay,masks,json]",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results in --out.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out: leave out what an earlier run is done with.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many frames.", show_default=False)
    ] = None,
    every: Annotated[int, typer.Option(min=1, max=MAX_EVERY, help="Take every N-th frame.")] = 1,
    start: Annotated[
        float | None,
        typer.Option(help="Leave out what comes before this second of a video.", show_default=False),
    ] = None,
    stop: Annotated[
        float | None, typer.Option(help="End before this second of a video.", show_default=False)
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Always take the newest frame, as from cameras; a video file is played at its own speed.",
        ),
    ] = False,
    max_fps: Annotated[
        float | None, typer.Option(help="Segment at most so many frames a second.", show_default=False)
    ] = None,
    queue: Annotated[
        int, typer.Option(help="Frames of a video to read ahead; 0 does one thing after the other.")
    ] = 2,
    track: Annotated[
        bool,
        typer.Option("--track/--no-track", help="Keep masks of a video steady, and the ids of its objects."),
    ] = True,
    reuse_below: Annotated[
        float | None,
        typer.Option(
            help="Give frames of a video the answer of the one before where no part of them differs by more "
            "than so many of 255 grey levels, at most ten in a row.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a live window; q or Esc ends.")] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Write JSON lines to stdout and nothing else: "
            '{"event": "start" | "part" | "frame" | "end", ...}.',
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors and what was skipped.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is read and what runs, on stderr.")
    ] = False,
    settings: Settings,
) -> Any:
    """The RunOptions of a command, whose module is not imported before one runs."""
    from patchcut.cli.run_options import DEFAULT_OUT, RunOptions
    from patchcut.video import StreamOptions

    return RunOptions(
        sources=tuple(sources),
        out=DEFAULT_OUT if save and out is None else out,
        save=tuple(word.strip() for word in save.split(",")) if save is not None else None,
        overwrite=overwrite,
        resume=resume,
        limit=limit,
        every=every,
        stream=StreamOptions(
            mode="live" if live else "auto",
            queue=queue,
            max_fps=max_fps,
            start=start,
            stop=stop,
            track=track,
            reuse_below=reuse_below,
        ),
        show=show,
        json=json,
        quiet=quiet,
        verbose=verbose,
        settings=settings,
    )


@command(app, "run")
@with_settings()
@with_options_of(_run_options)
def _run(*, options: Any) -> int:
    """Segment photos, videos, or a live picture.

    The folder gets overlay/NAME.jpg (of a video one NAME.mp4),
    masks/NAME/01.png (a region each, best first) and json/NAME.json;
    with --save also labels/NAME.png (0 is background), cutout/NAME.png,
    crop/NAME.jpg, votes/NAME.jpg (of a head that takes votes),
    npz/NAME.npz, results.jsonl, coco.json, rerun/NAME.rrd
    (needs the extra rerun), and index.json with index.html.

    Exit status: 0 all good; 1 something was skipped, failed, or there was
    nothing; 2 wrong usage; 130 Ctrl-C, SIGTERM or SIGHUP.
    What was written is whole in each case.
    """
    from patchcut.cli.run import run

    return run(options)


@command(app, "track")
@with_settings()
@with_options_of(_run_options)
def _track(
    *,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="An object's point, in pixels; again for another object."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A box around an object, half-open; again for another."),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.png", help="An object's mask: anything but black is the object; again for another."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Names of the objects: of the points, then the boxes, then the masks."),
    ] = None,
    at: Annotated[int, typer.Option(min=0, help="Index of the frame that is pointed at.")] = 0,
    options: Any,
) -> int:
    """Follow what you point at through a video.

    Objects are segmented in frame --at from their points, boxes or masks,
    and followed from there on. They have the ids 1, 2, ...: the points
    first, then the boxes, then the masks. The source is one video, a
    camera, or the photos of one folder; a single photo is segmented. All
    else is as in `patchcut run`.

    Exit status: as of `patchcut run`.
    """
    from patchcut.cli.track import track

    return track(options, points=point or (), boxes=box or (), masks=mask or (), names=name or (), at=at)


@command(app, "batch")
@with_settings(only=OF_BATCHES)
@with_options_of(batch_options)
def _batch(*, options: Any) -> int:
    """Segment millions of photos and frames of videos into shards.

    The same command goes on where it was stopped, whatever stopped it: each
    frame is in the end one row of a shard, or one line of failures.jsonl.
    Frames of videos are segmented each by itself; `patchcut run` tracks.

    Exit status: 0 all good; 1 something failed, or it could not go on;
    2 wrong usage; 130 Ctrl-C, SIGTERM or SIGHUP.
    """
    from patchcut.cli.batch import batch

    return batch(options)


@command(app, "info")
def _info(
    bundle: Annotated[
        str | None,
        typer.Argument(help="An embedded bundle's name, or a .patchcut file.", show_default="default"),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the embedded bundles instead.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say all that is known of it.")] = False,
) -> int:
    """Say what a bundle holds, how well it does, and what would run it here."""
    from patchcut.cli.info import info, list_bundles

    if not listed:
        return info(bundle, as_json=json, verbose=verbose)
    if bundle is not None:
        raise OptionError("list", f"lists all embedded bundles, got the name of one: {bundle}")
    return list_bundles(as_json=json)


@command(app, "doctor")
def _doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    open_cameras: Annotated[
        bool, typer.Option("--open-cameras", help="Take a frame of each camera, too.")
    ] = False,
) -> int:
    """Say what this machine has, what would run, and why nothing faster does.

    It fetches and writes nothing, opens no camera unless asked to, and leaves
    out users' names: put it into a bug report as it is.

    Exit status: 0 the default bundle runs; 1 it does not.
    """
    from patchcut.cli.doctor import doctor

    return doctor(as_json=json, open_cameras=open_cameras)


@command(app, "bench")
@with_settings()
def _bench(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Photo, folder, glob or video, of which up to 32 frames are held in memory.",
            show_default="sample photos",
        ),
    ] = None,
    *,
    scenario: Annotated[
        str, typer.Option(help="single-stream, multi-stream, offline or server, as in MLPerf Inference.")
    ] = "single-stream",
    duration: Annotated[str, typer.Option(help="How long, such as 30s or 2m.")] = "30s",
    warmup: Annotated[str, typer.Option(help="How long before that, untimed.")] = "3s",
    streams: Annotated[int, typer.Option(help="Frames of a query of multi-stream.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of server.", show_default="70 % of what the warm-up reached"),
    ] = None,
    bound: Annotated[
        float | None,
        typer.Option(
            help="Milliseconds that the scenario's percentile must keep, or the exit status is 1.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the moments at which frames of server come.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the report, as JSON.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Measure nothing, and compare two reports.", show_default=False),
    ] = None,
    settings: Settings,
) -> int:
    """Measure latency and throughput here, or compare two such reports.

    What is inside the clock is said in words; what makes the figures
    uncertain, too. Clocks and governors are read and never changed.
    """
    from patchcut.benchmark import Plan
    from patchcut.cli.bench import bench, compare_files, seconds

    if compare is not None:
        return compare_files(*compare)
    plan = Plan(
        scenario, seconds("duration", duration), seconds("warmup", warmup), streams, rate, bound, seed
    )
    return bench(source, plan, settings, out=out, as_json=json, quiet=quiet)


@command(app, "demo")
def _demo(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for overlays and masks.")] = "patchcut-demo",
    bundle: Annotated[str, typer.Option(help="An embedded bundle's name or a .patchcut file.")] = "default",
) -> int:
    """Segment the sample photos that come with patchcut."""
    from patchcut.cli.demo import demo

    return demo(Path(out), Settings(bundle=bundle))


def main() -> None:
    """Run the command line and exit; errors that patchcut foresees are one line on stderr.

    `patchcut.__main__` calls it: there signals are harmless to imports, too.
    """
    prepare_streams()
    try:
        with signals.leaving_at_once():
            _add_commands()
            app()
    except SystemExit as left:
        sys.exit(_status(left))
    except (PatchcutError, BrokenPipeError) as error:
        sys.exit(status_of(error))


def _status(left: SystemExit) -> int:
    """The exit status that a command wants, if stdout can still be written."""
    try:
        close_stdout()
    except (PatchcutError, BrokenPipeError) as error:
        return status_of(error)
    return left.code if isinstance(left.code, int) else int(left.code is not None)


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
            with signals.stoppable():
                exit_with(work)
        except KeyboardInterrupt as stop:  # in the moment before or after the work
            raise typer.Exit(signals.EXIT_INTERRUPTED) from stop
        except ImportError as error:  # also where the command imports what it needs only when it runs
            theirs = f"install what {_package(point)} needs"
            remedy = install_hint(_EXTRAS[point.name]) if point.name in _EXTRAS else theirs
            say(f"patchcut: [{point.name}] lacks a package ({error}); {remedy}")
            raise typer.Exit(EXIT_FAILED) from error

    text = _COMMAND_HELP.get(point.name, f"From {_package(point)}.")
    app.command(point.name, help=text, context_settings=settings, add_help_option=False)(forward)


def _package(point: EntryPoint) -> str:
    return point.module.partition(".")[0]


def _load_command(point: EntryPoint) -> Any:
    loaded = point.load()
    return typer.main.get_command(loaded) if isinstance(loaded, typer.Typer) else loaded
