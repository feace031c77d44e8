"""Bundles with something changed: each is refused in a line, or loads; all are made from one seed."""

from __future__ import annotations

import copy
import random
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import patchcut
import pytest
from onnx import numpy_helper
from patchcut import PatchcutError, open_bundle

from tests.runtime import toy_bundle as toy
from tests.runtime import toy_decoder

SEED = 11
ZIPS, MANIFESTS, GRAPH_BYTES, GRAPH_FIELDS, TENSORS, MEMBERS, DECODERS = 800, 900, 900, 450, 300, 150, 200
# Making a session takes longer than all else; one of so many bundles also segments a frame.
LOADED_OF = {"zip": 40, "manifest": 8, "bytes": 8, "fields": 4, "tensors": 4, "members": 4, "decoder": 2}

GRAPHS = [f"backbone-{size}-{precision}.onnx" for size in toy.SIZES for precision in ("int8", "fp32")]
FRAME = np.random.default_rng(SEED).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def outcome(path: Path, *, load: bool, **settings: Any) -> str:
    """How a bundle ends: "read", "segmented", or the kind of the error, whose text is one plain line."""
    try:
        with open_bundle(path) as bundle:
            bundle.verify()
        if not load:
            return "read"
        patchcut.load(path, threads=1, **settings)(FRAME)
    except PatchcutError as error:
        said = str(error)
        assert said.isprintable() and len(said) < 2000, said
        return type(error).__name__
    return "segmented"


def count_outcomes(kind: str, paths: Iterator[Path], **settings: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for i, path in enumerate(paths):
        ended = outcome(path, load=i % LOADED_OF[kind] == 0, **settings)
        counts[ended] = counts.get(ended, 0) + 1
    return counts


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, overwritten, cut out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 40))
        what = rng.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[at : at + length] = rng.randbytes(len(changed[at : at + length]))
        elif what == 2:
            changed[at : at + length] = rng.choice((b"\x00", b"\xff", b"\x7f")) * length
        elif what == 3:
            del changed[at : at + length]
        elif what == 4:
            changed[at:at] = changed[at : at + length]
        elif what == 5 and rng.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def changed_zips(folder: Path, rng: random.Random) -> Iterator[Path]:
    whole = toy.write(folder / "whole.patchcut")
    data, directory = whole.read_bytes(), zipfile.ZipFile(whole).start_dir
    for _ in range(ZIPS):
        path = folder / "x.patchcut"
        begin = rng.choice((0, directory))  # a reader is weakest in the directory
        path.write_bytes(data[:begin] + change_bytes(data[begin:], rng))
        yield path


STRANGE: list[Any] = [
    None, True, 0, -1, 1, 3, 1 << 31, 1 << 70, 10**400, 0.5, -0.5, 1e-40, 1e38, 1e300, float("nan"),
    float("inf"), "", "a", "../x", "/etc/passwd", "a" * 5000, "\x1b[2J", "\u202e", "\x00", "\ud800", [], {},
    [[]], [0, 0], [1e9] * 3, {"": {}}, "auto", "gnn", "key", "fp16", "default", ["a", "a"],
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (container, key) of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def change_manifest(spec: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = list(places(spec))
        if not found:
            break
        container, key = rng.choice(found)
        what = rng.randrange(4)
        if what == 0:
            del container[key]
        elif what == 1 and isinstance(container, dict):
            container[rng.choice((*map(str, STRANGE[-9:]), "more"))] = copy.deepcopy(container[key])
        elif what == 2:
            other, theirs = rng.choice(found)
            container[key] = copy.deepcopy(other[theirs]) if theirs in other or other is container else None
        else:
            container[key] = copy.deepcopy(rng.choice(STRANGE))
    return spec


def changed_manifests(folder: Path, rng: random.Random) -> Iterator[Path]:
    files = toy.members(tokens=True)
    specs = [toy.manifest(files, tokens=True), *(toy.old_manifest(files, version) for version in (1, 2))]
    for i in range(MANIFESTS):
        yield toy.write(folder / "x.patchcut", files, change_manifest(specs[(0, 0, 1, 2)[i % 4]], rng))


def with_graph(folder: Path, files: toy.Members, name: str, data: bytes) -> Path:
    """A bundle with another graph, whose hashes are right."""
    return toy.write(folder / "x.patchcut", {**files, name: data})


def changed_graph_bytes(folder: Path, rng: random.Random) -> Iterator[Path]:
    files = toy.members()
    for i in range(GRAPH_BYTES):
        name = GRAPHS[i % 2]
        yield with_graph(folder, files, name, change_bytes(files[name], rng))


OPERATORS = [
    "Loop",
    "If",
    "Relu",
    "Conv",
    "Resize",
    "Expand",
    "Tile",
    "Reshape",
    "Transpose",
    "MatMul",
    "Concat",
]
OPERATORS += [
    "Pad",
    "Slice",
    "Gather",
    "Einsum",
    "TopK",
    "Split",
    "Cast",
    "Squeeze",
    "DequantizeLinear",
    "Where",
]
SIDES = [0, 1, 2, 3, 14, 64, 1 << 20, 1 << 40, -1]


def change_graph(data: bytes, rng: random.Random) -> bytes:
    """A graph that is still well written: other operators, names, numbers and shapes."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    names = [*(name for node in graph.node for name in (*node.input, *node.output)), "image", "more", ""]
    for _ in range(rng.choice((1, 1, 2, 4))):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        what = rng.randrange(8)
        if what == 0:
            node.op_type = rng.choice(OPERATORS)
        elif what == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        elif what == 2:
            node.output[0] = rng.choice(names)
        elif what == 3 and node.attribute:
            numbers = rng.choice(node.attribute).ints
            numbers.extend([rng.choice(SIDES)]) if rng.random() < 0.5 or not numbers else numbers.pop()
        elif what == 4 and tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIDES)
        elif what == 5:
            tensor.data_type = rng.randrange(0, 24)
        elif what == 6:
            numbers_of = numpy_helper.from_array(np.array([rng.choice(SIDES) for _ in range(3)]), "columns")
            graph.initializer[0].CopyFrom(numbers_of)
        elif what == 7:
            graph.node.append(copy.deepcopy(node))
    return bytes(model.SerializeToString())


def changed_graph_fields(folder: Path, rng: random.Random) -> Iterator[Path]:
    files = toy.members()
    for i in range(GRAPH_FIELDS):
        name = GRAPHS[i % 2]
        yield with_graph(folder, files, name, change_graph(files[name], rng))


def changed_tensors(folder: Path, rng: random.Random) -> Iterator[Path]:
    files = toy.members()
    for i in range(TENSORS):
        name = ("head.safetensors", "backbone.safetensors")[i % 2]
        data = files[name]
        header = 8 + int.from_bytes(data[:8], "little")
        begin = rng.choice((0, 8))
        changed = data[:begin] + change_bytes(data[begin:header], rng) + data[header:]
        yield toy.write(folder / "x.patchcut", {**files, name: changed})


def changed_members(folder: Path, rng: random.Random) -> Iterator[Path]:
    files = toy.members()
    spec = toy.manifest(files)
    names = ["../x", "/etc/x", "a\\b", "C:x", "x" * 300, "folder/", "bundle.json", "\x1b[2J", "card.md", "é"]
    for _ in range(MEMBERS):
        held = dict(files)
        name = rng.choice(list(held))
        what = rng.randrange(4)
        if what == 0:
            held[rng.choice(names)] = held.pop(name)
        elif what == 1:
            held[rng.choice(names)] = b"x"
        elif what == 2:
            held[name] = rng.randbytes(rng.randrange(2000))
        else:
            held[name], held["card.md"] = held["card.md"], held[name]
        fits = rng.random() < 0.5  # the manifest's hashes are those of what is there
        yield toy.write(
            folder / "x.patchcut", held, {**spec, "files": toy.manifest(held)["files"]} if fits else spec
        )


def changed_decoders(folder: Path, rng: random.Random) -> Iterator[Path]:
    """The grid, the labels and the features of a mask decoder, or the graph that it is a part of."""
    files = toy_decoder.members()
    spec = toy_decoder.manifest(files)
    for i in range(DECODERS):
        changed = copy.deepcopy(spec)
        if i % 2:
            features, heads = changed["backbones"]["toy"]["features"], changed["heads"]
            container, key = rng.choice(((features, "mask"), (heads, 0)))
            container[key] = change_manifest(container[key], rng)
            yield toy.write(folder / "x.patchcut", files, changed)
        else:
            other = {**files, GRAPHS[0]: change_graph(files[GRAPHS[0]], rng)}
            yield toy.write(folder / "x.patchcut", other, {**changed, "files": toy.manifest(other)["files"]})


CHANGES = {
    "zip": (changed_zips, ZIPS),
    "manifest": (changed_manifests, MANIFESTS),
    "bytes": (changed_graph_bytes, GRAPH_BYTES),
    "fields": (changed_graph_fields, GRAPH_FIELDS),
    "tensors": (changed_tensors, TENSORS),
    "members": (changed_members, MEMBERS),
    "decoder": (changed_decoders, DECODERS),
}


def test_they_are_as_many_as_they_should_be() -> None:
    assert sum(count for _, count in CHANGES.values()) >= 3500


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_bundle_is_refused_or_loads(tmp_path: Path, kind: str) -> None:
    change, expected = CHANGES[kind]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        counts = count_outcomes(kind, change(tmp_path, random.Random(SEED)))
    print(kind, counts)
    assert sum(counts.values()) == expected
    assert counts["BundleError"] > expected // 10, "the changes must be seen"
    assert counts.get("read", 0) + counts.get("segmented", 0) > 0, "and some must not matter"
