"""Names of any bytes: found, turned into names of results, written, recorded, found again.

Nothing is segmented, but in a few dozen whole runs.
"""

# pathlib takes no bytes
# ruff: noqa: PTH103, PTH110, PTH118, PTH120, PTH123

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from patchcut.errors import PatchcutError
from patchcut.output.folder import OutputFolder
from patchcut.output.manifest import recorded_files
from patchcut.output.names import OutputNames
from patchcut.sources import open_source

from tests.runtime import toy_bundle as toy
from tests.runtime.results import made_result

FOLDERS, NAMES, RUNS = 24, 50, 36
_SIGNS = b". .. ... ~ - -- \\ * ? [ ] [!a] ** #2 # : ; ' \" ` $(x) | < > & % %E9 %% \xff \xe9 \xc3 \xfe\xff"
_WORDS = b"a A img IMG_0001 1 01 0010 con CON nul 000001 01.png x.png .jpg masks json .partial-1"
_TEXTS = (
    "é",
    "e\u0301",
    "É",
    "ß",
    "日本",
    "👩\u200d🚀",
    "\u202e",
    "\u2028",
    "\u0085",
    "İ",
    "ü" * 40,
    "x" * 60,
)
PIECES = [
    *_SIGNS.split(),
    *_WORDS.split(),
    *map(str.encode, _TEXTS),
    b"x" * 60,
    *(b" ", b"\n", b"\t", b"\x1b[31m", b"\x7f", b"\x01", b"\xed\xa0\x80", b"\xc0\xaf"),
]
SUFFIXES = [b".jpg", b".png", b".PNG", b".jpeg", b".tif", b"", b".", b".dat", b".mp4.png"]


def make_name(rng: random.Random) -> bytes:
    """A name that a disk takes, of 1 to 255 bytes."""
    if rng.random() < 0.3:
        body = bytes(
            rng.choice([b for b in range(1, 256) if b != ord("/")]) for _ in range(rng.randint(1, 40))
        )
    else:
        body = b"".join(rng.choices(PIECES, k=rng.randint(1, 6)))
    if rng.random() < 0.1:
        body = body * 200
    name = body[: 255 - 8] + rng.choice(SUFFIXES)
    return b"x.png" if name in (b"", b".", b"..") else name[:255]


def fill(folder: bytes, rng: random.Random, count: int, data: bytes) -> int:
    """Makes photos of odd names, some in folders of odd names; how many of them are not hidden."""
    seen: set[bytes] = set()
    while len(seen) < count:
        path = b"/".join([make_name(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))])
        try:
            os.makedirs(os.path.dirname(folder + b"/" + path), exist_ok=True)
            with open(folder + b"/" + path, "xb") as file:
                file.write(data)
        except OSError:  # a folder is there, or a file where a folder would be
            continue
        seen.add(path)
    return sum(not any(part.startswith(b".") for part in path.split(b"/")) for path in seen)


@pytest.fixture(scope="module")
def png() -> bytes:
    return cv2.imencode(".png", np.full((4, 6, 3), 90, np.uint8))[1].tobytes()


def test_folders_of_odd_names(tmp_path: Path, png: bytes) -> None:
    rng, photos = random.Random(20), 0
    for number in range(FOLDERS):
        folder = os.fsencode(tmp_path) + b"/%d-" % number + make_name(rng)[:200]
        os.makedirs(folder)
        wanted = fill(folder, rng, NAMES, png)
        check_folder(Path(os.fsdecode(folder)), wanted, overwrite=number % 4 == 0)
        photos += NAMES
    assert photos == FOLDERS * NAMES >= 1200


def check_folder(folder: Path, wanted: int, overwrite: bool) -> None:
    """Takes every photo, saves made-up results inside the folder itself, and finds what it found before."""
    names = save(folder, OutputFolder(folder, ["masks", "json"]))
    assert len(names) == wanted
    for name in names:
        name.encode()
    recorded = recorded_files(folder)
    assert len(recorded) == 3 * wanted == len({path.casefold() for path in recorded})
    for path in recorded:
        assert path.isprintable() or any(ord(character) > 127 for character in path)
        assert os.path.exists(os.path.join(os.fsencode(folder), path.encode()))
        if path.startswith("json/"):
            with open(os.path.join(os.fsencode(folder), path.encode()), encoding="utf-8") as file:
                assert json.load(file)["files"]["masks"][0] in recorded
    resumed = OutputFolder(folder, ["masks", "json"], resume=True)
    assert save(folder, resumed) == [] and resumed.skipped == wanted
    if overwrite:
        assert save(folder, OutputFolder(folder, ["masks", "json"], overwrite=True)) == names
    assert recorded_files(folder) == recorded


def save(folder: Path, out: OutputFolder) -> list[str]:
    names = []
    result = made_result()
    with out, open_source(folder) as source:
        for part in source.parts():
            assert out.start(part)
            for frame in part:
                names.append(frame.name)
                object.__setattr__(result, "name", frame.name)
                out.write(result)
            out.finish_part()
        for problem in (*source.problems, *out.problems):
            assert problem.isprintable(), problem
        assert out.problems == []
    return names


def test_names_of_results_stay_apart_and_below_the_folder() -> None:
    rng, names, seen, count = random.Random(21), OutputNames(), set(), 0
    for _ in range(1000):
        text = b"/".join(make_name(rng) for _ in range(rng.randint(1, 3))).decode("utf-8", "surrogateescape")
        made = names.video(text) if rng.random() < 0.1 else names.photo(text, count)
        assert made.casefold() not in seen
        seen.add(made.casefold())
        assert made.encode() and not any(part.startswith(".") or not part for part in made.split("/"))
        assert all(len(part.encode()) <= 240 for part in PurePosixPath(made).parts)
        count += 1
    assert count == 1000


def test_sources_of_odd_names(tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a file, or as what is no file: a frame, or an error of one line."""
    rng, count = random.Random(22), 0
    monkeypatch.chdir(tmp_path)
    for _ in range(300):
        name = os.fsdecode(make_name(rng).replace(b"/", b""))
        if name.isdecimal() or name == "-" or "://" in name:  # a camera, a pipe, an address
            name = f"./{name}"
        for _ in range(2):
            try:
                with open_source(name) as source:
                    assert [frame.name.encode() for frame in source]
            except PatchcutError as error:
                assert str(error).isprintable() and str(error).encode()
            Path(name).write_bytes(png)
            count += 1
    assert count == 600


def test_whole_runs(
    tmp_path: Path, run_cli: Callable[..., int], capfd: pytest.CaptureFixture[str], png: bytes
) -> None:
    bundle = toy.write(tmp_path / "toy.patchcut")
    rng, count = random.Random(23), 0
    for number in range(RUNS):
        folder = os.fsencode(tmp_path) + b"/%d-" % number + make_name(rng)[:200]
        os.makedirs(folder)
        wanted = fill(folder, rng, 3, png)
        out = os.fsencode(tmp_path) + b"/out%d-" % number + make_name(rng)[:200]
        args = ["--bundle", bundle, "--out", os.fsdecode(out), "--save", "overlay,labels,json"]
        args += ["--json"] if number % 2 else []
        status = run_cli("run", os.fsdecode(folder), *args)
        said, errors = capfd.readouterr()
        assert status == (0 if wanted else 1), errors
        assert "Traceback" not in said + errors
        assert all(character.isprintable() or character == "\n" for character in said + errors)
        if wanted:
            assert len(recorded_files(os.fsdecode(out))) == 3 * wanted
        count += 1
    assert count == RUNS
