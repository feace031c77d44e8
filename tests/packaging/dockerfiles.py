"""Reads Dockerfiles, and says which of hadolint's rules one breaks, by the numbers that hadolint gives them.

As many of its rules as tell something of files like ours. CI has no binary of hadolint; where one is on the
PATH, the tests run it as well.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_IGNORED = re.compile(r"#\s*hadolint\s+ignore=([\w,]+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction; `ignored` are the rules that a comment above it excuses it from."""

    name: str
    text: str
    ignored: frozenset[str] = frozenset()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def exec_form(self) -> list[str] | None:
        """The words of a JSON list; None of anything else."""
        try:
            found = json.loads(self.text.partition("CMD ")[2] if self.name == "HEALTHCHECK" else self.text)
        except ValueError:
            return None
        return found if isinstance(found, list) else None

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a RUN, each as its words; none of anything else."""
        if self.name != "RUN":
            return []
        return [shlex.split(one) for one in re.split(r"&&|;|\|", self.text)]


def read(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, each on one line."""
    found, ignored, begun = [], frozenset[str](), ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):  # also between the lines of an instruction
            marked = _IGNORED.match(line)
            ignored |= frozenset(marked[1].split(",")) if marked else frozenset()
            continue
        begun += line.removesuffix("\\")
        if line.endswith("\\") or not begun.strip():
            continue
        name, _, rest = begun.strip().partition(" ")
        found.append(Instruction(name.upper(), rest.strip(), ignored))
        ignored, begun = frozenset(), ""
    return found


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The stages, each beginning with its FROM."""
    found: list[list[Instruction]] = []
    for one in instructions:
        if one.name == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


def resolved(text: str, instructions: list[Instruction]) -> str:
    """A text with the defaults of ARG in place of ${NAME}."""
    given = dict(one.text.partition("=")[::2] for one in instructions if one.name == "ARG")
    return re.sub(r"\$\{(\w+)\}", lambda match: given.get(match[1], ""), text)


def lint(text: str) -> list[str]:
    """The numbers of the rules that a Dockerfile breaks, sorted."""
    instructions = read(text)
    broken = {
        number
        for number, rule in _OF_ONE.items()
        for one in instructions
        if number not in one.ignored and rule(one)
    }
    return sorted(broken | set(_of_the_file(instructions)))


def _apt(one: Instruction, action: str) -> list[list[str]]:
    return [words for words in one.commands if words[:2] == ["apt-get", action]]


def _pip(one: Instruction) -> list[list[str]]:
    return [words for words in one.commands if words[:2] == ["pip", "install"]]


def _packages(words: list[str]) -> list[str]:
    """What an install command names, without its options and their values."""
    taken, values = [], {"--find-links", "--only-binary", "-c", "-r"}
    for before, word in zip(["", *words[2:]], words[2:], strict=False):
        if not word.startswith("-") and before not in values:
            taken.append(word)
    return taken


def _has(command: str) -> Callable[[Instruction], bool]:
    return lambda one: any(words[:1] == [command] for words in one.commands)


_OF_ONE: dict[str, Callable[[Instruction], bool]] = {
    "DL3000": lambda one: one.name == "WORKDIR" and not one.text.startswith("/"),
    "DL3003": _has("cd"),
    "DL3004": _has("sudo"),
    "DL3005": lambda one: bool(_apt(one, "upgrade") or _apt(one, "dist-upgrade")),
    "DL3008": lambda one: any("=" not in name for words in _apt(one, "install") for name in _packages(words)),
    "DL3009": lambda one: bool(_apt(one, "update")) and "rm -rf /var/lib/apt/lists/*" not in one.text,
    "DL3011": lambda one: one.name == "EXPOSE" and not 0 < int(one.text) < 65536,
    "DL3013": lambda one: any("==" not in name for words in _pip(one) for name in _packages(words)),
    "DL3014": lambda one: any("-y" not in words for words in _apt(one, "install")),
    "DL3015": lambda one: any("--no-install-recommends" not in words for words in _apt(one, "install")),
    "DL3020": lambda one: one.name == "ADD",
    "DL3021": lambda one: one.name == "COPY" and len(_copied(one)) > 2 and not _copied(one)[-1].endswith("/"),
    "DL3025": lambda one: one.name in ("CMD", "ENTRYPOINT") and one.exec_form is None,
    "DL3027": _has("apt"),
    "DL3042": lambda one: any("--no-cache-dir" not in words for words in _pip(one)),
    "DL3046": lambda one: any(
        words[:1] == ["useradd"] and not {"-l", "--no-log-init"} & set(words) for words in one.commands
    ),
    "DL4000": lambda one: one.name == "MAINTAINER",
    "DL4006": lambda one: one.name == "RUN" and re.search(r"[^|]\|[^|]", one.text) is not None,
}


def _copied(one: Instruction) -> list[str]:
    return [word for word in one.words if not word.startswith("--")]


def _of_the_file(instructions: list[Instruction]) -> Iterator[str]:
    names: list[str] = []
    for stage in stages(instructions):
        image, *alias = re.split(r"\s+AS\s+", stage[0].text, flags=re.I)
        image = resolved(image, instructions)
        if ":" not in image and "@" not in image and image not in names:
            yield "DL3006"
        if image.endswith(":latest"):
            yield "DL3007"
        for one in stage:
            source = re.search(r"--from=(\S+)", one.text) if one.name == "COPY" else None
            if source and source[1] not in names:
                yield "DL3022"
        if alias and alias[0] in names:
            yield "DL3024"
        names += alias
        kinds = [one.name for one in stage]
        yield from ("DL3059" for one, after in itertools.pairwise(stage) if one.name == after.name == "RUN")
        for number, kind in (("DL4003", "CMD"), ("DL4004", "ENTRYPOINT"), ("DL3012", "HEALTHCHECK")):
            if kinds.count(kind) > 1:
                yield number
    last = [one.text for one in stages(instructions)[-1] if one.name == "USER"]
    if not last or last[-1].partition(":")[0] in ("root", "0"):
        yield "DL3002"
