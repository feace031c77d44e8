"""The Dockerfiles: clean by hadolint's rules, and what they install and start works without root."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT
from .dockerfiles import Instruction, lint, read, resolved, stages

FOLDER = ROOT / "docs/containers"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
GOOD = (FOLDER / "cpu.Dockerfile").read_text("utf-8")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dockerfile(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text("utf-8"))


def test_there_are_three() -> None:
    assert [path.stem for path in FILES] == ["cpu", "cuda", "jetson"]


def test_hadolints_rules_hold(dockerfile: str) -> None:
    assert lint(dockerfile) == []


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("-slim-bookworm", "", None),
        ("FROM python:${PYTHON}-slim-bookworm AS build", "FROM python AS build", "DL3006"),
        ("FROM python:${PYTHON}-slim-bookworm AS build", "FROM python:latest AS build", "DL3007"),
        ("USER 10001", "USER root", "DL3002"),
        ("USER 10001\n", "", "DL3002"),
        ("WORKDIR /tmp", "WORKDIR tmp", "DL3000"),
        ("RUN useradd --no-log-init", "RUN useradd", "DL3046"),
        ("RUN useradd", "RUN cd /tmp && useradd", "DL3003"),
        ("RUN useradd", "RUN sudo useradd", "DL3004"),
        ("RUN useradd", "RUN apt-get upgrade -y && useradd", "DL3005"),
        ("RUN useradd", "RUN apt-get update && useradd", "DL3009"),
        ("RUN useradd", "RUN apt-get install -y --no-install-recommends curl && useradd", "DL3008"),
        ("RUN useradd", "RUN apt-get install --no-install-recommends curl=1 && useradd", "DL3014"),
        ("RUN useradd", "RUN apt-get install -y curl=1 && useradd", "DL3015"),
        ("RUN useradd", "RUN apt install curl && useradd", "DL3027"),
        ("RUN useradd", "RUN curl https://x | sh && useradd", "DL4006"),
        ("RUN useradd", "RUN true\nRUN useradd", "DL3059"),
        ("# hadolint ignore=DL3013\n", "", "DL3013"),
        ("pip install --no-cache-dir --only", "pip install --only", "DL3042"),
        ("COPY patchcut-*.whl /wheels/", "ADD https://x/patchcut.whl /wheels/", "DL3020"),
        ("COPY patchcut-*.whl /wheels/", "COPY a.whl b.whl /wheels", "DL3021"),
        ("--from=build", "--from=other", "DL3022"),
        ("EXPOSE 8000", "EXPOSE 80000", "DL3011"),
        ('ENTRYPOINT ["patchcut"]', "ENTRYPOINT patchcut", "DL3025"),
        ("EXPOSE 8000", 'CMD ["serve"]', "DL4003"),
    ],
)
def test_a_rule_that_is_broken_is_found(old: str, new: str, number: str | None) -> None:
    assert old in GOOD
    assert lint(GOOD.replace(old, new)) == ([] if number is None else [number])


def test_hadolint_itself_finds_nothing() -> None:
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed")
    subprocess.run([hadolint, *map(str, FILES)], check=True)


def last(dockerfile: str, name: str) -> Instruction:
    """An instruction of the image that comes out."""
    return [one for one in stages(read(dockerfile))[-1] if one.name == name][-1]


def test_images_serve_as_somebody_and_say_how_they_are(dockerfile: str) -> None:
    assert int(last(dockerfile, "USER").text) > 999
    assert last(dockerfile, "ENTRYPOINT").exec_form == ["patchcut"]
    (word, *options) = last(dockerfile, "CMD").exec_form or []
    port = options[options.index("--port") + 1]
    assert (word, port) == ("serve", last(dockerfile, "EXPOSE").text)
    assert f"127.0.0.1:{port}/v2/health/ready" in (last(dockerfile, "HEALTHCHECK").exec_form or [""])[-1]
    from patchcut_server.cli import app
    from typer.main import get_command

    get_command(app).make_context("serve", list(options))


def test_every_image_installs_the_same_way(dockerfile: str) -> None:
    """What the CPU's image installs is run below; the others differ by their extras alone."""
    found = re.search(r"'patchcut\[(.+)\]'", dockerfile)
    assert found is not None
    extras = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.M))
    assert set(found[1].split(",")) <= extras
    (ours,), (cpus,) = ([one for one in read(text) if _installs(one)] for text in (dockerfile, GOOD))
    assert cpus.text in ours.text.replace(found[1], "cpu,server")


def _installs(one: Instruction) -> bool:
    return any(words[:2] == ["pip", "install"] for words in one.commands)


def test_jetpack_7_is_told_in_the_file() -> None:
    text = (FOLDER / "jetson.Dockerfile").read_text("utf-8")
    bases = re.findall(r"BASE=(nvcr\.io/nvidia/[\w-]+:[\w.-]+)", text)
    assert len(bases) == 2 and not any("latest" in base for base in bases)
    assert resolved("${BASE} ${ARCHITECTURES}", read(text)) == f"{bases[1]} 87"


@pytest.fixture(scope="module")
def image(wheel: Path) -> Iterator[Path]:
    """A folder with what cpu.Dockerfile installs: its own commands, run outside a container."""
    folder = Path(tempfile.mkdtemp(prefix="patchcut-image-"))  # which another user may look into
    try:
        folder.chmod(0o755)
        (folder / "wheels").mkdir()
        shutil.copy(wheel, folder / "wheels")
        (build, _) = stages(read(GOOD))
        for one in build:
            if one.name != "RUN":
                continue
            text = placed(one.text, folder).replace("python -m venv", f"{sys.executable} -m venv")
            path = f"{folder}/opt/patchcut/bin:{os.environ['PATH']}"
            done = subprocess.run(
                ["sh", "-ec", text],
                env={
                    "PATH": path,
                    "HOME": str(folder),
                    "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", ""),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        yield folder
    finally:
        shutil.rmtree(folder)


def placed(text: str, folder: Path) -> str:
    """A command whose folders lie in another one."""
    return re.sub(r"(?<![\w.])/(opt|wheels)\b", rf"{folder}/\1", text)


@contextlib.contextmanager
def started(image: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The image's server as its user; where this machine can do it, no file can be written by anybody."""
    environment = dict(
        word.split("=", 1) for one in stages(read(GOOD))[-1] if one.name == "ENV" for word in one.words
    )
    environment = {name: placed(value, image) for name, value in environment.items()}
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/bin:/bin")
    words = [*(last(GOOD, "ENTRYPOINT").exec_form or []), *(last(GOOD, "CMD").exec_form or [])]
    words[words.index("8000")] = str(port)
    isolated: list[str] = []
    if os.geteuid() == 0 and shutil.which("unshare") and shutil.which("setpriv"):
        user = last(GOOD, "USER").text
        closed = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"'
        setpriv = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"]
        isolated = ["unshare", "--mount", "sh", "-ec", closed, "sh", *setpriv]
        if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
            isolated = setpriv
    environment["PATCHCUT_TOKEN"] = "0123456789abcdef"
    process = subprocess.Popen([*isolated, *words], env=environment, cwd="/", stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.packaging
def test_the_image_serves_without_root_on_files_that_cannot_be_written(image: Path) -> None:
    port = free_port()
    with started(image, port) as process:
        health = last(GOOD, "HEALTHCHECK").exec_form or []
        health = [word.replace("8000", str(port)) for word in health]
        health[0] = str(image / "opt/patchcut/bin/python")
        until = time.monotonic() + 120
        while subprocess.run(health, capture_output=True, check=False).returncode:
            assert process.poll() is None and time.monotonic() < until, process.stderr
            time.sleep(0.5)
        photo = (ROOT / "runtime/patchcut/samples/coffee.jpg").read_bytes()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/segment", photo)
        refused = connection.getresponse()
        refused.read()
        assert refused.status == 401
        connection.request("POST", "/v1/segment", photo, {"Authorization": "Bearer 0123456789abcdef"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        assert answer.status == 200 and len(told["regions"]) > 0
        connection.close()
