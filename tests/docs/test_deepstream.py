"""The parser for DeepStream's nvinfer: compiled against a stand-in for NVIDIA's header, and called."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patchcut_kernels import reference

DEEPSTREAM = Path(__file__).parents[2] / "docs/examples/cpp/deepstream"
STAND_IN = Path(__file__).parent / "deepstream"
FRAME_HW, GRID, LABELS, MIN_AREA_PATCHES = (60, 90), 6, 3, 0.5


def run(*words: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in words], input=data, capture_output=True, check=False)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that calls the parser."""
    cmake, compiler = shutil.which("cmake"), shutil.which("c++")
    if cmake is None or compiler is None:
        pytest.skip("needs cmake and a C++ compiler")
    folder = tmp_path_factory.mktemp("deepstream")
    package = subprocess.check_output([sys.executable, "-m", "patchcut_kernels", "--cmakedir"], text=True)
    options = [f"-Dpatchcut_DIR={package.strip()}", f"-DDEEPSTREAM_INCLUDE={STAND_IN}"]
    made = run(cmake, "-S", DEEPSTREAM, "-B", folder, *options, "-DCMAKE_CXX_FLAGS=-Werror")
    assert made.returncode == 0, made.stderr
    built = run(cmake, "--build", folder)
    assert built.returncode == 0, built.stdout + built.stderr
    library = folder / "libnvdsinfer_patchcut.so"
    found = subprocess.check_output([sys.executable, "-m", "patchcut_kernels", "--libdir"], text=True).strip()
    sources = [STAND_IN / "call_parser.cpp", f"-I{STAND_IN}", library, f"-L{found}", "-lpatchcut"]
    paths = [f"-Wl,-rpath,{folder}", f"-Wl,-rpath,{found}"]
    linked = run(compiler, "-std=c++17", "-Wall", "-Werror", *sources, *paths, "-o", folder / "call_parser")
    assert linked.returncode == 0, linked.stderr
    return folder / "call_parser"


@pytest.fixture(scope="module")
def assignment() -> np.ndarray:
    """[36, 3] float32: two objects of one label, one of another, and a speck."""
    grid = np.zeros((GRID, GRID), int)
    grid[:2, :2], grid[4:, 4:], grid[3:, :2] = 1, 1, 2
    sure = np.random.default_rng(4).uniform(0.6, 0.95, (GRID, GRID, 1))
    rows = np.where(np.arange(LABELS) == grid[..., None], sure, (1 - sure) / 2)
    return rows.reshape(-1, LABELS).astype(np.float32)


def ask(program: Path, assignment: np.ndarray, *, name: str = "assignment", threshold: float = 0.0):
    rows, labels = assignment.shape
    words = [name, *FRAME_HW, rows, labels, threshold]
    return run(program, *words, data=np.ascontiguousarray(assignment).tobytes())


def test_objects_are_the_regions_of_the_reference(program: Path, assignment: np.ndarray) -> None:
    done = ask(program, assignment)
    assert done.returncode == 0, done.stderr
    label_map, confidence = reference.upsample_argmax(assignment, (GRID, GRID), FRAME_HW)
    least = int(np.ceil(MIN_AREA_PATCHES * np.prod(FRAME_HW) / GRID**2))
    ids, count = reference.connected_components(label_map, min_area=least)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert count == len(lines) == 3
    masks = np.frombuffer(done.stderr, np.float32)
    for i, line in enumerate(lines, start=1):
        ys, xs = np.nonzero(ids == i)
        box = (xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min())
        assert int(line[0]) == label_map[ys[0], xs[0]]
        assert tuple(map(float, line[1:5])) == box
        assert float(line[5]) == pytest.approx(confidence[ys, xs].mean(), abs=1e-4)
        assert (int(line[6]), int(line[7])) == box[2:]
        mask, masks = masks[: box[2] * box[3]].reshape(box[3], box[2]), masks[box[2] * box[3] :]
        wanted = (ids == i)[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        np.testing.assert_array_equal(mask, wanted)
    assert not len(masks)


def test_what_scores_less_than_its_threshold_is_left_out(program: Path, assignment: np.ndarray) -> None:
    lines = ask(program, assignment).stdout.decode().splitlines()
    scores = sorted(float(line.split()[5]) for line in lines)
    some = ask(program, assignment, threshold=(scores[0] + scores[1]) / 2).stdout.decode().splitlines()
    assert len(some) == len(lines) - 1 and set(some) < set(lines)
    assert ask(program, assignment, threshold=1.0).stdout == b""


@pytest.mark.parametrize(
    ("rows", "labels", "name", "said"),
    [
        (36, 3, "label_map", "has no output `assignment` [rows, labels] float32"),
        (35, 3, "assignment", "a square number of rows and two columns or more, got [35, 3]"),
        (36, 1, "assignment", "got [36, 1]"),
    ],
)
def test_another_network_is_refused_in_one_line(
    program: Path, rows: int, labels: int, name: str, said: str
) -> None:
    done = ask(program, np.zeros((rows, labels), np.float32), name=name)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 1 and said in line


def test_the_configuration_names_what_is_there() -> None:
    parsed = configparser.ConfigParser()
    parsed.read(DEEPSTREAM / "config_infer_patchcut.txt")
    told = parsed["property"]
    source = (DEEPSTREAM / "nvdsinfer_patchcut.cpp").read_text("utf-8")
    assert f"bool {told['parse-bbox-instance-mask-func-name']}(" in source
    assert told["custom-lib-path"] == "libnvdsinfer_patchcut.so"
    assert told["network-type"] == "3" and told["output-instance-mask"] == "1"
    labels = (DEEPSTREAM / told["labelfile-path"]).read_text("utf-8").splitlines()
    assert len(labels) == int(told["num-detected-classes"]) and labels[0] == "background"
    assert f'"{told["output-blob-names"]}"' in source
