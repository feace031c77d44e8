"""A batch job over a folder of videos: stopped and started again, it goes on where it was.

python batch_videos.py recordings results
"""

from __future__ import annotations

import sys

import patchcut
from patchcut.output.folder import OutputFolder


def run(videos: str, out: str, bundle: str = "default") -> int:
    """The exit status: 0 where every video is done."""
    segmenter = patchcut.load(bundle=bundle)
    # What results depend on: a run with other settings is refused, not mixed in.
    recipe = {"settings": " ".join(segmenter.settings.words())}
    with (
        patchcut.open_source(videos) as source,
        OutputFolder(out, ["overlay", "jsonl"], resume=True, recipe=recipe) as folder,
    ):
        for video in source.parts():
            if not folder.start(video):
                print(f"{video.name}: done already")
                continue
            frames = 0
            for result in segmenter.results(video):
                folder.write(result)
                frames += 1
            folder.finish_part(video.end_s)  # from here on it counts as done
            print(f"{video.name}: {frames} frames")
    problems = [*source.problems, *folder.problems]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:3]))
