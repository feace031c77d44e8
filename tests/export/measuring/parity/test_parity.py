"""Engines and precisions side by side: what is compared, in which order it is timed, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import patchcut
import pytest

pytest.importorskip("onnxruntime", reason="needs patchcut[cpu]")
pytest.importorskip("PIL", reason="needs patchcut[export]")

from patchcut.bundle import open_bundle
from patchcut.frames import Frame
from patchcut.settings import Settings
from patchcut_export.bundles.rewriting import rewrite_bundle
from patchcut_export.measuring.parity import measure, one_process, times
from patchcut_export.measuring.parity.answers import Answer, beside
from patchcut_export.measuring.parity.measure import ParityRequest, measure_parity
from patchcut_export.measuring.parity.one_process import Cost
from patchcut_export.measuring.parity.ways import reference_of
from tests.runtime import toy_bundle as toy

Patchcut = Callable[..., int]

QUICK = ("--engine", "onnxruntime", "--device", "cpu", "--rounds", 2, "--threads", 1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The toy, whose int8 the gate has accepted."""
    return gated(tmp_path / "toy.patchcut", accepted=True)


def gated(path: Path, *, accepted: bool) -> Path:
    files = toy.members()
    spec = toy.manifest(files)
    row = {
        "precision": "int8",
        "features": "key",
        "engine": "tests",
        "images": 1,
        "data": "tests",
        "cosine_mean": 0.5,
        "cosine_worst": 0.1,
        "affinity_correlation": 0.2,
        "accepted": accepted,
    }
    spec["backbones"]["toy"]["agreement"] = [{**row, "size": size} for size in toy.SIZES]
    return toy.write(path, files, spec)


@pytest.fixture
def one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs without a process for each: that is tested by itself."""
    monkeypatch.setattr(measure, "measure_alone", lambda settings: Cost(0.25, 123.0))


def nothing(title: str, done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.mark.usefixtures("one_here")
def test_the_command_tells_draws_and_records(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {"--json": tmp_path / "p.json", "--plot": tmp_path / "p.png"}
    options = [word for pair in files.items() for word in pair]
    assert run_cli("export", "parity", bundle, *QUICK, *options, "--record") == 0
    said, errors = capfd.readouterr()
    table = said[: said.index("beside onnxruntime fp32")].splitlines()
    assert max(map(len, table)) <= 80 and "the reference" in said and "112x112" in said
    assert "times at 112" in errors and "INACCURATE" not in said
    found = json.loads(files["--json"].read_text())
    kinds = [(row["size"], row["precision"]) for row in found["rows"]]
    assert sorted(kinds) == [(112, "fp32"), (112, "int8"), (168, "fp32"), (168, "int8")]
    for row in found["rows"]:
        assert row["agreement"]["labels"] == row["agreement"]["iou_worst"] == 1  # the toy's weights are alike
        assert row["agreement"]["cosine_worst"] == pytest.approx(1, abs=1e-5)
        assert 0 < row["times"]["median_ms"] <= row["times"]["frame_ms"] * 10
        assert row["cost"] == {"load_s": 0.25, "peak_mb": 123.0}
    assert (found["images"], found["head"], found["features"]) == (4, "gnn", "key")
    picture = cv2.imread(str(files["--plot"]))
    assert picture.shape[1] == 1320 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    with open_bundle(bundle) as opened:
        opened.verify()
        rows = opened.spec.backbone.timings
    assert {(row.engine, row.precision, row.size, row.device, row.threads) for row in rows} == {
        ("onnxruntime", precision, size, "cpu", 1) for precision in ("int8", "fp32") for size in (112, 168)
    }
    assert {row.cpu for row in rows} == {found["cpu"]} and all("onnxruntime 1." in r.machine for r in rows)


@pytest.mark.usefixtures("one_here", "as_measured")
def test_auto_heeds_recorded_times(run_cli: Patchcut, bundle: Path) -> None:
    assert run_cli("export", "parity", bundle, *QUICK, "--size", 112, "--record") == 0
    with open_bundle(bundle) as opened:
        fastest = min(opened.spec.backbone.timings, key=lambda row: row.ms)
    ran = patchcut.load(bundle, device="cpu", threads=1).describe()
    assert (ran.engine, ran.precision) == ("onnxruntime", fastest.precision)
    assert "the fastest that was measured" in ran.why


def test_times_of_what_no_gate_has_seen_are_not_recorded(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = toy.write(tmp_path / "old.patchcut")
    before = path.read_bytes()
    assert run_cli("export", "parity", path, *QUICK, "--record") == 2
    said = capfd.readouterr().err
    assert "does not say how near its int8 comes to fp32; export the backbone again" in said
    assert path.read_bytes() == before


@pytest.mark.usefixtures("one_here")
def test_rows_of_the_same_kind_are_replaced_and_others_stay(run_cli: Patchcut, bundle: Path) -> None:
    assert run_cli("export", "parity", bundle, *QUICK, "--record") == 0
    with open_bundle(bundle) as opened:
        spec = opened.spec
        (name, backbone), before = next(iter(spec.backbones.items())), spec.backbone.timings
        elsewhere = before[0].model_copy(update={"cpu": "another"})
        changed = backbone.model_copy(update={"timings": (*before, elsewhere)})
        rewrite_bundle(opened, bundle, spec.model_copy(update={"backbones": {name: changed}}))
    assert run_cli("export", "parity", bundle, *QUICK, "--size", 112, "--record") == 0
    with open_bundle(bundle) as opened:
        after = opened.spec.backbone.timings
    assert len(after) == len(before) + 1 and elsewhere in after
    same = {row.ms for row in before if row.size == 168} & {row.ms for row in after if row.size == 168}
    assert len(same) == 2


@pytest.mark.usefixtures("one_here")
def test_what_the_report_does_not_accept_is_said(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gated(bundle, accepted=False)
    assert run_cli("export", "parity", bundle, *QUICK, "--json", tmp_path / "p.json") == 0
    said = capfd.readouterr().out
    assert said.count("INACCURATE") == 3, "at both sizes, and in the notes"
    rows = json.loads((tmp_path / "p.json").read_text())["rows"]
    assert {(row["precision"], row["accepted"]) for row in rows} == {("int8", False), ("fp32", None)}


def test_answers_are_compared_as_they_should_be() -> None:
    mask = np.zeros((2, 4), bool)
    one = Answer(np.float32([[1, 0], [0, 2]]), np.array([0, 1]), mask | np.array([1, 1, 0, 0], bool))
    other = Answer(np.float32([[2, 0], [3, 3]]), np.array([0, 0]), mask | np.array([0, 1, 1, 0], bool))
    cosines, labels, iou = beside(one, other)
    np.testing.assert_allclose(cosines, [1, 0.5**0.5], rtol=1e-6)
    assert (labels, iou) == (0.5, pytest.approx(1 / 3))
    nothing_found = Answer(one.features, one.labels, mask)
    assert beside(nothing_found, nothing_found)[2] == 1
    assert beside(nothing_found, one)[2] == 0


def test_every_other_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_PAUSE_S", 0)
    turns: list[str] = []

    def way(name: str) -> Any:
        def run(batch: int) -> Any:
            turns.append(name)
            return SimpleNamespace(default=np.zeros((1, 1, 1), np.float32))

        extractor = SimpleNamespace(preprocess=lambda frames: None, run=run)

        class Segmenter:
            def __init__(self) -> None:
                self.extractor = extractor

            def __call__(self, frame: object) -> None:
                turns.append(f"{name} frame")

        return SimpleNamespace(segmenter=Segmenter())

    frame = Frame(np.zeros((2, 2, 3), np.uint8))
    found = times.take_turns([way("a"), way("b")], frame, 3, nothing, "times")
    rounds = [turns[i : i + 6] for i in range(0, len(turns), 6)]
    a, b = ["a", "a", "a frame"], ["b", "b", "b frame"]
    assert rounds == [a + b, b + a, a + b, b + a], "the first warms up"
    assert len(found) == 2 and all(0 <= one.median_ms <= one.p95_ms for one in found)


def test_the_reference_is_fp32_on_the_cpu_by_torch_where_it_is() -> None:
    def way(engine: str, precision: str, device: str = "cpu") -> Any:
        return SimpleNamespace(engine=engine, precision=precision, device=device)

    ways = [way("openvino", "fp32"), way("onnxruntime", "fp32"), way("torch", "fp32", "cuda")]
    assert reference_of(ways) is ways[1]
    ways.append(way("torch", "fp32"))
    assert reference_of(ways) is ways[3]
    assert reference_of([way("torch", "int8")]) is None


def test_a_process_of_its_own_tells_its_memory(bundle: Path) -> None:
    cost = one_process.measure_alone(Settings(bundle=bundle, engine="onnxruntime", device="cpu", threads=1))
    assert cost is not None and 20 < cost.peak_mb < 2000 and 0 < cost.load_s < 60
    assert one_process.measure_alone(Settings(bundle=bundle, size=113)) is None


@pytest.mark.usefixtures("one_here")
def test_images_of_a_folder_are_taken_evenly(bundle: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        assert cv2.imwrite(str(photos / f"{i}.png"), np.full((20, 30, 3), 40 * i, np.uint8))
    settings = Settings(bundle=bundle, device="cpu", threads=1)
    chosen = {"engines": ("onnxruntime",), "sizes": (112,), "rounds": 1}
    request = ParityRequest(settings=settings, images=photos, limit=3, **chosen)
    report = measure_parity(request, nothing)
    assert (report.images, report.data) == (3, "photos")
    with open_bundle(bundle) as opened:  # where there is no head, one that needs no training
        rewrite_bundle(opened, bundle, opened.spec.model_copy(update={"heads": ()}))
    assert measure_parity(request, nothing).head == "ncut"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--engine", "caffe"], 2, "[engine] must be one of"),
        (["--precision", "fp8"], 2, "[precision] must be one of"),
        (["--size", 100], 2, "[size] must be one of the bundle's sizes (112, 168), got 100"),
        (["--plot", "x.svg"], 1, "[output] cannot draw x.svg; name a .png or .jpg file"),
        (["--json", "none/x.json"], 1, "[output] none is not a folder; make it first"),
        (["--images", "none"], 1, "[none] does not exist"),
    ],
)
def test_bad_options_are_one_line(
    run_cli: Patchcut,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: list[object],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("export", "parity", bundle, "--device", "cpu", *options) == status
    *progress, last = capfd.readouterr().err.splitlines()
    assert said in last and all(line.endswith(")") for line in progress)
    assert [one.name for one in tmp_path.iterdir()] == [bundle.name]


def test_only_a_file_can_be_recorded_in(run_cli: Patchcut, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("export", "parity", "default", "--record") == 2
    assert "[record] must say which bundle it changes, got none; name its file" in capfd.readouterr().err


def test_a_folder_without_pictures_is_said(
    run_cli: Patchcut, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run_cli("export", "parity", bundle, "--images", tmp_path / "empty") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "empty" in line and "; " in line


def test_without_fp32_there_is_nothing_to_measure_against(
    run_cli: Patchcut, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    graphs = spec["backbones"]["toy"]["graphs"]
    spec["backbones"]["toy"]["graphs"] = [one for one in graphs if one["precision"] == "int8"]
    path = toy.write(tmp_path / "x.patchcut", files, spec)
    assert run_cli("export", "parity", path, *QUICK, "--precision", "int8") == 1
    said = capfd.readouterr().err.splitlines()[-1]
    assert "[parity] nothing runs here in fp32, to measure against: [precision] the bundle has int8" in said
