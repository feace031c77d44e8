"""Search in an index of images, beside the product that it cannot do without."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from patchcut.heads.naming import unit
from patchcut_export.retrieval.index import ClipIdentity, ImageIndex, IndexedImage, open_index, write_index

from bench.cases import Options, Target
from bench.harness import Contender, interleave
from bench.rows import Outcome

TITLE = "the 50 nearest of 100,000 embeddings of 512 numbers, each looked at"
IMAGES, DIM, K = 99_999, 512, 50  # from 100,000 on a graph is searched
CASES = (f"search {IMAGES}x{DIM}",)
REPEATS = 15
_PRODUCT = "numpy product"
TARGETS = (
    Target(CASES[0], "median_ms", "<=", 20, " ms", "search in an index of 100,000 images"),
    Target(CASES[0], "times_the_product", "<=", 1.5, "×", "the same, times as long as the product alone"),
)


def run(options: Options, images: int = IMAGES) -> Iterator[Outcome]:
    """The index is in memory, as after its first search."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((images, DIM)).astype(np.float32))
    queries = unit(rng.standard_normal((64, DIM)).astype(np.float32))
    turns = {name: iter(int(one) for one in rng.integers(0, 64, 100_000)) for name in ("p", "n")}
    with tempfile.TemporaryDirectory() as folder:
        index = _made(Path(folder), rows)
        calls: dict[str, Any] = {
            "patchcut": lambda: index.search(queries[next(turns["p"])], K),
            _PRODUCT: lambda: index._rows @ queries[next(turns["n"])],
        }
        contenders = [Contender(name, call) for name, call in calls.items()]
        times = interleave(contenders, options.repeats or REPEATS)
        inside = {
            "patchcut": f"the product with every row in float32, and the {K} largest",
            _PRODUCT: "the product alone",
        }
        ratio = times["patchcut"].median_ms / times[_PRODUCT].median_ms
        for name, time in times.items():
            metrics = {"times_the_product": ratio} if name == "patchcut" else {}
            shapes: dict[str, tuple[int, ...]] = {"embeddings": (images, DIM)}
            yield Outcome(CASES[0], name, inside[name], time, shapes, "float32", metrics=metrics)


def _made(folder: Path, rows: np.ndarray) -> ImageIndex:
    images = [IndexedImage(f"/{i}.jpg", 1, 1, f"{i:064x}") for i in range(len(rows))]
    write_index(folder, ClipIdentity("0" * 64, "made", "made"), ["/"], images, rows.astype(np.float16), 0.97)
    return open_index(folder)
