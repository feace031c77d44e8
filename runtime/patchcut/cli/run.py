"""`patchcut run`: frames of a source through a segmenter, to a folder, a window or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from time import perf_counter
from typing import Any

from patchcut.cli import run_json
from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD
from patchcut.cli.progress import FrameBar
from patchcut.cli.run_options import Run, RunOptions
from patchcut.cli.run_stats import RunStats
from patchcut.cli.signals import EXIT_INTERRUPTED, stoppable, unbroken
from patchcut.cli.streams import say
from patchcut.cli.terminal import muted_native_stderr
from patchcut.cli.window import Window
from patchcut.errors import OptionError, OutputError, PatchcutError
from patchcut.heads import VotingHead
from patchcut.output.folder import DEFAULT_SAVE, OutputFolder, check_save
from patchcut.recipe import settings_recipe
from patchcut.result import Result
from patchcut.segmenter import Segmenter
from patchcut.settings import Settings
from patchcut.sources import Source, open_source
from patchcut.video import pointed_objects


def run(options: RunOptions) -> int:
    """Exit status of a whole run, after its summary was printed.

    Raises:
        PatchcutError: it could not start. What fails later is said below the summary.
    """
    _check(options)
    with ExitStack() as stack:
        running = _open(options, stack)
        failure = _work(running)
    _report(running, failure)
    if isinstance(failure, PatchcutError):
        raise failure
    if failure is not None:
        return EXIT_INTERRUPTED
    nothing = not running.stats.frames and not running.skipped
    return EXIT_FAILED if running.problems or nothing else EXIT_GOOD


def _check(options: RunOptions) -> None:
    if options.quiet and options.verbose:
        raise OptionError("quiet", "says nothing, and verbose says more: choose one")
    if options.resume and options.out is None:
        raise OptionError("resume", "needs the folder of the run to go on with", "name it with --out")
    if options.limit is not None and options.at > (options.limit - 1) * options.every:
        what = f"must be a frame of the run, got {options.at} with a limit of {options.limit}"
        raise OptionError("at", what, "point at objects on an earlier frame, or raise --limit")


def _open(options: RunOptions, stack: ExitStack) -> Run:
    """Everything that can be refused is tried before the model is loaded, the cheapest first."""
    save = check_save(DEFAULT_SAVE if options.save is None else options.save)
    window = stack.enter_context(Window("patchcut")) if options.show else None
    rule = options.settings.pixel_rule
    with muted_native_stderr():
        named = options.sources[0] if len(options.sources) == 1 else list(options.sources)
        source = stack.enter_context(open_source(named, every=options.every, rule=rule))
    folder = None
    with ExitStack() as refused:
        if options.out is not None:
            how: dict[str, Any] = {"overwrite": options.overwrite, "resume": options.resume}
            folder = OutputFolder(options.out, save, **how, recipe=_recipe(options))
            refused.push(_finishing(folder))
        pointed = pointed_objects(options.settings, options.prompts, options.at) if options.prompts else None
        segmenter = Segmenter.open(_for_recordings(options, source))
        _check_head(segmenter, options, save, pointed=pointed is not None)
        refused.pop_all()
    return Run(options, source, segmenter, folder, window, RunStats(), pointed)


def _check_head(segmenter: Segmenter, options: RunOptions, save: Sequence[str], *, pointed: bool) -> None:
    """Checks that the head names something, and makes what is to be saved.

    Raises:
        OptionError: it does not.
    """
    if not pointed and segmenter.head.labels == ("background",):
        what = f"the bundle {options.settings.bundle} holds no concepts"
        remedy = 'make some with `patchcut export concept`, or with `patchcut.load(head="concepts").concepts`'
        raise OptionError("head", what, remedy)
    if "votes" in save and (pointed or not isinstance(segmenter.head, VotingHead)):
        what = f'has "votes", and the head "{segmenter.head.name}" takes none'
        raise OptionError("save", what, "leave it out, or choose a head that does, such as --head levels")


def _for_recordings(options: RunOptions, source: Source) -> Settings:
    """The settings, by which frames of a recording run beside each other if nothing else was said."""
    settings = options.settings
    recorded = source.is_video and not options.stream.is_live(source)
    if settings.throughput is None and recorded and not options.prompts:
        return replace(settings, throughput=True)
    return settings


def _recipe(options: RunOptions) -> dict[str, Any]:
    """What results depend on."""
    recipe: dict[str, Any] = {**settings_recipe(options.settings), "every": options.every}
    stream = options.stream
    if options.prompts:
        recipe |= {"prompts": [prompt.words for prompt in options.prompts], "at": options.at}
    some = {
        "live": stream.mode == "live" or None,
        "start": stream.start,
        "stop": stream.stop,
        "track": None if stream.track else False,
        "reuse_below": stream.reuse_below,
    }
    return recipe | {name: value for name, value in some.items() if value is not None}


def _work(running: Run) -> BaseException | None:
    """Segments all, and finishes what is written; what ended it early, if anything did."""
    with stoppable():
        try:
            with ExitStack() as stack:
                if running.folder is not None:
                    stack.push(_finishing(running.folder))
                _segment_all(running)
        except (PatchcutError, KeyboardInterrupt) as error:
            return error
    return None


def _finishing(folder: OutputFolder) -> Any:
    """The end of `with folder`, which no signal tears."""

    def finish(*exc_info: Any) -> None:
        with unbroken():
            folder.__exit__(*exc_info)

    return finish


def _segment_all(running: Run) -> None:
    options = running.options
    if options.json:
        run_json.print_start(running.source, running.segmenter)
    # All of it: a live source is read, and may complain, while a frame is segmented.
    with muted_native_stderr() as stderr, FrameBar(stderr, shown=not options.quiet) as bar:
        if options.verbose:
            from patchcut.cli.tables import what_runs

            say(what_runs(running))
        for part in running.source.parts():
            if not _starts(running, part):
                continue
            bar.start(part.name, _total(running, part))
            if not _segment_part(running, part, bar):
                return
            if running.folder is not None:
                with unbroken():
                    running.folder.finish_part(part.end_s)


def _starts(running: Run, part: Source) -> bool:
    """Whether a part has to be done, which is told to those that want to know."""
    if running.folder is not None:
        with unbroken():
            if not running.folder.start(part):
                return False
    if running.options.json and part.is_video and part is not running.source:
        run_json.print_part(part)
    return True


def _segment_part(running: Run, part: Source, bar: FrameBar) -> bool:
    """False where the limit or the person at the window ends the run."""
    results = running.results(part)
    with closing(results):  # its threads end here, whatever ends the run
        for result in results:
            started = perf_counter()
            try:
                stopped = _hand_out(running, result)
            except MemoryError:  # the next photo may be smaller
                what = f"the results of {result.name or result.index} do not fit in memory"
                part.problems.append(str(OutputError("output", what, "scale it down, or save less of it")))
                stopped = False
            running.stats.add(result, save_ms=1e3 * (perf_counter() - started), listed=not part.is_video)
            bar.advance(running.stats.fps)
            del result  # a large one is not held while the next frame is worked on
            if stopped or running.stats.frames == running.options.limit:
                return False
    return True


def _total(running: Run, part: Source) -> int | None:
    """Frames of a part to come, as far as anybody knows."""
    if running.options.limit is None:
        return part.total
    left = running.options.limit - running.stats.frames
    return left if part.total is None else min(left, part.total)


def _hand_out(running: Run, result: Result) -> bool:
    """True if the person at the window wants to stop."""
    folder, window = running.folder, running.window
    overlay = None
    if window is not None or (folder is not None and folder.draws):
        overlay = result.overlay()  # drawn once for both
    if folder is not None:
        with unbroken():
            folder.write(result, overlay)
    if running.options.json:
        run_json.print_frame(result)
    return window is not None and overlay is not None and not window.show(overlay)


def _report(running: Run, failure: BaseException | None) -> None:
    if running.options.json:
        run_json.print_end(running, failure)
    elif running.options.quiet:
        for problem in running.problems:
            say(f"patchcut: {problem}")
    else:
        from patchcut.cli.tables import print_run

        print_run(running, interrupted=isinstance(failure, KeyboardInterrupt))
