"""Every option of `load`, with values that nobody would give and some that people do."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import patchcut
import pytest
from patchcut import OptionError, Settings
from patchcut.checks import check_flag, check_number, check_whole, shown
from patchcut.heads import FITTED


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Endless(int):
    def __repr__(self) -> str:
        return "9" * 10**6


ODD: list[Any] = [
    None,
    b"",
    b"auto",
    bytearray(3),
    memoryview(b"x"),
    io.BytesIO(b"auto"),
    "",
    " ",
    "auto ",
    "\0",
    "a\x1b[2Jb",
    "\udcff",
    "x" * 300,
    "x" * 10**6,
    "0.5",
    "224",
    "nan",
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    10**400,
    -(10**400),
    10**5000,
    0.0,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
    1j,
    True,
    False,
    Fraction(1, 2),
    Decimal("0.5"),
    Decimal("NaN"),
    np.array(0.5),
    np.array([0.5]),
    np.array([224, 224]),
    np.zeros((2, 0)),
    np.array(["auto"]),
    np.array(None, object),
    np.int64(1),
    np.uint8(255),
    np.float32(0.5),
    np.float64("nan"),
    np.float16("inf"),
    np.bool_(True),
    np.str_("auto"),
    np.datetime64("2020-01-01"),
    np.timedelta64("NaT"),
    np.void(b"auto"),
    [],
    [0.5],
    (),
    (224, 224),
    {},
    {"auto"},
    set(),
    object(),
    int,
    Settings,
    len,
    lambda: 0.5,
    Ellipsis,
    NotImplemented,
    Unshowable(),
    Endless(-7),
    PurePosixPath("x"),
    range(3),
    iter([1]),
    copy,
]


def test_odd_values_of_settings_are_taken_or_an_option_error() -> None:
    tried, taken = 0, []
    for one in fields(Settings):
        for value in ODD:
            tried += 1
            try:
                settings = Settings(**{one.name: value})
            except OptionError as error:
                assert (
                    error.where.startswith(one.name) and len(str(error)) < 1000 and str(error).isprintable()
                )
            else:
                taken.append((one.name, value))
                assert "array" not in str(type(getattr(settings, one.name)))
    assert tried == len(ODD) * len(fields(Settings)) >= 1000
    assert len(taken) < tried / 4
    assert [value for name, value in taken if name == "single" and value is not False] == [True, np.True_]


def test_odd_values_of_load_are_taken_or_a_patchcut_error(toy_bundle: Path) -> None:
    refused = 0
    for one in fields(Settings):
        for value in ODD:
            try:
                patchcut.load(**{"bundle": toy_bundle, one.name: value})
            except patchcut.PatchcutError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1
    assert refused > len(ODD) * (len(fields(Settings)) - 4)


def test_odd_values_of_fitted_heads_are_taken_or_an_option_error() -> None:
    tried = 0
    for head in FITTED.values():
        for one in fields(head):  # type: ignore[arg-type]
            for value in ODD:
                tried += 1
                try:
                    made = head(**{one.name: value})
                except OptionError as error:
                    assert error.where == one.name
                else:
                    assert type(getattr(made, one.name)) in (int, float, bool, str, Fraction, np.str_)
    assert tried >= 1000


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"min_score": np.float32(0.5), "threads": np.int64(3)}, {"min_score": 0.5, "threads": 3}),
        ({"single": np.True_, "size": np.uint16(112)}, {"single": True, "size": 112}),
        ({"nothing_below": np.array(0.25)}, {"nothing_below": 0.25}),
    ],
)
def test_numbers_of_numpy_are_as_welcome_as_pythons(given: dict[str, Any], want: dict[str, Any]) -> None:
    got, plain = Settings(**given), Settings(**want)
    assert got == plain and repr(got) == repr(plain) and got.words() == plain.words()


def test_checks_at_their_borders() -> None:
    for value in (0, 1, np.uint8(1), np.array(1)):
        check_whole("k", value, 0, 1)
        check_number("x", value, 0, 1)
    for value in (2, 10**400, True, np.True_, 1.0, "1", np.array([1]), float("nan")):
        with pytest.raises(OptionError, match=r"\[k\] must be a whole number from 0 to 1, got"):
            check_whole("k", value, 0, 1)
    check_number("x", 10**400, 0, float("inf"))
    check_flag("on", np.False_)
    assert shown(Unshowable()) == "something of type Unshowable"
    assert len(shown(Endless(3))) < 100


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PATCHCUT_THREADS", "0", "[PATCHCUT_THREADS] must be 1 to 256, got '0'; change the"),
        ("PATCHCUT_THREADS", "two", "[PATCHCUT_THREADS] must be 1 to 256, got 'two'; change the"),
        ("PATCHCUT_THREADS", "9" * 400, "[PATCHCUT_THREADS] must be 1 to 256, got '999"),
        ("PATCHCUT_THREADS", b"\xff", "[PATCHCUT_THREADS] must be "),
        ("PATCHCUT_ISA", "sse9", "[PATCHCUT_ISA] must be one of baseline"),
        ("PATCHCUT_ISA", b"\xff\x1b[2J", "[PATCHCUT_ISA] must be "),
    ],
)
@pytest.mark.parametrize("command", ["info", "run"])
def test_the_environment_is_checked(
    toy_bundle: Path, tmp_path: Path, name: str, value: str | bytes, line: str, command: str
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    where = [str(toy_bundle)] if command == "info" else [str(tmp_path), "--bundle", str(toy_bundle)]
    done = subprocess.run(
        [sys.executable, "-m", "patchcut", command, *where],
        env={**os.environ, name: value},  # type: ignore[dict-item]
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"patchcut: {line}") and len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr and len(done.stderr) < 300
