"""`python -m patchcut_ros BAG --out BAG`: the answers to a bag's images, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from patchcut.cli.options import EXIT_FAILED, EXIT_GOOD, command, with_settings
from patchcut.cli.streams import say
from patchcut.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command(app, "bag")
@with_settings()
def bag(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="A bag of ROS 2, or a .bag file of ROS 1.")],
    *,
    out: Annotated[Path, typer.Option(metavar="BAG", help="The bag to write.")],
    topic: Annotated[
        str | None, typer.Option(help="Topic of the images.", show_default="the only one")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write the overlay, too.")] = False,
    storage: Annotated[str, typer.Option(help="sqlite3 or mcap.")] = "sqlite3",
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Objects keep their ids; else each image by itself.")
    ] = True,
    settings: Settings,
) -> int:
    """Answer the images of a bag: labels, regions, detections with track ids.

    Answers lie beside the images: play both with `ros2 bag play BAG` at once.
    """
    from dataclasses import replace

    from patchcut.segmenter import Segmenter

    from patchcut_ros.bags import answer_bag
    from patchcut_ros.loop import RECORDED
    from patchcut_ros.messages import ANSWERS

    problems = 0

    def tell(words: str) -> None:
        nonlocal problems
        problems += 1
        say(f"patchcut: {words}")

    answered = answer_bag(
        bag,
        out,
        Segmenter.open(settings),
        topic=topic,
        answers=tuple(name for name in ANSWERS if overlay or name != "overlay"),
        storage=storage,
        stream=replace(RECORDED, track=track),
        on_problem=tell,
    )
    say(f"patchcut: {answered} images answered, {problems} not; {out}")
    return EXIT_FAILED if problems or not answered else EXIT_GOOD


if __name__ == "__main__":
    app(prog_name="python -m patchcut_ros")
