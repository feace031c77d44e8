"""Embeddings of image files: in batches on this machine, or on others."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from patchcut.bundle import Bundle
from patchcut.errors import SourceError
from patchcut.features import to_host
from patchcut.frames import Frame
from patchcut.heads.naming import unit
from patchcut.settings import Settings
from patchcut.sources.photos import read_frame
from patchcut.stages import Extractor

from patchcut_export.retrieval.tokenizer import text_spec
from patchcut_export.training.extraction import Extraction

_EMBEDDING = "embedding"
_BATCH = 8

# sha256 of some images, [m, d] float32 unit embeddings of these, and how many files were looked at for them.
Embedded = tuple[list[str], npt.NDArray[np.float32], int]


def embed(
    clip: Bundle,
    settings: Settings,
    images: Mapping[str, str],
    extraction: Extraction | None,
    problems: list[str],
) -> Generator[Embedded, None, None]:
    """The unit embeddings of images, in order, some at a time.

    Args:
        clip: an open bundle with a text tower.
        settings: engine, device and threads of the image tower.
        images: files by the sha256 of their content.
        extraction: who looks at them, as float32; None is this machine.
        problems: gets a line for each image that cannot be read.
    Raises:
        PatchcutError: the image tower cannot be opened, or failed.
    """
    text, settings = text_spec(clip), replace(settings, precision="auto")
    extractor = Extractor.open(clip, settings, backbone=text.backbone, needs=(_EMBEDDING,))
    if extraction is not None:
        yield from _elsewhere(clip, extractor, images, extraction, problems)
        return
    batch = min(_BATCH, extractor.engine.facts.max_batch)
    for looked_at, frames in _read_ahead(list(images.items()), batch, problems):
        shas, rows = [sha for sha, _ in frames], np.zeros((0, text.dim), np.float32)
        if frames:
            made = to_host(extractor([frame for _, frame in frames])[_EMBEDDING])
            rows = unit(made.reshape(len(frames), -1))
        yield shas, rows, looked_at


def _elsewhere(
    clip: Bundle,
    extractor: Extractor,
    images: Mapping[str, str],
    extraction: Extraction,
    problems: list[str],
) -> Iterator[Embedded]:
    photos = {path: Path(path) for path in images.values()}
    shas = {path: sha for sha, path in images.items()}
    with closing(extraction.run(clip, extractor, photos, (_EMBEDDING,))) as looked:
        for made in looked:
            if made.problem:
                problems.append(made.problem)
                yield [], np.zeros((0, 0), np.float32), 1
            else:
                yield [shas[made.name]], unit(made.sets[_EMBEDDING].astype(np.float32).reshape(1, -1)), 1


def _read_ahead(
    items: Sequence[tuple[str, str]], batch: int, problems: list[str]
) -> Iterator[tuple[int, list[tuple[str, Frame]]]]:
    """Frames in batches, with how many files were looked at: the next batch is decoded while one is used."""

    def read(part: Sequence[tuple[str, str]]) -> list[tuple[str, Frame] | str]:
        return [_read(sha, path) for sha, path in part]

    parts = [items[i : i + batch] for i in range(0, len(items), batch)]
    with ThreadPoolExecutor(1, "patchcut-index") as pool:
        ahead = pool.submit(read, parts[0])
        for i, part in enumerate(parts):
            found = ahead.result()
            if i + 1 < len(parts):
                ahead = pool.submit(read, parts[i + 1])
            problems += [one for one in found if isinstance(one, str)]
            yield len(part), [one for one in found if not isinstance(one, str)]


def _read(sha: str, path: str) -> tuple[str, Frame] | str:
    try:
        return sha, read_frame(Path(path))
    except SourceError as error:
        return str(error)
