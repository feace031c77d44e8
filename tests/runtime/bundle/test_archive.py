from __future__ import annotations

import io
import json
import os
import socket
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import patchcut
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patchcut import BundleError, OptionError, open_bundle
from patchcut.bundle import SCHEMA_VERSION, archive, embedded_bundles
from safetensors.numpy import save

from tests.runtime import toy_bundle as toy

Spec = dict[str, Any]


def refused(path: Path, *said: str) -> str:
    """The one line with which `path` is refused, by load and not only by open_bundle."""
    with pytest.raises(BundleError) as caught:
        patchcut.load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and ";" in message
    for text in said:
        assert text in message, message
    return message


def write_with(path: Path, change: Callable[[Spec], None]) -> Path:
    files = toy.members()
    spec = toy.manifest(files)
    change(spec)
    return toy.write(path, files, spec)


def test_a_bundle_reads_back(toy_bundle: Path) -> None:
    with open_bundle(toy_bundle) as bundle:
        assert bundle.spec.name == "toy"
        assert bundle.spec.backbone.graphs[0].grid_hw == (8, 8)
        assert bundle.read("card.md") == b"# Toy\n"
        np.testing.assert_array_equal(
            bundle.read_tensors("head.safetensors")["shift"], toy.head_tensors()["shift"]
        )
        bundle.verify()


def test_an_unpacked_bundle_is_plain_onnx(toy_bundle: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(toy_bundle).extractall(tmp_path)
    for graph in toy.manifest({})["backbones"]["toy"]["graphs"]:
        toy.check_plain_onnx(tmp_path, graph["file"])


def test_a_str_path_will_do(toy_bundle: Path) -> None:
    assert open_bundle(str(toy_bundle)).path == toy_bundle


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.patchcut", "No such file", "check the path")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "cannot open", "check the path")


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.patchcut")
    (tmp_path / "loop.patchcut").symlink_to("loop.patchcut")
    monkeypatch.chdir(tmp_path)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.patchcut")
    devices = [device for device in ("/dev/zero", "/dev/full", "/dev/null") if Path(device).exists()]
    assert devices
    start = time.perf_counter()
    for name in (*devices, "pipe", "pipe.patchcut", "loop.patchcut", "socket.patchcut"):
        refused(Path(name), "cannot open", "check the path")
    assert time.perf_counter() - start < 1
    server.close()


NO_PATHS = [
    b"x.patchcut",
    io.BytesIO(b"PK"),
    3,
    -1,
    True,
    1.5,
    "",
    "a\0b",
    "a\0.patchcut",
    [],
    object(),
    np.zeros(9),
]


@pytest.mark.parametrize(
    "given", NO_PATHS, ids=[f"{i}-{type(given).__name__}" for i, given in enumerate(NO_PATHS)]
)
def test_what_is_no_path_is_an_option(given: Any) -> None:
    for opening in (open_bundle, patchcut.load):
        with pytest.raises(OptionError, match=r"\[bundle\] must be a bundle's name or path, got .+; "):
            opening(given)


@pytest.mark.parametrize("name", ["a" * 300, "\ud800", "\udcff", "b" * 10_000, "\x1b[2J", " "])
@pytest.mark.parametrize("suffix", ["", ".patchcut"])
def test_a_name_that_no_file_has_is_told_in_a_line(name: str, suffix: str) -> None:
    for opening in (open_bundle, patchcut.load):
        with pytest.raises(BundleError) as caught:
            opening(name + suffix)
        said = str(caught.value)
        assert said.isprintable() and len(said) < 1200
        assert ("cannot open" if suffix else "no embedded bundle is called") in said


def test_a_bundle_without_memory_is_not_called_foreign(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    bundle = open_bundle(toy_bundle)
    monkeypatch.setattr(zipfile.ZipFile, "read", fail)
    said = "needs more memory than this process may have; allow it more"
    for work in (lambda: open_bundle(toy_bundle), lambda: bundle.read("card.md"), bundle.verify):
        with pytest.raises(BundleError, match=said):
            work()


def test_a_closed_bundle_closes_its_file(toy_bundle: Path) -> None:
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    with open_bundle(toy_bundle):
        assert len(list(opened.iterdir())) == before + 1
    assert len(list(opened.iterdir())) == before


@pytest.mark.parametrize("content", [b"", b"PK", b"\x89PNG\r\n" + bytes(100), b"{}"])
def test_what_is_no_zip_is_foreign(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.patchcut"
    path.write_bytes(content)
    refused(path, "foreign", "no zip archive", "patchcut export")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_a_bundle_cut_short_is_damaged(toy_bundle: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "short.patchcut"
    data = toy_bundle.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "damaged", "copy or download it again")


def test_a_changed_byte_of_any_member_is_damage(toy_bundle: Path, tmp_path: Path) -> None:
    data = toy_bundle.read_bytes()
    for info in zipfile.ZipFile(toy_bundle).infolist():
        changed = bytearray(data)
        changed[info.header_offset + 30 + len(info.filename) + info.file_size // 2] ^= 0x10
        path = tmp_path / "changed.patchcut"
        path.write_bytes(changed)
        refused(path, "damaged", info.filename)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), tail=st.booleans())
def test_a_changed_byte_is_found_or_does_not_matter(
    toy_bundle: Path, tmp_path: Path, share: float, value: int, tail: bool
) -> None:
    data = bytearray(toy_bundle.read_bytes())
    start = zipfile.ZipFile(toy_bundle).start_dir if tail else 0  # the directory is where a reader is weakest
    data[start + int((len(data) - start) * share)] ^= value
    path = tmp_path / "changed.patchcut"
    path.write_bytes(data)
    try:
        with open_bundle(path) as changed, open_bundle(toy_bundle) as whole:
            assert changed.spec == whole.spec
            changed.verify()
    except BundleError as error:
        assert str(path) in str(error)


def test_a_changed_byte_with_a_mended_crc_is_damage(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    weights = bytearray(files["backbone.safetensors"])
    weights[-1] ^= 1
    path = toy.write(tmp_path / "x.patchcut", {**files, "backbone.safetensors": bytes(weights)}, spec)
    refused(path, "damaged", "backbone.safetensors has another sha256")


def test_big_members_are_checked_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "EAGER_BYTES", 1000)
    files = toy.members()
    spec = toy.manifest(files)
    weights = bytearray(files["backbone.safetensors"])
    weights[-1] ^= 1
    path = toy.write(tmp_path / "x.patchcut", {**files, "backbone.safetensors": bytes(weights)}, spec)
    bundle = open_bundle(path)
    for read in (lambda: bundle.read("backbone.safetensors"), bundle.verify):
        with pytest.raises(BundleError, match="another sha256"):
            read()


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path) -> None:
    newer = SCHEMA_VERSION + 1
    path = write_with(tmp_path / "x.patchcut", lambda spec: spec.update(schema_version=newer, tracks={}))
    refused(path, "newer patchcut", f"schema_version is {newer}", "install a newer patchcut")


@pytest.mark.parametrize("version", [None, "1", 0, -1, True, 1.5, [1]])
def test_a_schema_version_that_is_none_is_foreign(tmp_path: Path, version: object) -> None:
    refused(write_with(tmp_path / "x.patchcut", lambda spec: spec.update(schema_version=version)), "foreign")


@pytest.mark.parametrize(
    "where",
    ["", "backbones.toy", "backbones.toy.features.key", "heads.0", "heads.0.affinity", "regions"],
)
def test_an_unknown_key_is_named(tmp_path: Path, where: str) -> None:
    def add(spec: Spec) -> None:
        found: Any = spec
        for key in filter(None, where.split(".")):
            found = found[int(key) if key.isdecimal() else key]
        found["extra"] = 1

    name = f"{where}.extra" if where else "extra"
    path = write_with(tmp_path / "x.patchcut", add)
    refused(path, "foreign or newer", f"does not know: {name}", "install a newer patchcut")


def toys(spec: Spec) -> Spec:
    """The one backbone of a manifest."""
    backbone: Spec = spec["backbones"]["toy"]
    return backbone


CHANGES: dict[str, Callable[[Spec], object]] = {
    "no name": lambda s: s.pop("name"),
    "no graphs": lambda s: toys(s).update(graphs=[]),
    "std of zero": lambda s: toys(s).update(std=[0.2, 0.0, 0.2]),
    "mean not finite": lambda s: toys(s).update(mean=[float("nan"), 0.0, 0.2]),
    "grid that is not size over patch": lambda s: toys(s)["graphs"][0].update(grid_hw=[9, 8]),
    "a giant size": lambda s: toys(s)["graphs"][0].update(size_hw=[14 << 30, 14], grid_hw=[1 << 30, 1]),
    "two graphs alike": lambda s: toys(s)["graphs"].append(toys(s)["graphs"][0]),
    "initializers without weights": lambda s: toys(s).update(weights=None),
    "a graph file that is not listed": lambda s: toys(s)["graphs"][0].update(file="other.onnx"),
    "a head file that is not listed": lambda s: s["heads"][0].update(
        files={"weights": "../head.safetensors"}
    ),
    "a head called auto": lambda s: s["heads"][0].update(name="auto"),
    "labels alike": lambda s: s["heads"][0].update(labels=["a", "a", "b"]),
    "one label": lambda s: s["heads"][0].update(labels=["a"]),
    "a mean of no image": lambda s: toys(s).update(mean=[1e30, 0.0, 0.2]),
    "a std that gives no numbers": lambda s: toys(s).update(std=[1e-39, 0.2, 0.2]),
    "a giant std": lambda s: toys(s).update(std=[1e38, 0.2, 0.2]),
    "more features than memory": lambda s: toys(s)["features"]["key"].update(dim=1 << 30),
    "patches of a giant": lambda s: toys(s).update(patch_size=1 << 40),
    "a giant layer": lambda s: toys(s)["features"]["key"]["components"][0].update(layer=10**400),
    "a scale of nothing": lambda s: toys(s)["features"]["key"].update(scales=[1e-30]),
    "more patches than an affinity": lambda s: toys(s)["graphs"][0].update(
        size_hw=[8190, 8190], grid_hw=[585, 585]
    ),
    "regions larger than the grid": lambda s: s["regions"].update(min_area_patches=65),
    "regions without an end": lambda s: s["regions"].update(min_area_patches=1e300),
    "a threshold of no cosine": lambda s: s["heads"][0]["affinity"].update(threshold=1e300),
    "an alpha without an inverse": lambda s: s["heads"][0]["affinity"].update(alpha=1e-40),
    "a giant temperature": lambda s: s["heads"][0].update(temperature=1e38),
    "more labels than columns": lambda s: s["heads"][0].update(labels=[str(i) for i in range(1025)]),
    "a calibration of giants": lambda s: s["heads"][0].update(
        calibration={"weights": [1e300, 0, 0, 0], "bias": 0, "nothing_below": 0.5}
    ),
    "temperature of zero": lambda s: s["heads"][0].update(temperature=0),
    "negative minimum area": lambda s: s["regions"].update(min_area_patches=-1),
    "a sha256 that is none": lambda s: s["files"]["card.md"].update(sha256="abc"),
    "an unknown precision": lambda s: toys(s)["graphs"][0].update(precision="int4"),
    "an unknown affinity": lambda s: s["heads"][0]["affinity"].update(kind="euclid"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_manifest_that_makes_no_sense_is_foreign(tmp_path: Path, change: Callable[[Spec], None]) -> None:
    refused(write_with(tmp_path / "x.patchcut", change), "foreign", "bundle.json is not valid at")


TEXTS: dict[str, Callable[[Spec, str], object]] = {
    "name": lambda s, text: s.update(name=text),
    "description": lambda s, text: s.update(description=text),
    "backbone": lambda s, text: s["backbones"].update({text: toys(s)}),
    "licence": lambda s, text: toys(s).update(licence=text),
    "source": lambda s, text: toys(s).update(source=text),
    "trained on": lambda s, text: s["heads"][0].update(trained_on=text),
    "method": lambda s, text: s["heads"][0].update(method=text),
    "label": lambda s, text: s["heads"][0].update(labels=["a", text]),
    "feature set": lambda s, text: toys(s)["features"].update({text: toys(s)["features"]["key"]}),
    "file": lambda s, text: s["files"].update({text: s["files"]["card.md"]}),
}


@pytest.mark.parametrize("steering", ["\x1b[2J", "\x07", "\r", "\n", "\x9b2J", "\x00", "\u202e", "\x7f"])
@pytest.mark.parametrize("change", TEXTS.values(), ids=TEXTS.keys())
def test_no_text_of_a_bundle_steers_a_terminal(
    tmp_path: Path, change: Callable[[Spec, str], None], steering: str
) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda spec: change(spec, f"a{steering}b"))
    assert "control characters" in refused(path, "foreign", "not valid at")


@pytest.mark.parametrize("text", ["[1]", "null", '"x"', "1"])
def test_a_manifest_of_another_kind_is_foreign(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.patchcut"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", text)
    refused(path, "foreign", "no schema_version")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_no_json_is_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.patchcut"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", text.encode("utf-8", "surrogateescape"))
    refused(path, "damaged", "not JSON")


def test_a_zip_without_a_manifest_is_foreign(tmp_path: Path) -> None:
    path = tmp_path / "x.patchcut"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", b"")
    refused(path, "foreign", "no bundle.json")


@pytest.mark.parametrize("name", ["../evil.md", "/etc/evil", "a/../../evil", "C:evil", "a\\..\\evil"])
def test_a_path_that_leaves_the_bundle_is_foreign(tmp_path: Path, name: str) -> None:
    files = {**toy.members(), name: b"evil"}
    refused(toy.write(tmp_path / "x.patchcut", files), "foreign", "leaves the bundle")


def test_a_member_twice_is_damage(tmp_path: Path) -> None:
    path = toy.write(tmp_path / "x.patchcut")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("card.md", b"# Toy\n")
    refused(path, "damaged", "more than one card.md")


def test_a_compressed_member_is_foreign(tmp_path: Path) -> None:
    path = toy.write(tmp_path / "x.patchcut")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bomb", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    refused(path, "foreign", "compressed")


def test_a_folder_member_is_foreign(tmp_path: Path) -> None:
    path = toy.write(tmp_path / "x.patchcut")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("folder/", b"")
    refused(path, "foreign", "a folder or encrypted")


def test_a_member_missing_is_damage(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    del files["head.safetensors"]
    refused(toy.write(tmp_path / "x.patchcut", files, spec), "damaged", "does not hold head.safetensors")


def test_a_member_too_many_is_damage(tmp_path: Path) -> None:
    files = toy.members()
    spec = toy.manifest(files)
    refused(
        toy.write(tmp_path / "x.patchcut", {**files, "more": b"x"}, spec), "damaged", "does not list, more"
    )


def test_a_member_of_another_size_is_damage(tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda spec: spec["files"]["card.md"].update(bytes=7))
    refused(path, "damaged", "card.md has 6 bytes, bundle.json says 7")


@pytest.mark.parametrize(("claimed", "said"), [(3_000_000_000, "damaged"), (0xFFFFFFFE, "foreign")])
def test_a_member_that_claims_gigabytes_is_never_read(tmp_path: Path, claimed: int, said: str) -> None:
    path = toy.write(tmp_path / "x.patchcut")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last central record: card.md
    size = struct.pack("<I", claimed)
    data[entry + 20 : entry + 28] = size + size
    path.write_bytes(data)
    refused(path, said, "claim")


def test_a_giant_manifest_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "x.patchcut"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", b" " * (5 << 20))
    refused(path, "foreign", "the limit is")


HEADS: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "no shift": lambda t: t.pop("shift"),
    "a hole in the layers": lambda t: [t.pop("gcn.0.theta"), t.pop("gcn.0.root"), t.pop("gcn.0.bias")],
    "no bias": lambda t: t.pop("mlp.0.bias"),
    "a name it does not know": lambda t: t.update({"gcn.0.gate": t["shift"]}),
    "widths that do not chain": lambda t: t.update({"gcn.1.theta": np.zeros((7, 5), np.float32)}),
    "a root of another shape": lambda t: t.update({"gcn.0.root": np.zeros((6, 8), np.float32)}),
    "features of another width": lambda t: t.update(
        shift=np.zeros(9, np.float32), scale=np.ones(9, np.float32)
    ),
    "columns and labels apart": lambda t: t.update(
        {"mlp.1.weight": np.zeros((4, 2), np.float32), "mlp.1.bias": np.zeros(2, np.float32)}
    ),
    "float64": lambda t: t.update(shift=t["shift"].astype(np.float64)),
    "not finite": lambda t: t.update(shift=np.full(toy.DIM, np.nan, np.float32)),
    "no layers at all": lambda t: [t.pop(name) for name in list(t) if "." in name],
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS.keys())
def test_a_head_of_wrong_shapes_is_foreign(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    tensors = toy.head_tensors()
    change(tensors)
    path = toy.write(tmp_path / "x.patchcut", {**toy.members(), "head.safetensors": save(tensors)})
    refused(path, "foreign", "head.safetensors", "export the bundle again")


@pytest.mark.parametrize("member", ["head.safetensors", "backbone.safetensors"])
@pytest.mark.parametrize("data", [b"", b"no tensors here", b"\xff" * 64, b"\x02" + bytes(7) + b"{}"])
def test_tensors_that_are_none_are_foreign(tmp_path: Path, member: str, data: bytes) -> None:
    path = toy.write(tmp_path / "x.patchcut", {**toy.members(), member: data})
    message = refused(path, member)
    assert "foreign" in message or "damaged" in message


def test_a_graph_that_is_no_onnx_is_foreign(tmp_path: Path) -> None:
    path = toy.write(tmp_path / "x.patchcut", {**toy.members(), "backbone-112-int8.onnx": b"no graph"})
    refused(path, "foreign", "backbone-112-int8.onnx cannot be run: it is no ONNX graph")


def test_an_initializer_that_the_weights_lack_is_damage(tmp_path: Path) -> None:
    path = write_with(
        tmp_path / "x.patchcut",
        lambda s: toys(s)["graphs"][0].update(initializers=["embed.int8", "more"]),
    )
    refused(path, "damaged", "lacks more")


@pytest.mark.parametrize("names", [[], ["embed.fp32"]])
def test_initializers_that_the_graph_does_not_declare_are_foreign(tmp_path: Path, names: list[str]) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda s: toys(s)["graphs"][0].update(initializers=names))
    refused(path, "foreign", "it reads embed.int8 from a file, which `initializers` does not name")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_nothing_beside_the_bundle_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Weights that the manifest does not declare are not looked for in the working directory."""

    def hide(spec: Spec) -> None:
        for graph in toys(spec)["graphs"]:
            graph["initializers"] = []

    (tmp_path / "backbone.safetensors").write_bytes(toy.members()["backbone.safetensors"])
    monkeypatch.chdir(tmp_path)
    path = write_with(tmp_path / "x.patchcut", hide)
    with pytest.raises(BundleError, match=f"it reads embed.{precision} from a file"):
        patchcut.load(path, precision=precision)


def test_weights_of_another_shape_are_foreign(tmp_path: Path) -> None:
    weights = save({"embed.int8": toy.embedding()[:, :2], "embed.fp32": toy.embedding().astype(np.float32)})
    path = toy.write(tmp_path / "x.patchcut", {**toy.members(), "backbone.safetensors": weights})
    refused(path, "foreign", "onnxruntime cannot load")


@pytest.mark.parametrize("change", [{"dim": 9}, {"output": "tokens"}, {"patch_size": 28}])
def test_a_graph_of_another_shape_than_the_manifest_says_is_foreign(tmp_path: Path, change: Spec) -> None:
    def apply(spec: Spec) -> None:
        backbone = toys(spec)
        (backbone if "patch_size" in change else backbone["features"]["key"]).update(change)
        for graph in backbone["graphs"]:
            graph["grid_hw"] = [side // backbone["patch_size"] for side in graph["size_hw"]]

    refused(write_with(tmp_path / "x.patchcut", apply), "foreign")


COMPONENTS = [{"facet": "key", "layer": 0, "weight": 0.25}, {"facet": "token", "layer": 2, "weight": 0.75}]


def test_choices_of_features_are_told_in_a_line(toy_bundle: Path, tmp_path: Path) -> None:
    def choose(spec: Spec) -> None:
        chosen = {"components": COMPONENTS, "scales": [1, 0.5], "join": "concat", "log_bins": 2}
        toys(spec)["features"]["key"].update(chosen)
        toys(spec)["stride"] = 7
        for graph in toys(spec)["graphs"]:
            graph["grid_hw"] = [(side - 14) // 7 + 1 for side in graph["size_hw"]]

    with open_bundle(toy_bundle) as bundle:
        assert bundle.spec.backbone.features_text("key") == "key of layer 0, 8 a patch"
    with open_bundle(write_with(tmp_path / "x.patchcut", choose)) as bundle:
        said = bundle.spec.backbone.features_text("key")
        assert bundle.spec.backbone.graphs[0].grid_hw == (15, 15)
        assert bundle.spec.backbone.covered((112, 112)) == ((3.5, 105), (3.5, 105))
    assert said == (
        "0.25 key of layer 0 + 0.75 token of layer 2, patches every 7 pixels, "
        "scales 1, 0.5 concatenated, log-binned in 17, 8 a patch"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stride": 7}, "does not give grid (8, 8)"),
        ({"stride": 15}, "patches of 14 pixels every 15 leave gaps"),
        ({"stride": 0}, "not valid at backbones.toy.stride"),
        ({"scales": []}, "not valid at backbones.toy.features.key.scales"),
        ({"scales": [0]}, "not valid at backbones.toy.features.key.scales.0"),
        ({"join": "sum"}, "not valid at backbones.toy.features.key.join"),
        ({"log_bins": -1}, "not valid at backbones.toy.features.key.log_bins"),
        ({"components": []}, "not valid at backbones.toy.features.key.components"),
        ({"components": [COMPONENTS[0], COMPONENTS[0]]}, "components must differ, got ('key', 0) twice"),
        ({"components": [COMPONENTS[0], {**COMPONENTS[1], "weight": 0.5}]}, "components must sum to 1"),
        ({"components": [{**COMPONENTS[0], "facet": "nose"}]}, "key.components.0.facet"),
    ],
)
def test_choices_that_contradict_each_other_are_foreign(tmp_path: Path, change: Spec, said: str) -> None:
    def apply(spec: Spec) -> None:
        (toys(spec) if "stride" in change else toys(spec)["features"]["key"]).update(change)

    refused(write_with(tmp_path / "x.patchcut", apply), "foreign", said)


def test_a_choice_that_is_not_known_is_newer(tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda spec: toys(spec).update(registers=True))
    refused(path, "foreign or newer", "backbones.toy.registers", "install a newer patchcut")


def test_a_head_of_an_unknown_kind_is_newer(tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda spec: spec["heads"][0].update(kind="mask-transformer"))
    refused(path, "newer", "mask-transformer", "install a newer patchcut")


def test_a_bundle_without_a_head_says_so(tmp_path: Path) -> None:
    path = write_with(tmp_path / "x.patchcut", lambda spec: spec.update(heads=[]))
    refused(path, "holds a backbone and no head")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("affinity", "threshold", -0.1), ("", "temperature", 1e-39), ("", "temperature", 0.0)],
)
def test_a_value_that_no_frame_could_be_segmented_with_is_refused(
    tmp_path: Path, part: str, key: str, value: float
) -> None:
    def change(spec: Spec) -> None:
        head = spec["heads"][0]
        (head[part] if part else head)[key] = value

    where = ".".join(filter(None, ("heads", "0", part, key)))
    refused(write_with(tmp_path / "x.patchcut", change), f"not valid at {where}")


def test_graphs_that_hold_their_own_weights_run(tmp_path: Path, photo: np.ndarray, toy_bundle: Path) -> None:
    import onnx

    zipfile.ZipFile(toy_bundle).extractall(tmp_path)
    files = toy.members()
    for graph in toys(toy.manifest(files))["graphs"]:
        files[graph["file"]] = onnx.load(tmp_path / graph["file"]).SerializeToString()
    del files["backbone.safetensors"]
    spec = toy.manifest(files)
    toys(spec)["weights"] = None
    for graph in toys(spec)["graphs"]:
        graph["initializers"] = []
    path = toy.write(tmp_path / "whole.patchcut", files, spec)
    whole, split = patchcut.load(path)(photo), patchcut.load(toy_bundle)(photo)
    np.testing.assert_array_equal(whole.assignment, split.assignment)


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_an_embedded_bundle_is_whole(name: str) -> None:
    assert name in embedded_bundles()
    with open_bundle(name) as bundle:
        bundle.verify()
        head = bundle.spec.head()
        assert head is not None and bundle.spec.card is not None
        assert head.report, "an embedded bundle says how good it is"
        assert bundle.spec.backbone.licence and bundle.spec.backbone.trained_on
        json.dumps(bundle.spec.model_dump())
