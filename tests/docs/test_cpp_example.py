"""docs/examples/cpp: compiled, run on the sample photographs, and compared with Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import patchcut
import pytest
from patchcut.sources.arrays import FrameSource

from tests.runtime import toy_bundle

CPP = Path(__file__).parents[2] / "docs/examples/cpp"
SAMPLES = Path(patchcut.__file__).parent / "samples"
HEIGHT, WIDTH = 240, 320
LINE = re.compile(
    r"(\S+) label (\d+), (\d+) pixels, box ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+), confidence ([\d.]+)"
)


def headers() -> Path:
    """The folder of ONNX Runtime's C++ headers: no wheel has them."""
    places = [Path(os.environ[name]) for name in ("PATCHCUT_ONNXRUNTIME_INCLUDE",) if name in os.environ]
    places += [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
    for place in places:
        if (place / "onnxruntime_cxx_api.h").is_file():
            return place
    pytest.skip("needs ONNX Runtime's headers; PATCHCUT_ONNXRUNTIME_INCLUDE names their folder")


def run(*words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in words], capture_output=True, check=False)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, against the headers of the system and the library of Python's wheel."""
    include, cmake = headers(), shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    folder = tmp_path_factory.mktemp("cpp")
    spec = find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    # What the linker is told, and what the library itself is called.
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    package = subprocess.check_output([sys.executable, "-m", "patchcut_kernels", "--cmakedir"], text=True)
    made = run(
        cmake,
        "-S",
        CPP,
        "-B",
        folder / "build",
        f"-Dpatchcut_DIR={package.strip()}",
        f"-DONNXRUNTIME_INCLUDE={include}",
        f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}",
        "-DCMAKE_DISABLE_FIND_PACKAGE_OpenCV=ON",
        "-DCMAKE_CXX_FLAGS=-Werror",
    )
    assert made.returncode == 0, made.stderr
    built = run(cmake, "--build", folder / "build")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "build/segment"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="needs patchcut[export]")
    from patchcut_export.fused.model import fuse
    from patchcut_export.fused.plan import FusedPlan

    path = tmp_path_factory.mktemp("model") / "model.onnx"
    plan = FusedPlan(frame_hw=(HEIGHT, WIDTH), color="bgr", features=True)
    with patchcut.open_bundle("default") as bundle:
        path.write_bytes(fuse(bundle, plan))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, np.ndarray]:
    """The sample photographs as PPM files, at the size that the model takes."""
    folder = tmp_path_factory.mktemp("photos")
    found = {}
    for path in sorted(SAMPLES.glob("*.jpg")):
        image = cv2.resize(cv2.imread(str(path)), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        found[folder / f"{path.stem}.ppm"] = image
        cv2.imwrite(str(folder / f"{path.stem}.ppm"), image)
    assert len(found) == 4
    return found


def test_labels_and_regions_are_pythons(program: Path, model: Path, photos: dict[Path, np.ndarray]) -> None:
    done = run(program, "--labels", model, *photos)
    assert done.returncode == 0, done.stderr
    labels = np.frombuffer(done.stdout, np.int32).reshape(len(photos), HEIGHT, WIDTH)
    told = [LINE.fullmatch(line) for line in done.stderr.decode().splitlines()]
    seg = patchcut.load(engine="onnxruntime", device="cpu", precision="fp32", nothing_below=0.0)
    for (path, image), mine in zip(photos.items(), labels, strict=True):
        wanted = seg(image)
        assert 0.01 < (wanted.label_map > 0).mean() < 0.99
        # one file adds up in another order than the stages do
        assert (mine == wanted.label_map).mean() >= 0.999
        lines = [line for line in told if line is not None and line[1] == str(path)]
        assert len(lines) == len(wanted.boxes)
        boxes = np.array(sorted([float(number) for number in line.groups()[3:7]] for line in lines))
        np.testing.assert_allclose(boxes, sorted(wanted.boxes.tolist()), atol=1)
        areas = sorted(int(line[3]) for line in lines)
        np.testing.assert_allclose(areas, sorted(wanted.areas.tolist()), rtol=0.01)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "usage: segment"),
        (["MODEL"], 2, "usage: segment"),
        (["none.onnx", "x.ppm"], 1, "none.onnx"),
        (["MODEL", "none.ppm"], 1, "none.ppm is no PPM"),
        (["MODEL", "SMALL"], 1, "the model takes frames of 240x320, got 1x2"),
        (["MODEL", "CUT"], 1, "is cut short"),
        (["MODEL", "HUGE"], 1, "is no PPM"),
    ],
)
def test_what_is_wrong_is_one_line(
    program: Path, model: Path, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    (tmp_path / "small.ppm").write_bytes(b"P6 2 1 255\n" + bytes(6))
    (tmp_path / "cut.ppm").write_bytes(b"P6 320 240 255\n" + bytes(6))
    (tmp_path / "huge.ppm").write_bytes(b"P6 99999999999 99999999999 255\n")
    names = {"MODEL": model, **{name.upper(): tmp_path / f"{name}.ppm" for name in ("small", "cut", "huge")}}
    done = run(program, *(names.get(word, word) for word in words))
    lines = done.stderr.decode().splitlines()
    assert done.returncode == status and len(lines) == 1 and said in lines[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A folder of frames over which a camera moves: the cup goes to the left and up."""
    folder = tmp_path_factory.mktemp("clip")
    photo = cv2.imread(str(SAMPLES / "coffee.jpg"))
    scaled = cv2.resize(photo, (450, 300), interpolation=cv2.INTER_AREA)
    frames = [np.ascontiguousarray(scaled[2 * i : 2 * i + HEIGHT, 6 * i : 6 * i + WIDTH]) for i in range(7)]
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{i:03}.ppm"), frame)
    (folder / "notes.txt").write_text("no frame")
    return folder, frames


def test_an_object_keeps_the_id_and_the_mask_of_pythons_track(
    program: Path, model: Path, clip: tuple[Path, list[np.ndarray]]
) -> None:
    """Of ten frames of three photographs, which were looked at by hand, the masks' IoU was at least 0.93."""
    folder, frames = clip
    done = run(program.parent / "track", "--ids", model, folder)
    assert done.returncode == 0, done.stderr
    mine = np.frombuffer(done.stdout, np.int32).reshape(len(frames), HEIGHT, WIDTH)
    told = [line.split() for line in done.stderr.decode().splitlines()]
    assert {tuple(line[:3]) for line in told} >= {(f"{i:03}.ppm", "track", "1") for i in range(len(frames))}
    cpu = {"engine": "onnxruntime", "device": "cpu", "precision": "fp32"}
    seg = patchcut.load(**cpu, nothing_below=0.0, refine="none")
    for ids, result in zip(mine, seg.results(FrameSource(frames, kind="stream")), strict=True):
        assert result.track_ids is not None and result.track_ids[0] == 1
        wanted, found = result.masks[0], ids == 1
        assert 0.1 < wanted.mean() < 0.9
        assert (wanted & found).sum() / (wanted | found).sum() >= 0.95


def test_what_is_wrong_with_a_folder_or_a_model_is_one_line(
    program: Path, model: Path, clip: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    from patchcut_export.fused.model import fuse
    from patchcut_export.fused.plan import FusedPlan

    with patchcut.open_bundle(toy_bundle.write(tmp_path / "toy.patchcut")) as bundle:
        (tmp_path / "plain.onnx").write_bytes(fuse(bundle, FusedPlan()))
    for words, status, said in (
        ((model,), 2, "usage: track"),
        ((model, tmp_path), 1, "holds no PPM files"),
        ((model, tmp_path / "none"), 1, "none"),
        ((tmp_path / "plain.onnx", clip[0]), 1, "the model has no features; export it with --features"),
    ):
        done = run(program.parent / "track", *words)
        (line,) = done.stderr.decode().splitlines()
        assert done.returncode == status and said in line


@pytest.fixture
def gst(program: Path) -> Path:
    if not (program.parent / "gst_appsink").is_file():
        pytest.skip("needs libgstreamer1.0-dev and libgstreamer-plugins-base1.0-dev")
    return program.parent / "gst_appsink"


def test_a_pipelines_frames_are_those_of_files(
    gst: Path, program: Path, model: Path, photos: dict[Path, np.ndarray], tmp_path: Path
) -> None:
    raw = tmp_path / "frames.bgr"
    raw.write_bytes(b"".join(image.tobytes() for image in photos.values()))
    size = f"width={WIDTH} height={HEIGHT}"
    done = run(gst, model, f"filesrc location={raw} ! rawvideoparse format=bgr {size} framerate=25/1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    frames = [line for line in lines if line.startswith("frame ")]
    assert [line.partition(" s:")[0] for line in frames] == [f"frame {i} at {i / 25:.3f}" for i in range(4)]
    of_files = run(program, model, *photos).stdout.decode().splitlines()
    wanted = [line.partition(" ")[2].partition(", confidence")[0] for line in of_files]
    assert len(wanted) >= 4
    assert [line.strip() for line in lines if line.startswith("  ")] == wanted


def test_frames_of_other_sizes_and_formats_are_converted(gst: Path, model: Path) -> None:
    source = "videotestsrc num-buffers=3 pattern=ball ! video/x-raw,format=I420,width=333,height=201"
    done = run(gst, model, source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"frame ") == 3
    live = run(gst, model, "videotestsrc num-buffers=5 is-live=true")
    assert live.returncode == 0 and 1 <= live.stdout.count(b"frame ") <= 5


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nonesrc", "nonesrc"),
        ("filesrc location=/none/x ! rawvideoparse", "Resource not found"),
        ("videotestsrc !!", "gst_appsink: "),
    ],
)
def test_a_pipeline_that_is_wrong_is_told(gst: Path, model: Path, source: str, said: str) -> None:
    done = run(gst, model, source)
    assert done.returncode == 1 and said in done.stderr.decode()
