"""What later runs into the same folder replace, remove and leave out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from patchcut.errors import OptionError, OutputError
from patchcut.output.folder import OutputFolder
from patchcut.sources import open_source

from tests.runtime.output.made_folders import files, frame, frames_in, photos_in, result, run, video_file


def test_overwriting_removes_results_of_photos_that_are_gone(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["masks", "json"]), photos_in(photos, "a.png", "b/c.png", "d.png"), regions=3)
    (out / "masks/b/c/mine.png").write_text("mine")
    (photos / "b/c.png").unlink()
    run(OutputFolder(out, ["masks"], overwrite=True), open_source(photos), regions=1)
    assert [name for name in files(out) if name.startswith("masks")] == [
        "masks/a/01.png",
        "masks/b/c/mine.png",
        "masks/d/01.png",
    ]
    assert len([name for name in files(out) if name.startswith("json")]) == 3  # not asked for again
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, ["json"], overwrite=True), open_source(photos), stop_after=1)
    with OutputFolder(out, ["json"], overwrite=True) as folder:
        for part in open_source(photos).parts():
            folder.start(part)
            folder.write(result(next(iter(part))))  # and no more, as with --limit
    assert len([name for name in files(out) if name.startswith("json")]) == 3  # only a whole run removes


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_resuming_does_what_is_missing(tmp_path: Path, stop_after: int) -> None:
    photos, out, recipe = tmp_path / "photos", tmp_path / "out", {"head": "cc"}
    names = ["a.png", "b/c.png", "b.png", "d.png"]
    source = photos_in(photos, *names)
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, ["masks", "json"], recipe=recipe), source, stop_after=stop_after)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    folder = OutputFolder(out, ["masks", "json"], resume=True, recipe=recipe)
    assert run(folder, open_source(photos)) == names[stop_after:]
    assert folder.skipped == stop_after
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    again = OutputFolder(out, ["masks", "json"], resume=True, recipe=recipe)
    assert run(again, open_source(photos)) == []
    assert again.skipped == 4
    assert len(files(out)) == 4 * 3


def test_resuming_does_again_what_has_changed(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    run(OutputFolder(out, ["masks", "json"]), photos_in(photos, *names))
    cv2.imwrite(str(photos / "a.png"), frame().image[:20])  # another photo
    (out / "json/b.json").write_text("cut sh")
    (out / "masks/c/02.png").unlink()
    folder = OutputFolder(out, ["masks", "json"], resume=True)
    assert run(folder, open_source(photos), regions=1) == names[:3]
    assert folder.skipped == 2
    masks = [name for name in files(out) if name.startswith("masks")]
    assert masks == [f"masks/{name}/01.png" for name in "abcd"][:3] + [
        f"masks/{name}/0{i}.png" for name in "de" for i in (1, 2)
    ]
    assert json.loads((out / "json/b.json").read_text())["name"] == "b.png"


def test_resuming_skips_what_is_named_twice(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos", "a.png", "b.png")
    named = [str(tmp_path / "photos" / name) for name in ("a.png", "b.png", "a.png")]
    run(OutputFolder(tmp_path / "out", ["masks"]), open_source(named))
    again = OutputFolder(tmp_path / "out", ["masks"], resume=True)
    assert run(again, open_source(named)) == [] and again.skipped == 3


def test_resuming_does_not_take_anothers_results_for_those_of_a_photo(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["masks"]), photos_in(photos, "a.png"))
    cv2.imwrite(str(photos / "a.jpg"), frame().image)
    first = run(OutputFolder(out, ["masks"], resume=True), open_source(photos))
    assert first == ["a.jpg", "a.png"]  # which are a and a-png now
    (photos / "a.jpg").unlink()
    last = OutputFolder(out, ["masks"], resume=True)
    assert run(last, open_source(photos)) == ["a.png"]  # a again, where the masks of a.jpg are


def test_resuming_with_more_words_does_everything(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"]), photos_in(photos, "a.png", "b.png"))
    assert run(OutputFolder(out, ["masks"], resume=True), open_source(photos)) == ["a.png", "b.png"]
    both = OutputFolder(out, ["json", "masks"], resume=True)
    assert run(both, open_source(photos)) == [] and both.skipped == 2


def test_resuming_with_another_recipe_is_refused(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc", "every": 1}), photos_in(photos, "a.png"))
    with pytest.raises(
        OutputError, match=r"\[resume\] .*out was made with head cc, not ncut; repeat the options"
    ):
        OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut", "every": 1})
    with pytest.raises(OutputError, match="was made with every 1, not 2"):
        OutputFolder(out, ["json"], resume=True, recipe={"head": "cc", "every": 2})
    run(OutputFolder(out, ["json"], overwrite=True, recipe={"head": "ncut"}), open_source(photos))
    assert run(OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut"}), open_source(photos)) == []
    with pytest.raises(OptionError, match=r"\[resume\] keeps what is there"):
        OutputFolder(out, ["json"], resume=True, overwrite=True)


def test_overwriting_that_was_stopped_is_resumed(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc"}), photos_in(photos, "a.png", "b.png", "c.png"))
    with pytest.raises(KeyboardInterrupt):
        run(
            OutputFolder(out, ["json"], recipe={"head": "ncut"}, overwrite=True),
            open_source(photos),
            stop_after=1,
        )
    folder = OutputFolder(out, ["json"], recipe={"head": "ncut"}, resume=True)
    assert run(folder, open_source(photos)) == ["b.png", "c.png"]


def test_resuming_a_folder_of_which_nothing_is_on_record(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    assert run(OutputFolder(out, ["json"], resume=True), photos_in(photos, "a.png")) == ["a.png"]
    (tmp_path / "theirs" / "json").mkdir(parents=True)
    (tmp_path / "theirs" / "json" / "a.json").write_text("mine")
    folder = OutputFolder(tmp_path / "theirs", ["json"], resume=True)
    assert run(folder, open_source(photos)) == ["a.png"]
    (problem,) = folder.problems
    assert problem.startswith("[a.png] is not saved as json: ") and "is there already" in problem
    assert (tmp_path / "theirs" / "json" / "a.json").read_text() == "mine"


def test_videos_of_one_run_have_their_own_results_and_are_resumed_whole(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos_in(photos, "x.png")
    (photos / "x").mkdir()
    video_file(photos / "x.avi", 3)
    video_file(photos / "x" / "y.avi", 2)
    save = ["overlay", "labels"]
    with pytest.raises(KeyboardInterrupt):
        run(OutputFolder(out, save), open_source(photos), stop_after=5)  # within the second video
    wanted = {
        "overlay/x.jpg",
        "overlay/x/y.mp4",
        "labels/x.png",
        "labels/x/y/000000.png",
        "labels/x/y/000001.png",
        "overlay/x-avi.mp4",
        *(f"labels/x-avi/00000{i}.png" for i in range(3)),
    }
    folder = OutputFolder(out, save, resume=True)
    read = run(folder, open_source(photos))
    assert folder.skipped == 2 and len(set(read)) == 1
    assert set(files(out)) == wanted
    assert frames_in(out / "overlay/x-avi.mp4") == 3 and frames_in(out / "overlay/x/y.mp4") == 2
    again = OutputFolder(out, save, resume=True)
    assert run(again, open_source(photos)) == [] and again.skipped == 3
    (out / "labels/x-avi/000001.png").unlink()
    again = OutputFolder(out, save, resume=True)
    assert run(again, open_source(photos)) == ["x.avi"] * 3 and again.skipped == 2
    assert set(files(out)) == wanted


def test_a_single_file_is_resumed(tmp_path: Path) -> None:
    photos_in(tmp_path, "x.png")
    video_file(tmp_path / "x.avi", 2)
    for name in ("x.png", "x.avi"):
        out = tmp_path / name.replace(".", "-")
        assert run(OutputFolder(out, ["json"]), open_source(tmp_path / name)) != []
        again = OutputFolder(out, ["json"], resume=True)
        assert run(again, open_source(tmp_path / name)) == [] and again.skipped == 1


def test_a_folder_that_was_emptied_holds_nothing(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    run(OutputFolder(out, ["json"], recipe={"head": "cc"}), photos_in(photos, "a.png"))
    shutil.rmtree(out / "json")  # and not the record, which is hidden
    again = OutputFolder(out, ["json"], resume=True, recipe={"head": "ncut"})
    assert run(again, open_source(photos)) == ["a.png"]
    shutil.rmtree(out / "json")
    assert run(OutputFolder(out, ["json"]), open_source(photos)) == ["a.png"]
    assert files(out) == ["json/a.json"]
