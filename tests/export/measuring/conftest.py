"""Fixtures of what `patchcut export eval` refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

# How the lines of progress of the sets that the tests paint begin.
_PROGRESS = ("painted (", "ball, 1", "pair, 2")


@pytest.fixture
def refusal(run_cli: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refusal(status, *words): the one line that `patchcut export eval` ends with, and nothing else."""

    def run(status: int, *words: object) -> str:
        assert run_cli("export", "eval", *words) == status
        said, errors = capfd.readouterr()
        lines = [line for line in errors.splitlines() if not line.startswith(_PROGRESS)]
        assert said == "" and len(lines) == 1 and lines[0].startswith("patchcut: ["), errors
        return lines[0]

    return run
