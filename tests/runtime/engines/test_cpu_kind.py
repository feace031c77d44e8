from __future__ import annotations

import sys
from pathlib import Path

import pytest
from patchcut.engines import cpu_kind
from patchcut.engines.cpu_kind import kind_of, multiplies_int8

AVX2 = "fpu sse2 fma avx avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512bw avx512vl"
KINDS = [
    ("x86_64", "fpu sse2 avx", "x86", False),
    ("x86_64", AVX2, "x86-avx2", False),
    ("amd64", f"{AVX2} avx_vnni", "x86-avx2-vnni", True),
    ("x86_64", AVX512, "x86-avx512", False),
    ("x86_64", f"{AVX512} avx512_vnni", "x86-avx512-vnni", True),
    ("x86_64", f"{AVX512} avx512_vnni avx512_bf16", "x86-avx512-bf16", True),
    ("x86_64", f"{AVX512} avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8", "x86-amx", True),
    ("x86_64", f"{AVX2} avx512_vnni_like", "x86-avx2", False),
    ("aarch64", "fp asimd crc32", "arm", False),
    ("aarch64", "fp asimd asimddp", "arm-dotprod", True),
    ("arm64", "fp asimd asimddp i8mm bf16", "arm-i8mm", True),
    ("riscv64", "", "riscv64", False),
    ("", "", "unknown", False),
]


def cpuinfo(machine: str, *cores: str) -> str:
    name = "flags" if machine in ("x86_64", "amd64") else "Features"
    return "".join(
        f"processor\t: {i}\n{name}\t\t: {flags}\nbogomips\t: 1\n\n" for i, flags in enumerate(cores)
    )


@pytest.mark.parametrize(("machine", "flags", "kind", "int8"), KINDS, ids=[one[2] for one in KINDS])
def test_the_kind_is_that_of_the_best_instructions(machine: str, flags: str, kind: str, int8: bool) -> None:
    assert kind_of(machine, cpuinfo(machine, flags, flags)) == kind
    assert multiplies_int8(kind) is int8


def test_what_one_core_lacks_no_core_has() -> None:
    assert kind_of("aarch64", cpuinfo("aarch64", "asimd asimddp i8mm", "asimd asimddp")) == "arm-dotprod"


def test_a_system_that_says_nothing_has_the_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["patchcut.engines.cpu_kind"]
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert cpu_kind() == "x86"
