"""Which plan the options of `patchcut export train` ask for."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs patchcut[export]")

from patchcut_export.cli.plans import choose_plan
from patchcut_export.training.columns import ColumnPlan
from patchcut_export.training.foreground import ForegroundPlan


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({}, ForegroundPlan()),
        ({"k": 2}, ForegroundPlan()),
        ({"rounds": 2, "epochs": 3, "seed": 4}, ForegroundPlan(rounds=2, epochs=3, seed=4)),
        (
            {"batch": 8, "learning_rate": 0.01, "threshold": 0.1},
            ForegroundPlan(threshold=0.1, batch=8, learning_rate=0.01),
        ),
        ({"k": 3}, ColumnPlan(columns=3)),
        ({"loss": "ncut"}, ColumnPlan(loss="ncut", columns=2)),
        ({"loss": "cc", "alpha": 4.0, "k": 2}, ColumnPlan(loss="cc", alpha=4.0, columns=2)),
        ({"parts": True}, ColumnPlan(parts=True, columns=16)),
        ({"parts": True, "k": 2, "context": 0}, ColumnPlan(parts=True, columns=2, context=0)),
    ],
)
def test_options_become_a_plan(options: dict[str, Any], plan: ForegroundPlan | ColumnPlan) -> None:
    assert choose_plan(**options) == plan
