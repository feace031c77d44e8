"""What SECURITY.md tells people to do works, and what it says of the code is so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime import toy_bundle as toy

from .conftest import ROOT

PAGE = ROOT / "SECURITY.md"


def test_a_bundle_is_signed_and_verified_as_the_page_says(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    toy.write(tmp_path / "mine.patchcut")
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "maker"]
    subprocess.run(key, check=True, cwd=tmp_path)
    done = subprocess.run(["sh", "-ec", block], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = bytearray((tmp_path / "mine.patchcut").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "mine.patchcut").write_bytes(data)
    verify = block.strip().splitlines()[-1]
    assert (
        subprocess.run(["sh", "-c", verify], capture_output=True, check=False, cwd=tmp_path).returncode != 0
    )


def test_the_page_names_files_that_are_there() -> None:
    text = PAGE.read_text("utf-8")
    named = re.findall(r"`((?:tests|runtime)/[\w./]+)`", text) + re.findall(r"\]\(([\w./]+)\)", text)
    assert named and all((ROOT / name).is_file() for name in named)


def test_the_page_invents_no_address() -> None:
    assert not re.search(r"[\w.]+@[\w.]+|https?://", PAGE.read_text("utf-8"))
