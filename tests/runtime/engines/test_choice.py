from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import patchcut
import pytest
from patchcut import EngineError, Settings
from patchcut.bundle import AgreementRow, BackboneSpec, BundleSpec, TimingRow, open_bundle
from patchcut.engines import choice, open_engine
from patchcut.engines.choice import Choice, choose, faster_elsewhere, is_accepted, is_refused

from tests.runtime import toy_bundle as toy

KIND = "x86-avx512-vnni"
ENGINES = ("onnxruntime", "openvino", "tensorrt", "torch")
TIMES = {
    ("onnxruntime", "int8"): 30.0,
    ("onnxruntime", "fp32"): 70.0,
    ("openvino", "fp32"): 65.0,
    ("openvino", "bf16"): 25.0,
    ("openvino", "int8-qdq"): 20.0,
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, as_measured: None) -> None:
    """One whose CPU is of KIND, where all but torch and TensorRT is installed."""
    monkeypatch.setattr(choice, "cpu_kind", lambda: KIND)
    monkeypatch.setattr(choice, "_has_cuda_wheel", lambda: False)
    install(monkeypatch, "onnxruntime", "openvino")


def install(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    monkeypatch.setattr(choice, "has_engine", lambda engine: engine in engines)


def backbone(
    accepted: Sequence[str] = ("int8", "int8-qdq", "bf16"),
    refused: Sequence[str] = (),
    times: dict[tuple[str, str], float] | None = None,
    **timed: Any,
) -> BackboneSpec:
    spec = BundleSpec.model_validate(toy.manifest(toy.members())).backbone
    about = {"size": 112, "features": "key", "engine": "x", "images": 1, "data": "x"}
    near = {"cosine_mean": 0.999, "cosine_worst": 0.99, "affinity_correlation": 0.99}
    rows = [
        AgreementRow.model_validate(
            {**about, **near, "precision": precision, "accepted": precision in accepted}
        )
        for precision in (*accepted, *refused)
    ]
    where = {"size": 112, "device": "cpu", "cpu": KIND, "threads": 2, "machine": "x", **timed}
    timings = [
        TimingRow.model_validate({**where, "engine": engine, "precision": precision, "ms": ms})
        for (engine, precision), ms in (TIMES if times is None else times).items()
    ]
    return spec.model_copy(update={"agreement": tuple(rows), "timings": tuple(timings)})


def chosen(spec: BackboneSpec, **settings: Any) -> tuple[str, str]:
    made = choose(spec, Settings(**settings), ENGINES)
    return made.engine, made.precision


def test_auto_is_the_fastest_that_was_measured_and_accepted() -> None:
    assert choose(backbone(), Settings(), ENGINES) == Choice(
        "openvino",
        "int8-qdq",
        "the fastest that was measured on x86-avx512-vnni: 20.0 ms; "
        "openvino bf16 25.0, onnxruntime int8 30.0, openvino fp32 65.0",
    )
    assert chosen(backbone(accepted=("int8", "bf16"))) == ("openvino", "bf16")
    assert chosen(backbone(accepted=("int8",), refused=("bf16", "int8-qdq"))) == ("onnxruntime", "int8")
    assert chosen(backbone(accepted=())) == ("openvino", "fp32")


def test_what_is_not_installed_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime")
    assert chosen(backbone()) == ("onnxruntime", "int8")


def test_engines_that_would_be_faster_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faster_elsewhere(backbone(), Settings(), ENGINES, 112) == []
    install(monkeypatch, "onnxruntime")
    assert faster_elsewhere(backbone(), Settings(), ENGINES, 112) == ["openvino"]
    assert faster_elsewhere(backbone(), Settings(), ENGINES, 168) == []
    slow = {**TIMES, ("onnxruntime", "int8"): 15.0}
    assert faster_elsewhere(backbone(times=slow), Settings(), ENGINES, 112) == []


@pytest.mark.parametrize(
    "timed", [{"cpu": "x86-amx"}, {"size": 168}, {"device": "cuda"}, {"device": "gpu"}], ids=str
)
def test_times_of_another_machine_or_size_do_not_count(timed: dict[str, Any]) -> None:
    assert chosen(backbone(**timed)) == ("onnxruntime", "auto")
    assert "no times of x86-avx512-vnni" in choose(backbone(**timed), Settings(), ENGINES).why


def test_what_was_asked_for_is_heeded() -> None:
    assert chosen(backbone(), engine="onnxruntime") == ("onnxruntime", "int8")
    assert chosen(backbone(), precision="fp32") == ("openvino", "fp32")
    assert chosen(backbone(), engine="onnxruntime", precision="fp32") == ("onnxruntime", "fp32")
    assert chosen(backbone(times={}), engine="openvino") == ("openvino", "auto")
    assert chosen(backbone(times={}), engine="tensorrt") == ("tensorrt", "auto")
    # also a precision that the gate refused: whoever names it wants it
    assert chosen(backbone(refused=("int8-qdq",), accepted=()), precision="int8-qdq") == (
        "openvino",
        "int8-qdq",
    )


def test_without_times_8_bits_are_for_cpus_that_multiply_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(backbone(times={})) == ("onnxruntime", "auto")
    monkeypatch.setattr(choice, "cpu_kind", lambda: "x86-avx2")
    assert chosen(backbone(times={})) == ("onnxruntime", "fp32")
    assert "x86-avx2 is no faster in int8" in choose(backbone(times={}), Settings(), ENGINES).why
    assert chosen(backbone(times={}), precision="int8") == ("onnxruntime", "int8")


def test_an_int8_that_the_gate_refused_is_not_the_default() -> None:
    assert chosen(backbone(refused=("int8",), accepted=(), times={})) == ("onnxruntime", "fp32")


def test_devices_have_their_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("gpu", "npu"):
        assert chosen(backbone(), device=device) == ("openvino", "auto")
    assert chosen(backbone(), device="cuda") == ("onnxruntime", "auto")
    assert chosen(backbone(times={}), precision="bf16") == ("openvino", "bf16")
    install(monkeypatch, "tensorrt", "torch")
    assert chosen(backbone(), device="cuda") == ("tensorrt", "auto")
    assert chosen(backbone(), device="cpu") == ("onnxruntime", "auto")  # whose error says what to install
    install(monkeypatch, "openvino")
    assert chosen(backbone(times={})) == ("openvino", "auto")


def test_a_wheel_with_cuda_is_left_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_cuda_wheel", lambda: True)
    assert chosen(backbone()) == ("onnxruntime", "auto")
    assert chosen(backbone(), device="cpu") == ("openvino", "int8-qdq")


def test_nothing_known_is_neither_accepted_nor_refused() -> None:
    spec = backbone(accepted=("bf16",), refused=("fp16",))
    assert [is_accepted(spec, one, 112) for one in ("fp32", "bf16", "fp16", "int8")] == [
        True,
        True,
        False,
        False,
    ]
    assert [is_refused(spec, one, 112) for one in ("fp32", "bf16", "fp16", "int8")] == [
        False,
        False,
        True,
        False,
    ]
    assert not is_accepted(spec, "bf16", 168)


def test_the_chosen_one_is_opened_and_describe_says_why(toy_bundle: Path) -> None:
    described = patchcut.load(toy_bundle, device="cpu").describe()
    assert (described.engine, described.precision) == ("onnxruntime", "int8")
    assert described.why == f"the bundle has no times of {KIND}"
    assert f"why            the bundle has no times of {KIND}" in str(described)


def test_an_engine_whose_module_is_gone_says_so(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "patchcut.engines.openvino", None)
    with (
        open_bundle(toy_bundle) as bundle,
        pytest.raises(
            EngineError, match=r"\[engine\] openvino cannot be imported: .*; install it again: pip"
        ),
    ):
        open_engine(bundle, bundle.spec.backbone, Settings(engine="openvino"))
