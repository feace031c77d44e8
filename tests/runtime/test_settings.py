"""One list of settings: what it checks, and that each of its fields is everywhere by itself."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import patchcut
import pytest
import typer
from patchcut import OptionError, Segmenter, Settings
from patchcut.cli import app as cli
from patchcut.cli.options import command, with_settings
from patchcut.heads import CcHead, KMeansHead
from patchcut.settings import option_name, setting
from patchcut.stages.refiners import REFINERS
from typer.testing import CliRunner

FIELDS = {one.name: one for one in fields(Settings)}
CHOSEN: dict[str, Any] = {
    "bundle": "x.patchcut",
    "engine": "mine",
    "device": "cuda",
    "precision": "fp16",
    "size": 448,
    "head": "cc:alpha=5,solver=gnn",
    "concepts": "dog,car",
    "mode": "scene",
    "parts": "kmeans:k=6",
    "refine": "bilateral",
    "min_score": 0.25,
    "nothing_below": 0.5,
    "single": True,
    "value_range": "0:4095",
    "max_pixels": 10**6,
    "throughput": True,
    "threads": 3,
}


@dataclass(frozen=True, kw_only=True)
class More(Settings):
    """Settings with one more, which nobody else knows of."""

    shininess: float = setting(0.5, "How much it shines, 0 to 1.", type=float, between=(0, 1))


def typed(function: Callable[..., int], *words: str) -> tuple[int, str]:
    """Exit status and output of a command line with one command."""
    app = typer.Typer()
    command(app, "one")(function)
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.output


def settings_of(settings_type: type[Settings], *words: str, **defaults: object) -> Settings:
    """The settings that a command gets for these words."""
    given: list[Settings] = []

    @with_settings(settings_type, **defaults)
    def run(*, settings: Settings) -> int:
        """Keep the settings."""
        given.append(settings)
        return 0

    assert typed(run, *words) == (0, "")
    return given[0]


def test_words_are_the_command_line_that_repeats_the_settings() -> None:
    assert set(CHOSEN) == set(FIELDS) - {"color"}, "every setting of the command line is tried"
    chosen = Settings(**CHOSEN)
    words = chosen.words()
    assert words[:2] == ["--bundle", "x.patchcut"] and "--single" in words
    assert settings_of(Settings, *words) == chosen
    assert Settings(color="rgb").words() == [], "no option of the command line"
    assert Settings().words() == [] and settings_of(Settings) == Settings()


def test_words_tell_what_differs_from_the_defaults_of_a_command() -> None:
    defaults = {"refine": "none", "nothing_below": 0.0}
    for refine in ("auto", "none", "guided"):
        chosen = Settings(refine=refine, nothing_below=0.25)
        words = chosen.words(**defaults)
        assert ("--refine" in words) == (refine != "none")
        assert settings_of(Settings, *words, **defaults) == chosen
    assert settings_of(Settings, **defaults) == Settings(refine="none", nothing_below=0.0)


def test_heads_that_are_objects_have_words() -> None:
    chosen = Settings(head=CcHead(alpha=5.0), mode="parts", parts=KMeansHead(k=6))
    assert chosen.words() == ["--head", "cc:alpha=5.0", "--mode", "parts", "--parts", "kmeans:k=6"]


def test_a_new_setting_is_in_both_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="patchcut export needs it")
    from patchcut_export.cli.evaluate import evaluate

    for function, words in ((cli._run, ["x.jpg"]), (evaluate, ["masks", "--root", "x"])):
        undecorated = cast("Any", function).__wrapped__
        assert "settings" in inspect.signature(undecorated).parameters
        status, said = typed(with_settings(More)(undecorated), "--help")
        assert status == 0 and "--shininess" in said
        status, said = typed(with_settings(More)(undecorated), *words, "--shininess", "2")
        assert status == 2 and "[shininess] must be a number from 0 to 1, got 2.0" in said


def test_a_new_setting_reaches_its_use_is_described_and_repeated(toy_bundle: Path) -> None:
    chosen = settings_of(More, "--bundle", str(toy_bundle), "--shininess", "0.75")
    segmenter = Segmenter.open(chosen)
    assert cast("More", segmenter.settings).shininess == 0.75
    described = segmenter.describe()
    assert described.shininess == described.to_dict()["shininess"] == 0.75
    assert re.search(r"^shininess +0.75$", str(described), re.M)
    assert chosen.words()[-2:] == ["--shininess", "0.75"]
    assert patchcut.load(settings=chosen, single=True).settings == More(**{**vars(chosen), "single": True})
    with pytest.raises(OptionError, match=r"\[shininess\] must be a number from 0 to 1, got -1"):
        patchcut.load(settings=chosen, shininess=-1)


@pytest.mark.parametrize(
    "chosen",
    [{}, {"size": 168, "precision": "fp32", "head": "cc:alpha=2"}, {"mode": "scene", "parts": "kmeans:k=2"}],
    ids=str,
)
def test_what_is_described_repeats_what_ran(toy_bundle: Path, chosen: dict[str, Any]) -> None:
    described = patchcut.load(toy_bundle, **chosen).describe()
    settings, size = described.settings, chosen.get("size", 112)
    assert settings.size == size and described.to_dict()["size_hw"] == (size, size)
    assert described.to_dict().keys() == (vars(described) | vars(settings)).keys() - {"settings", "size"}
    assert settings_of(Settings, *settings.words()).words() == settings.words()


def test_every_setting_is_documented() -> None:
    assert Settings.__doc__ is not None
    described = re.findall(r"^        (\w+): ", Settings.__doc__, re.M)
    assert described == list(FIELDS)
    assert all(one.metadata["help"].endswith(".") for one in FIELDS.values())


def test_every_refiner_is_a_choice() -> None:
    for name in REFINERS:
        assert f" {name}" in FIELDS["refine"].metadata["help"] and f'"{name}"' in (Settings.__doc__ or "")
        Settings(refine=name)


def test_an_unknown_setting_lists_all(toy_bundle: Path) -> None:
    with pytest.raises(OptionError, match=r"\[heads\] is no setting; there are bundle, engine, device"):
        patchcut.load(toy_bundle, heads="cc")


@pytest.mark.parametrize("given", [{"head": "cc"}, "cc", Settings])
def test_settings_are_given_as_settings(given: Any) -> None:
    with pytest.raises(OptionError, match=r"\[settings\] must be a patchcut.Settings, got (dict|str|type)"):
        patchcut.load(settings=given)


def test_numbers_of_numpy_are_described_as_numbers(toy_bundle: Path) -> None:
    described = patchcut.load(toy_bundle, min_score=np.float32(0.5)).describe()
    assert json.loads(json.dumps(described.to_dict()))["min_score"] == 0.5


def test_settings_and_descriptions_can_be_copied_and_pickled(toy_bundle: Path) -> None:
    described = patchcut.load(toy_bundle, head=CcHead(alpha=5.0)).describe()
    for it in (described, described.settings):
        assert pickle.loads(pickle.dumps(it)) == copy.deepcopy(it) == copy.copy(it) == it


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().size = 448  # type: ignore[misc]


@pytest.mark.parametrize("bundle", ["", None, 3])
def test_a_bundle_is_a_name_or_a_path(bundle: Any) -> None:
    with pytest.raises(OptionError, match=r"\[bundle\] must be a bundle's name or path, got"):
        Settings(bundle=bundle)


def test_an_option_is_spelled_with_dashes() -> None:
    assert [option_name(name) for name in ("size", "min_score")] == ["--size", "--min-score"]
