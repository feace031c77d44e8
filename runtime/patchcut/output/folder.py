"""Results on disk, whole files only.

    DIR/overlay/<name>.jpg       the photo with its regions drawn; for a video one video, <video>.mp4
    DIR/masks/<name>/01.png      one mask a region, 0 or 255, best first: 01 is region 1
    DIR/labels/<name>.png        the label map: 0 background, i the i-th label (a palette; 16 bits beyond 255)
    DIR/cutout/<name>.png        the photo with its objects opaque and the rest transparent
    DIR/crop/<name>.jpg          the photo around its best object
    DIR/votes/<name>.jpg         how much each voter of a head says that a place is foreground
    DIR/json/<name>.json         boxes, scores, labels, areas and timings, and where the masks are
    DIR/npz/<name>.npz           label map, region ids, boxes, scores, areas and labels, as numpy has them
    DIR/results.jsonl            a line for each photo, with its masks; of a video jsonl/<video>.jsonl
    DIR/coco.json                images, annotations, categories of all photos; of a video coco/<video>.json
    DIR/rerun/<name>.rrd         a recording for Rerun's viewer; for a video one, rerun/<video>.rrd
    DIR/index.json, index.html   all results of the run, and a contact sheet with the pictures of DIR/index
    DIR/.patchcut/               which of these files runs have written, and what they are done with

<name> is the photo's path in its source without the suffix, or <video>/<number of the frame, six digits>; see
`patchcut.output.names`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from patchcut.endings import finished_first
from patchcut.errors import OptionError, OutputError
from patchcut.output.files import OutputFiles
from patchcut.output.manifest import Done, recipe_name
from patchcut.output.names import OutputNames
from patchcut.output.sinks import SINKS
from patchcut.output.whole_files import stops_all
from patchcut.result import Result
from patchcut.sources import Source
from patchcut.sources.arrays import FrameSource

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_SAVE = ("overlay", "masks", "json")


class OutputFolder:
    """A folder that results are saved in; a context manager that finishes what is unfinished.

    A result that cannot be written is told in `problems` and the rest goes on; only where no file can be
    written any more, as on a full disk, an OutputError is raised.

    Args:
        path: the folder; made if it is not there.
        save: what to save, words of `patchcut.output.sinks.SINKS`.
        overwrite: replace results of earlier runs; those of photos that are gone are removed when the folder
            is closed after a whole run. Files that no run has on record are never touched.
        resume: skip photos and videos that an earlier run is done with, with the same recipe.
        recipe: what results depend on, such as the bundle and the settings, as JSON can tell it.
    Attributes:
        problems: one line for each photo, frame or video of which something could not be written.
        skipped: how many photos and videos `resume` has left out so far.
    Raises:
        OptionError: `save` is empty or has another word; `path` is an empty text.
        PatchcutError: a package that one of `save` needs is missing.
        OutputError: the folder cannot be written, holds results already, or was made with another recipe.
    Examples:
        >>> with OutputFolder(folder, ["labels"]) as out:
        ...     out.write(result)
        >>> [path.name for path in (folder / "labels").iterdir()]
        ['000000.png']
    """

    def __init__(
        self,
        path: str | Path,
        save: Collection[str] = DEFAULT_SAVE,
        *,
        overwrite: bool = False,
        resume: bool = False,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        if not str(path):
            raise OptionError("out", "is an empty text; name a folder, or . for this one")
        if overwrite and resume:
            raise OptionError("resume", "keeps what is there, and overwrite replaces it: choose one")
        self.path = Path(path)
        self.save = check_save(save)
        self.problems: list[str] = []
        self.skipped = 0
        self._overwrite = overwrite
        self._resume = resume
        self._recipe = dict(recipe or {})
        self._names = OutputNames()
        self._part: Source | None = None
        self._video = ""
        self._cut = False
        self._whole = True
        self._frame_files = 0
        self._stamps: dict[str, str] = {}
        self._named: dict[str, str] = {}
        self.files = OutputFiles(self.path, redo=self.save if overwrite else ())
        try:
            self._check_earlier()
        except OutputError:
            self.files.close(keep_empty=False)
            raise
        self._sinks = [SINKS[word](self.files) for word in self.save]

    @property
    def draws(self) -> bool:
        """Whether `write` needs overlays, so that a caller who shows them, too, draws them once."""
        return any(sink.draws for sink in self._sinks)

    def start(self, part: Source) -> bool:
        """Says whose results follow; False where `resume` finds that an earlier run is done with them.

        Args:
            part: a source of photos, or one video: one of `Source.parts`. Photos that are done are left out
                while it is iterated.
        Raises:
            OutputError: what came before could not be finished.
        Examples:
            >>> out = OutputFolder(folder, ["json"])
            >>> out.start(patchcut.open_source([frame]))
            True
        """
        self._end_part(None)
        self._part, self._whole, self._frame_files = part, True, 0
        self._video = self._names.video(part.name) if part.is_video else ""
        self._stamps, self._named = {}, {}
        for sink in self._sinks:
            sink.start(part)
        if part.is_video:
            done = self._skip_done(part.name, self._video, part.stamp)
        else:
            part.skip = self._skips
            done = part.stamp is not None and self._skips(part.name, part.stamp)
        self._cut = not done
        if done:
            self._end_part(None)
        return not done

    @finished_first()
    def write(self, result: Result, overlay: npt.NDArray[np.uint8] | None = None) -> None:
        """Saves one frame's result, as asked for; what cannot be written is told in `problems`.

        Args:
            result: it holds its frame where overlays are saved.
            overlay: the result's, where it has been drawn already.
        Raises:
            FrameError: overlays are saved, and the result holds no frame.
            OutputError: "[output] cannot write DIR/labels/x.png: No space left on device; ...".
        Examples:
            >>> OutputFolder(folder, ["masks"]).write(result)
            >>> (folder / "masks/000000/01.png").is_file()
            True
        """
        if self._part is None:
            self.start(FrameSource([]))
            self._cut = False
        if self._video:
            name = f"{self._video}/{result.index:06d}"
        else:
            name = self._named.pop(result.name, "") or self._names.photo(result.name, result.index)
        self.files.begin_item()
        told = len(self.problems)
        for sink in self._sinks:
            with self._telling(result.name or name, sink.word):
                sink.write(name, result, overlay)
        self._whole = self._whole and len(self.problems) == told
        if self._video:
            self._frame_files += len(self.files.item)
        elif (stamp := self._stamps.pop(result.name, None)) and len(self.problems) == told:
            self.files.done(result.name, self._done(name, stamp), self._recipe)

    def finish_part(self, end_s: float | None = None) -> None:
        """Says that the part came to its end; its video is finished, and done with.

        Args:
            end_s: when its last frame ends, see `Source.end_s`.
        Raises:
            OutputError: no file can be written any more.
        Examples:
            >>> out = OutputFolder(folder, ["json"])
            >>> out.finish_part()
        """
        part, told, self._cut = self._part, len(self.problems), False
        self.files.begin_item()
        self._end_part(end_s)
        if part is not None and self._video and part.stamp and self._whole and len(self.problems) == told:
            self.files.done(part.name, self._done(self._video, part.stamp, self._frame_files), self._recipe)

    def close(self, complete: bool = True) -> None:
        """Finishes what is unfinished; an overlay video plays to the last frame written.

        Args:
            complete: nothing went wrong. With `overwrite`, what was not written again is removed then, but
                not where a part that was started has not been finished. Where something went wrong before
                anything was written, a folder that was made for it is removed.
        Raises:
            OutputError: something could not be finished.
        Examples:
            >>> out = OutputFolder(folder, ["overlay"])
            >>> out.write(result)
            >>> out.close()
            >>> len(list((folder / "overlay").iterdir()))
            1
        """
        try:
            whole = complete and not self._cut
            self._end_part(None)
            for sink in self._sinks:
                with self._telling(str(self.path), sink.word):
                    sink.close()
            if whole and self._overwrite:
                self.files.remove_stale(self.save)
        finally:
            self.files.close(keep_empty=complete)

    def written(self) -> tuple[str, ...]:
        """Which of `save` this run has written; a video that failed was removed.

        Examples:
            >>> OutputFolder(folder, ["json"]).written()
            ()
        """
        return tuple(word for word in self.save if word in self.files.words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if kind is None or not issubclass(kind, OutputError):
            self.close(complete=kind is None)
            return
        with contextlib.suppress(OutputError):  # one error is on its way already
            self.close(complete=False)

    def _check_earlier(self) -> None:
        """Checks that results of earlier runs may be replaced or resumed."""
        held = [word for word in self.save if self.files.holds(word)]
        if self._overwrite or not held:
            return
        where = self.path / held[0]
        known = self.files.manifest.over
        if not self._resume:
            remedy = "choose another folder, or add --overwrite (overwrite=True) or --resume (resume=True)"
            raise OutputError("output", f"{where} holds results already", remedy)
        all_done = (done for several in known.done.values() for _, done in several)
        made_by = {done.recipe for done in all_done if set(done.words) & set(held)}
        for recipe in made_by - {recipe_name(self._recipe)}:
            what = f"{self.path} was made with {_difference(known.recipes.get(recipe, {}), self._recipe)}"
            raise OutputError("resume", what, "repeat the options of that run, or choose another folder")

    def _skips(self, name: str, stamp: str) -> bool:
        """Whether a photo is done; asked before it is read. Its results are named now, done or not."""
        results = self._names.photo(name, 0)
        if self._skip_done(name, results, stamp):
            return True
        self._stamps[name], self._named[name] = stamp, results
        return False

    def _skip_done(self, key: str, results: str, stamp: str | None) -> bool:
        if not self._resume or stamp is None or not self.files.is_done(key, self._done(results, stamp)):
            return False
        self.skipped += 1
        for sink in self._sinks:
            sink.skipped(results)
        return True

    def _done(self, results: str, stamp: str, frame_files: int = 0) -> Done:
        recipe = recipe_name(self._recipe)
        return Done(results, stamp, list(self.save), recipe, dict(self.files.item), frame_files)

    def _end_part(self, end_s: float | None) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        for sink in self._sinks:
            with self._telling(part.name, sink.word):
                sink.finish_part(end_s)

    @contextlib.contextmanager
    def _telling(self, name: str, word: str) -> Iterator[None]:
        """Turns an error about one file into a line of `problems`."""
        try:
            yield
        except OutputError as error:
            if stops_all(error):
                raise
            what = f"is not saved as {word}: {error.what}"
            self.problems.append(str(OutputError(name, what, error.remedy)))
        except MemoryError:
            what = f"is not saved as {word}: there is not enough memory"
            self.problems.append(str(OutputError(name, what, "scale the frame down")))


def check_save(save: Collection[str]) -> tuple[str, ...]:
    """`save` in the order of writing, each once.

    Raises:
        OptionError: "[save] must be among overlay, masks, labels, json, got 'mask'".
        PatchcutError: a package that one of them needs is missing.
    Examples:
        >>> patchcut.output.folder.check_save(["json", "overlay"])
        ('overlay', 'json')
    """
    wrong = [word for word in save if word not in SINKS]
    if wrong or not save:
        raise OptionError("save", f"must be among {', '.join(SINKS)}, got {(wrong or [''])[0]!r}")
    for word in set(save):
        SINKS[word].check()
    return tuple(word for word in SINKS if word in save)


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What one recipe has and another has not, in words."""
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            return f"{key} {theirs.get(key, 'unset')}, not {ours.get(key, 'unset')}"
    return "other settings"
