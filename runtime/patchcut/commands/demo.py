"""`patchcut demo`: the sample photos, segmented."""

from __future__ import annotations

from pathlib import Path

from patchcut.commands.run import LoadOptions, RunOptions, run

SAMPLES = Path(__file__).parent.parent / "samples"


def demo(out: Path, bundle: Path | None = None) -> int:
    """Exit status, after overlays and masks of the sample photos were written to `out`."""
    options = RunOptions(
        sources=(str(SAMPLES),),
        out=out,
        save=("overlay", "masks"),
        overwrite=True,  # the demo may be run twice
        load=LoadOptions(bundle=bundle),
    )
    return run(options)
